"""RowTable: rows of named values, as they come from a file, to training logs; it opens no file.

Rows are kept as flat arrays of doubles (about 100 bytes a row), so that a million of them cost little memory.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from itertools import groupby

import numpy as np

from finestep.diagnosis.training_log import Column, RunContext, TrainingLog
from finestep.flat import flat_names, from_flat
from finestep.readers.column_names import objective_of
from finestep.readers.eval_rows import EvalRows, add_metrics, loss_of
from finestep.readers.limits import (
    MAX_EVAL_SETS,
    MAX_MAGNITUDE,
    MAX_ROWS,
    MAX_RUNS,
    MAX_STEP,
    MISSING,
    number,
)
from finestep.readers.row_columns import (
    EPOCH,
    LOSS,
    LOSS_RANK,
    NUM_EXTRA,
    RATE,
    SLOTS,
    STEP,
    STEP_RANK,
    WIDTH,
    as_matrix,
    choose_alias,
    takes_both_signs,
    with_extra,
)  # fmt: skip
from finestep.readers.row_plan import Plan, RowPlans, as_columns, in_places, of_validation
from finestep.readers.run_boundaries import NEW_RUN_MARK, continued, leftovers, run_starts
from finestep.readers.run_rows import epochs_tell_more, run_series

COUNTED_OUT = {STEP: "max_steps", EPOCH: "num_epochs"}
"""What the number behind the slash says, as in `step 610/1000`."""
_TAG_NAMES = {
    "reward": "reward", "reward_spread": "reward_std", "zero_spread_share": "frac_reward_zero_std",
    "clipped_completions": "completions/clipped_ratio", "margin": "rewards/margins", "chosen_reward": "rewards/chosen",
    "pair_accuracy": "rewards/accuracies",
}  # fmt: skip
"""A name of each column that only preference or reinforcement learning has."""
MIN_COLUMN, FEW_ROWS, MANY_TIMES = 8, 4, 5


class RowTable:
    """Collects the rows of one file (or of one run in it)."""

    def __init__(self) -> None:
        self.context: dict[str, object] = {}
        self.num_skipped = 0
        self.notes: list[str] = []
        self._flat = array("d")
        self._extra = array("d")
        self._evals: dict[str, EvalRows] = {}
        self._plans = RowPlans()
        self.tags = self._plans.tags
        self._num_train = 0
        self._bar = (0, 0)
        self._counts_on = False

    @property
    def num_rows(self) -> int:
        """Rows that held something to use."""
        return self._num_train + sum(len(rows.loss) for rows in self._evals.values())

    @property
    def is_full(self) -> bool:
        """True when the limit of rows is reached; the caller stops reading."""
        return self._num_train >= MAX_ROWS

    def add(self, row: Mapping[str, object]) -> bool:
        """Take one row; False when it held nothing that says how the run goes."""
        keys = tuple(row)
        plan = self._plans.plan_of(keys)
        if plan.split is not None and (renamed := of_validation(row, plan)) is not None:
            return self.add(renamed)
        if plan.context:
            self._take_context(row, plan)
        if not plan.is_used or self._num_train >= MAX_ROWS:
            return False
        values = [MISSING] * WIDTH
        for key, slot in plan.train:
            value = row[key]
            kind = type(value)
            is_plain = (kind is float or kind is int) and -MAX_MAGNITUDE < value < MAX_MAGNITUDE  # type: ignore[operator]
            values[slot] = value if is_plain else self._value(value, slot)  # type: ignore[call-overload]
        if not -1.0 <= values[STEP] <= MAX_STEP:
            values[STEP] = MISSING
        values[STEP_RANK], values[LOSS_RANK] = plan.step_rank, plan.loss_rank
        if plan.evals:
            self._add_evals(row, plan, values)
        if plan.extra:
            self._add_extra(row, plan)
        self._flat.extend(values)
        self._num_train += 1
        return True

    def add_many(self, rows: Sequence[Mapping[str, object]]) -> list[int]:
        """Take rows in order, those with equal names as columns; the positions of rows that held nothing to use."""
        unused: list[int] = []
        start = 0
        for _, group in groupby(rows, key=tuple):
            chosen = list(group)
            unused += self._add_alike(chosen, start)
            start += len(chosen)
        return unused

    def add_numbers(self, names: tuple[str, ...], values: Column) -> bool:
        """Take rows of numbers [rows, names]; False, and nothing is taken, when their names ask for a look at each row."""
        plan = self._plans.plan_of(names)
        if len(values) < MIN_COLUMN or not _is_of_training(plan):
            return False
        self._take_matrix(in_places(dict(zip(names, values.T, strict=True)), plan, len(values)))
        return True

    def count_skipped(self, count: int) -> None:
        """Note optimizer steps that the trainer says it left out."""
        before = self.context.get("num_skipped_steps")
        self.context["num_skipped_steps"] = (before if isinstance(before, int) else 0) + count

    def see_skipped(self, total: int) -> None:
        """Note optimizer steps that the trainer has left out so far."""
        if total:
            self.context["num_skipped_steps"] = total

    def see_bar(self, done: int, planned: int) -> None:
        """Note what a progress bar shows; the longest bar is that of the steps."""
        if planned > self._bar[1]:
            self._bar = (done, planned)
        elif planned == self._bar[1]:
            self._bar = (max(done, self._bar[0]), planned)

    def mark_new_run(self) -> None:
        """Say that the rows that follow belong to another run."""
        self._flat.extend([NEW_RUN_MARK] + [MISSING] * (WIDTH - 1))
        self._num_train += 1

    def logs(self, *, name: str, source: str, format: str) -> list[TrainingLog]:
        """The runs found, in order; empty when no row held a loss."""
        flat, self._flat = (
            self._flat,
            array("d"),
        )  # The matrix is changed in place: a second one of a million rows would take as much again.
        matrix = with_extra(as_matrix(flat), self._extra)
        evals = {key: rows for key, rows in self._evals.items() if len(rows.loss)}
        matrix = choose_alias(choose_alias(matrix, STEP, STEP_RANK), LOSS, LOSS_RANK)
        self._take_bar(matrix)
        if _ends_a_bar(matrix):
            matrix[:, STEP] = np.nan
            self.context.pop("max_steps", None)
        shown_again = leftovers(matrix[:, STEP], matrix[:, EPOCH], matrix[:, LOSS])
        matrix[shown_again, STEP] = matrix[shown_again, LOSS] = np.nan
        own_steps = matrix[:, STEP].copy()
        matrix[:, STEP] = continued(own_steps, matrix[:, EPOCH], matrix[:, LOSS])
        self._counts_on = not np.array_equal(own_steps, matrix[:, STEP], equal_nan=True)
        told = matrix[:, LOSS]
        if np.isnan(told).all():  # Evaluations alone: then their counters say where a run begins.
            told = np.zeros(len(matrix))
        starts = run_starts(matrix[:, STEP], matrix[:, EPOCH], told, matrix[:, RATE])[:MAX_RUNS]
        bounds = list(zip(starts, [*starts[1:], len(matrix)], strict=True))
        context = self._run_context(matrix)
        notes = (*self.notes, *_reading_notes(self.num_skipped, self._plans.guessed_loss))
        runs = [run_series(matrix, evals, bound, self._counts_on) for bound in bounds]
        runs = [run for run in runs if len(run[0]) or run[1]] or (
            [run_series(matrix, evals, (0, len(matrix)), self._counts_on)] if evals else []
        )
        return [
            TrainingLog(
                name=name if len(runs) == 1 else f"{name} (run {index})",
                source=source,
                format=format,
                train=train,
                evaluations=evaluations,
                context=context,
                notes=notes + extra,
            )
            for index, (train, evaluations, extra) in enumerate(runs, start=1)
        ]

    def _add_alike(self, rows: list[Mapping[str, object]], start: int) -> list[int]:
        keys = tuple(rows[0])
        plan = self._plans.plan_of(keys)
        matrix = None
        if len(rows) >= MIN_COLUMN and _is_of_training(plan):
            matrix = as_columns(rows, plan)
        if matrix is None:
            return [start + index for index, row in enumerate(rows) if not self.add(row)]
        self._take_matrix(matrix)
        return []

    def _take_matrix(self, matrix: Column) -> None:
        matrix = matrix[: MAX_ROWS - self._num_train]
        self._flat.frombytes(matrix.tobytes())
        self._num_train += len(matrix)

    def _value(self, value: object, slot: int) -> float:
        if slot in COUNTED_OUT and isinstance(value, str) and "/" in value[:40]:
            value, total = value[:40].split("/", 1)
            self.context.setdefault(COUNTED_OUT[slot], number(total))
        return number(value)

    def _take_context(self, row: Mapping[str, object], plan: Plan) -> None:
        for key, slot in plan.context:
            value = number(row[key])
            if value == value:
                self.context[slot] = value

    def _add_extra(self, row: Mapping[str, object], plan: Plan) -> None:
        values = [float(self._num_train), *[MISSING] * NUM_EXTRA]
        for key, slot in plan.extra:
            values[1 + slot] = number(row[key])
        if any(value == value for value in values[1:]):
            self._extra.extend(values)

    def _add_evals(self, row: Mapping[str, object], plan: Plan, values: list[float]) -> None:
        by_set: dict[str, dict[str, float]] = {}
        for key, eval_set, slot in plan.evals:
            value = number(row[key])
            if value == value:
                by_set.setdefault(eval_set, {})[slot] = value
        for eval_set, found in by_set.items():
            rows = self._eval_rows(eval_set, found)
            if rows is None:
                continue
            for column, value in (
                (rows.order, self._num_train),
                (rows.step, values[STEP]),
                (rows.epoch, values[EPOCH]),
            ):
                column.append(value)
            rows.loss.append(loss_of(found))
            add_metrics(rows, found)

    def _eval_rows(self, eval_set: str, found: dict[str, float]) -> EvalRows | None:
        if "loss" not in found and eval_set == "" and "" not in self._evals and len(self._evals) == 1:
            eval_set = next(iter(self._evals))
        if eval_set not in self._evals and len(self._evals) >= MAX_EVAL_SETS:
            return None
        return self._evals.setdefault(eval_set, EvalRows())

    def _take_bar(self, matrix: Column) -> None:
        """Steps of printed rows without a number, spread over the steps that the progress bar counted."""
        done, planned = self._bar
        if not planned or not np.isnan(matrix[:, STEP]).all():
            return
        has_loss = np.flatnonzero(~np.isnan(matrix[:, LOSS]))
        is_one_run = len(has_loss) > 0 and not run_starts(matrix[:, STEP], matrix[:, EPOCH], matrix[:, LOSS])[1:]
        if not is_one_run or not len(has_loss) <= done <= planned:
            return
        epoch = matrix[:, EPOCH]
        if epochs_tell_more(epoch, len(has_loss)):
            matrix[:, STEP] = np.round(epoch / epoch.max() * done)
        else:
            matrix[has_loss, STEP] = np.round(np.arange(1, len(has_loss) + 1) * done / len(has_loss))
        self.context.setdefault("max_steps", planned)
        self.notes.append("the log has no step numbers; its rows are spread over the steps of its progress bar")

    def _run_context(self, matrix: Column) -> RunContext:
        objective = _objective(matrix, self._plans.tags)
        known = {key: value for key, value in self.context.items() if key in flat_names(RunContext)}
        epochs = known.get("num_epochs")
        known["num_epochs"] = float(epochs) if isinstance(epochs, (int, float)) and 0 < epochs < 1e6 else None
        for key in ("max_steps", "batch_size", "num_skipped_steps", "num_labels"):
            value = known.get(key)
            known[key] = int(value) if isinstance(value, (int, float)) and 0 < value < 1e12 else None
        if self._counts_on:
            known["max_steps"] = None
        return from_flat(RunContext, {**known, "objective": objective})


def _is_of_training(plan: Plan) -> bool:
    """True for names that only speak of training, in the common columns."""
    return plan.is_used and not (plan.evals or plan.context or plan.extra or plan.split)


def _ends_a_bar(matrix: Column) -> bool:
    """A step that is the same in every row with a loss is the end of a progress bar, and no counter of the run, unless epochs count
    and validation has no bar of its own."""
    has_loss = ~np.isnan(matrix[:, LOSS])
    steps, others = matrix[has_loss, STEP], matrix[~has_loss, STEP]
    if len(steps) < FEW_ROWS or not (steps == steps[0]).all():
        return False
    return bool(np.isnan(matrix[:, EPOCH]).all() or (others[np.isfinite(others)] != steps[0]).any())


def _objective(matrix: Column, tags: set[str]) -> str:
    """What the columns with values say; a column that is empty in every row says nothing."""
    told = {name: int((~np.isnan(matrix[:, slot])).sum()) for name, slot in SLOTS.items() if slot < matrix.shape[1]}
    # A few rewards among many losses are those of evaluations.
    known = {name for name, count in told.items() if count > (told["loss"] / MANY_TIMES if name == "reward" else 0)}
    if "reward" in known and "loss" not in known:
        return "reinforcement"
    tags = tags | {objective for name in known if (objective := objective_of(_TAG_NAMES.get(name, "")))}
    if "loss" in known and not tags and takes_both_signs(matrix[:, LOSS]):
        return "reinforcement"
    return next((tag for tag in ("reinforcement", "preference") if tag in tags), "supervised")


def _reading_notes(num_skipped: int, guessed_loss: str | None) -> list[str]:
    """What was not read, and what was guessed."""
    skipped = [f"{num_skipped} rows could not be read and were skipped"] if num_skipped else []
    guess = [f"guessed that the column `{guessed_loss[:80]}` is the training loss"] if guessed_loss is not None else []
    return skipped + guess
