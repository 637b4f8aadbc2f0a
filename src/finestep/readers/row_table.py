"""RowTable: rows of named values, as they come from a file, to training logs; it opens no file.

Rows are kept as flat arrays of doubles (about 100 bytes a row), so that a million of them cost little memory.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

import numpy as np

from finestep.diagnosis.training_log import TRAIN_COLUMNS, Column, EvalSeries, RunContext, TrainingLog, TrainSeries
from finestep.readers.column_names import Role, looks_like_a_loss, objective_of, role_of
from finestep.readers.limits import (
    MAX_EVAL_SETS,
    MAX_MAGNITUDE,
    MAX_METRICS,
    MAX_NAMES,
    MAX_ROWS,
    MAX_RUNS,
    MAX_STEP,
    MISSING,
    NOT_FINITE,
    number,
)
from finestep.readers.run_boundaries import NEW_RUN_MARK, continued, merge_equal_steps, run_starts

_COMMON = TRAIN_COLUMNS.index("elapsed_s") + 1
_STEP_RANK, _LOSS_RANK = _COMMON, _COMMON + 1
_WIDTH = _COMMON + 2
_SLOTS = {name: index if index < _COMMON else index + 2 for index, name in enumerate(TRAIN_COLUMNS)}
"""Places of the columns: the common ones, two for the ranks of names, and then those of preference and reinforcement learning,
which are kept apart because most logs have none of them."""
_EXTRA = len(TRAIN_COLUMNS) - _COMMON
_STEP, _LOSS, _EPOCH, _RATE = (_SLOTS[name] for name in ("step", "loss", "epoch", "learning_rate"))
_COUNTED_OUT = {_STEP: "max_steps", _EPOCH: "num_epochs"}
"""What the number behind the slash says, as in `step 610/1000`."""
_GUESS_RANK = 900
_CARRIED = ("learning_rate", "epoch")
_TAG_NAMES = {
    "reward": "reward", "reward_spread": "reward_std", "zero_spread_share": "frac_reward_zero_std",
    "clipped_completions": "completions/clipped_ratio", "margin": "rewards/margins", "chosen_reward": "rewards/chosen",
    "pair_accuracy": "rewards/accuracies",
}  # fmt: skip
"""A name of each column that only preference or reinforcement learning has."""
_MIN_COLUMN, _FEW_ROWS = 8, 4
_PLAIN = frozenset({float, int, str})


class _Plan(NamedTuple):
    """Where the values of rows with one set of keys go."""

    train: tuple[tuple[str, int], ...]
    extra: tuple[tuple[str, int], ...]
    evals: tuple[tuple[str, str, str], ...]
    context: tuple[tuple[str, str], ...]
    step_rank: float
    loss_rank: float
    is_used: bool


@dataclass
class _EvalRows:
    order: array[float] = field(default_factory=lambda: array("d"))
    step: array[float] = field(default_factory=lambda: array("d"))
    epoch: array[float] = field(default_factory=lambda: array("d"))
    loss: array[float] = field(default_factory=lambda: array("d"))
    metrics: dict[str, list[tuple[int, float]]] = field(default_factory=dict)


class RowTable:
    """Collects the rows of one file (or of one run in it)."""

    def __init__(self) -> None:
        self.context: dict[str, object] = {}
        self.tags: set[str] = set()
        self.num_skipped = 0
        self.notes: list[str] = []
        self._flat = array("d")
        self._extra = array("d")
        self._evals: dict[str, _EvalRows] = {}
        self._roles: dict[str, Role | None] = {}
        self._plans: dict[tuple[str, ...], _Plan] = {}
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
        plan = self._plans.get(keys) or self._new_plan(keys)
        if plan.context:
            self._take_context(row, plan)
        if not plan.is_used or self._num_train >= MAX_ROWS:
            return False
        values = [MISSING] * _WIDTH
        for key, slot in plan.train:
            value = row[key]
            kind = type(value)
            is_plain = (kind is float or kind is int) and -MAX_MAGNITUDE < value < MAX_MAGNITUDE  # type: ignore[operator]
            values[slot] = value if is_plain else self._value(value, slot)  # type: ignore[call-overload]
        if not -1.0 <= values[_STEP] <= MAX_STEP:
            values[_STEP] = MISSING
        values[_STEP_RANK], values[_LOSS_RANK] = plan.step_rank, plan.loss_rank
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

    def count_skipped(self, count: int) -> None:
        """Note optimizer steps that the trainer says it left out."""
        before = self.context.get("num_skipped_steps")
        self.context["num_skipped_steps"] = (before if isinstance(before, int) else 0) + count

    def see_bar(self, done: int, planned: int) -> None:
        """Note what a progress bar shows; the longest bar is that of the steps."""
        if planned > self._bar[1]:
            self._bar = (done, planned)
        elif planned == self._bar[1]:
            self._bar = (max(done, self._bar[0]), planned)

    def mark_new_run(self) -> None:
        """Say that the rows that follow belong to another run."""
        self._flat.extend([NEW_RUN_MARK] + [MISSING] * (_WIDTH - 1))
        self._num_train += 1

    def logs(self, *, name: str, source: str, format: str) -> list[TrainingLog]:
        """The runs found, in order; empty when no row held a loss."""
        flat, self._flat = (
            self._flat,
            array("d"),
        )  # The matrix is changed in place: a second one of a million rows would take as much again.
        matrix = _with_extra(_matrix(flat), self._extra)
        evals = {key: rows for key, rows in self._evals.items() if len(rows.loss)}
        matrix = _choose_alias(_choose_alias(matrix, _STEP, _STEP_RANK), _LOSS, _LOSS_RANK)
        self._take_bar(matrix)
        self._drop_one_step(matrix)
        own_steps = matrix[:, _STEP].copy()
        matrix[:, _STEP] = continued(own_steps, matrix[:, _EPOCH], matrix[:, _LOSS])
        self._counts_on = not np.array_equal(own_steps, matrix[:, _STEP], equal_nan=True)
        starts = run_starts(matrix[:, _STEP], matrix[:, _EPOCH], matrix[:, _LOSS], matrix[:, _RATE])[:MAX_RUNS]
        bounds = list(zip(starts, [*starts[1:], len(matrix)], strict=True))
        context, notes = self._run_context(matrix), self._all_notes()
        runs = [_one_run(matrix, evals, bound, self._counts_on) for bound in bounds]
        runs = [run for run in runs if len(run[0]) or run[1]] or (
            [_one_run(matrix, evals, (0, len(matrix)), self._counts_on)] if evals else []
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
        plan = self._plans.get(keys) or self._new_plan(keys)
        matrix = None
        if len(rows) >= _MIN_COLUMN and plan.is_used and not (plan.evals or plan.context or plan.extra):
            matrix = _as_columns(rows, plan)
        if matrix is None:
            return [start + index for index, row in enumerate(rows) if not self.add(row)]
        matrix = matrix[: MAX_ROWS - self._num_train]
        self._flat.frombytes(matrix.tobytes())
        self._num_train += len(matrix)
        return []

    def _new_plan(self, keys: tuple[str, ...]) -> _Plan:
        plan = self._make_plan(keys)
        if len(self._plans) < MAX_NAMES:
            self._plans[keys] = plan
        return plan

    def _make_plan(self, keys: tuple[str, ...]) -> _Plan:
        best: dict[str, tuple[int, str]] = {}
        evals, context = [], []
        is_summary = "train_runtime" in keys and "loss" not in keys
        for key in keys[:MAX_NAMES]:
            role = self._role(key)
            if isinstance(key, str) and (objective := objective_of(key)) and (role is None or role.slot == "loss"):
                self.tags.add(objective)
            if role is None or (is_summary and role.slot == "loss" and role.split == "train"):
                continue
            if role.split == "train":
                best[role.slot] = min(best.get(role.slot, (role.rank, key)), (role.rank, key))
            elif role.split == "eval":
                evals.append((key, role.eval_set, role.slot))
            elif role.split == "context":
                context.append((key, role.slot))
        if "loss" not in best and not evals and not is_summary:
            best.update(self._guess_loss(keys))
        train = tuple((key, _SLOTS[slot]) for slot, (_, key) in best.items() if _SLOTS[slot] < _COMMON)
        extra = tuple((key, _SLOTS[slot] - _WIDTH) for slot, (_, key) in best.items() if _SLOTS[slot] >= _WIDTH)
        used = {slot for slot in best if slot not in ("step", "epoch", "elapsed_s", "num_tokens")}
        return _Plan(
            train=train,
            extra=extra,
            evals=tuple(evals),
            context=tuple(context),
            step_rank=float(best["step"][0]) if "step" in best else MISSING,
            loss_rank=float(best["loss"][0]) if "loss" in best else MISSING,
            is_used=bool(used or evals),
        )

    def _guess_loss(self, keys: tuple[str, ...]) -> dict[str, tuple[int, str]]:
        guesses = [key for key in keys if isinstance(key, str) and looks_like_a_loss(key)]
        return {"loss": (_GUESS_RANK, guesses[0])} if guesses else {}

    def _role(self, key: str) -> Role | None:
        if not isinstance(key, str) or len(key) > 200:
            return None
        if key not in self._roles:
            if len(self._roles) >= MAX_NAMES:
                return None
            self._roles[key] = role_of(key)
        return self._roles[key]

    def _value(self, value: object, slot: int) -> float:
        if slot in _COUNTED_OUT and isinstance(value, str) and "/" in value[:40]:
            value, total = value[:40].split("/", 1)
            self.context.setdefault(_COUNTED_OUT[slot], number(total))
        return number(value)

    def _take_context(self, row: Mapping[str, object], plan: _Plan) -> None:
        for key, slot in plan.context:
            value = number(row[key])
            if value == value:
                self.context[slot] = value

    def _add_extra(self, row: Mapping[str, object], plan: _Plan) -> None:
        values = [float(self._num_train), *[MISSING] * _EXTRA]
        for key, slot in plan.extra:
            values[1 + slot] = number(row[key])
        if any(value == value for value in values[1:]):
            self._extra.extend(values)

    def _add_evals(self, row: Mapping[str, object], plan: _Plan, values: list[float]) -> None:
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
                (rows.step, values[_STEP]),
                (rows.epoch, values[_EPOCH]),
            ):
                column.append(value)
            rows.loss.append(_eval_loss(found))
            _add_metrics(rows, found)

    def _eval_rows(self, eval_set: str, found: dict[str, float]) -> _EvalRows | None:
        if "loss" not in found and eval_set == "" and "" not in self._evals and len(self._evals) == 1:
            eval_set = next(iter(self._evals))
        if eval_set not in self._evals and len(self._evals) >= MAX_EVAL_SETS:
            return None
        return self._evals.setdefault(eval_set, _EvalRows())

    def _take_bar(self, matrix: Column) -> None:
        """Steps of printed rows without a number, spread over the steps that the progress bar counted."""
        done, planned = self._bar
        if not planned or not np.isnan(matrix[:, _STEP]).all():
            return
        has_loss = np.flatnonzero(~np.isnan(matrix[:, _LOSS]))
        is_one_run = len(has_loss) > 0 and not run_starts(matrix[:, _STEP], matrix[:, _EPOCH], matrix[:, _LOSS])[1:]
        if not is_one_run or not len(has_loss) <= done <= planned:
            return
        matrix[has_loss, _STEP] = np.round(np.arange(1, len(has_loss) + 1) * done / len(has_loss))
        self.context.setdefault("max_steps", planned)
        self.notes.append("the log has no step numbers; its rows are spread over the steps of its progress bar")

    def _drop_one_step(self, matrix: Column) -> None:
        """A step that is the same in every row with a loss is the end of a progress bar, and no counter of the run, unless epochs count
        and validation has no bar of its own."""
        has_loss = ~np.isnan(matrix[:, _LOSS])
        steps, others = matrix[has_loss, _STEP], matrix[~has_loss, _STEP]
        if len(steps) < _FEW_ROWS or not (steps == steps[0]).all():
            return
        if np.isnan(matrix[:, _EPOCH]).all() or (others[np.isfinite(others)] != steps[0]).any():
            matrix[:, _STEP] = np.nan
            self.context.pop("max_steps", None)

    def _run_context(self, matrix: Column) -> RunContext:
        objective = self._objective(matrix)
        known = {key: value for key, value in self.context.items() if key in RunContext.__dataclass_fields__}
        epochs = known.get("num_epochs")
        known["num_epochs"] = float(epochs) if isinstance(epochs, (int, float)) and 0 < epochs < 1e6 else None
        for key in ("max_steps", "batch_size", "num_skipped_steps", "num_labels"):
            value = known.get(key)
            known[key] = int(value) if isinstance(value, (int, float)) and 0 < value < 1e12 else None
        if self._counts_on:
            known["max_steps"] = None
        return replace(RunContext(), **{**known, "objective": objective})  # type: ignore[arg-type]

    def _objective(self, matrix: Column) -> str:
        """What the columns with values say; a column that is empty in every row says nothing."""
        known = {
            name for name, slot in _SLOTS.items() if slot < matrix.shape[1] and not np.isnan(matrix[:, slot]).all()
        }
        if "reward" in known and "loss" not in known:
            return "reinforcement"
        tags = self.tags | {objective for name in known if (objective := objective_of(_TAG_NAMES.get(name, "")))}
        return next((tag for tag in ("reinforcement", "preference") if tag in tags), "supervised")

    def _all_notes(self) -> tuple[str, ...]:
        skipped = (f"{self.num_skipped} rows could not be read and were skipped",) if self.num_skipped else ()
        guessed = [plan for plan in self._plans.values() if plan.loss_rank == _GUESS_RANK]
        guess: tuple[str, ...] = ()
        if guessed and not any(plan.loss_rank < _GUESS_RANK for plan in self._plans.values()):
            key = next(key for key, slot in guessed[0].train if slot == _LOSS)
            guess = (f"guessed that the column `{key[:80]}` is the training loss",)
        return (*self.notes, *skipped, *guess)


def _as_columns(rows: list[Mapping[str, object]], plan: _Plan) -> Column | None:
    """What `RowTable.add` makes of each row, for rows of plain numbers; None when a value needs a closer look."""
    matrix = np.full((len(rows), _WIDTH), MISSING)
    for key, slot in plan.train:
        values = list(map(itemgetter(key), rows))
        if not set(map(type, values)) <= _PLAIN:
            return None
        try:
            column = np.array(values, dtype=np.float64)
        except (ValueError, OverflowError):
            return None
        matrix[:, slot] = np.where(np.abs(column) < MAX_MAGNITUDE, column, NOT_FINITE)
    steps = matrix[:, _STEP]
    steps[~((steps >= -1.0) & (steps <= MAX_STEP))] = MISSING
    matrix[:, _STEP_RANK], matrix[:, _LOSS_RANK] = plan.step_rank, plan.loss_rank
    return matrix


def _with_extra(matrix: Column, extra: array[float]) -> Column:
    """The matrix, and beside it the columns of preference and reinforcement learning when there are any."""
    if not extra:
        return matrix
    rows = np.frombuffer(extra, dtype=np.float64).reshape(-1, 1 + _EXTRA)
    beside = np.full((len(matrix), _EXTRA), MISSING)
    beside[rows[:, 0].astype(int)] = rows[:, 1:]
    return np.hstack([matrix, beside])


def _matrix(flat: array[float]) -> Column:
    return np.frombuffer(flat, dtype=np.float64).reshape(-1, _WIDTH) if flat else np.empty((0, _WIDTH))


def _choose_alias(matrix: Column, slot: int, rank_slot: int) -> Column:
    """Keep one name's values in a column: the best-ranked one that is not rare beside the most frequent."""
    ranks = matrix[:, rank_slot]
    if len(ranks) and ranks.min() == ranks.max():
        return matrix
    filled = ~np.isnan(matrix[:, slot]) & ~np.isnan(ranks)
    found, counts = np.unique(ranks[filled], return_counts=True)
    if len(found) > 1 and found[-1] == _GUESS_RANK:
        found, counts = found[:-1], counts[:-1]
    if len(found) > 0:
        chosen = found[counts >= 0.2 * counts.max()][0]
        matrix[filled & (ranks != chosen), slot] = np.nan
    return matrix


def _one_run(
    matrix: Column, evals: Mapping[str, _EvalRows], bound: tuple[int, int], counts_on: bool
) -> tuple[TrainSeries, tuple[EvalSeries, ...], tuple[str, ...]]:
    first, last = bound
    chosen = matrix[:, _STEP].copy() if evals else matrix[:0, _STEP]
    rows, notes = _number_steps(matrix[first:last])
    steps_in_order = np.full(len(matrix), np.nan)
    steps_in_order[first:last] = rows[:, _STEP]
    evaluations = tuple(
        series
        for name, each in evals.items()
        if len(series := _eval_series(name, each, bound, steps_in_order, chosen, has_notes=bool(notes) or counts_on))
    )
    train, num_merged = _train_series(rows)
    if num_merged > max(3, 0.02 * len(rows)) and len(train):
        notes = (*notes, "some steps were logged more than once; the last value of each was kept")
    return train, evaluations, notes


def _number_steps(rows: Column) -> tuple[Column, tuple[str, ...]]:
    """Give every row a step, in place: its own, or that of the row before, or (in logs without steps) its position."""
    rows[rows[:, _STEP] == NEW_RUN_MARK, _STEP] = np.nan
    known = ~np.isnan(rows[:, _STEP])
    has_loss = _is_told(rows)
    if known.any():
        position = np.maximum.accumulate(np.where(known, np.arange(len(rows)), 0))
        rows[:, _STEP] = np.where(np.isnan(rows[position, _STEP]), rows[known, _STEP][0], rows[position, _STEP])
        return rows, ()
    rows[:, _STEP] = np.cumsum(has_loss) if has_loss.any() else np.arange(1, len(rows) + 1)
    return rows, ("the log has no step numbers; its training rows are numbered instead",) if has_loss.any() else ()


def _train_series(rows: Column) -> tuple[TrainSeries, int]:
    if not len(rows):
        return TrainSeries(*[np.empty(0)] * len(TRAIN_COLUMNS)), 0
    if (np.diff(rows[:, _STEP]) < 0).any():
        rows = rows[np.argsort(rows[:, _STEP], kind="stable")]
    num_told = int(_is_told(rows).sum())
    rows = merge_equal_steps(rows, _STEP)
    for name in _CARRIED:
        rows[:, _SLOTS[name]] = _carried_forward(rows[:, _SLOTS[name]])
    is_told = _is_told(rows)
    rows = rows if is_told.all() else rows[is_told]
    silent = np.full(len(rows), MISSING)
    series = TrainSeries(
        **{
            name: np.ascontiguousarray(rows[:, slot]) if slot < rows.shape[1] else silent
            for name, slot in _SLOTS.items()
        }
    )
    return series, num_told - len(rows)


def _is_told(rows: Column) -> np.ndarray:
    """The rows with a loss; those with a reward in a log of rewards alone."""
    has_loss = ~np.isnan(rows[:, _LOSS])
    reward = _SLOTS["reward"]
    return ~np.isnan(rows[:, reward]) if reward < rows.shape[1] and not has_loss.any() else has_loss


def _carried_forward(column: Column) -> Column:
    known = ~np.isnan(column)
    if not known.any() or known.all():
        return column
    return column[np.maximum.accumulate(np.where(known, np.arange(len(column)), 0))]


def _eval_loss(found: dict[str, float]) -> float:
    if "loss" in found:
        return found["loss"]
    perplexity = found.get("perplexity", MISSING)
    return float(np.log(perplexity)) if perplexity > 0 else MISSING


def _add_metrics(rows: _EvalRows, found: dict[str, float]) -> None:
    position = len(rows.loss) - 1
    for name, value in found.items():
        if name != "loss" and (name in rows.metrics or len(rows.metrics) < MAX_METRICS):
            rows.metrics.setdefault(name, []).append((position, value))


def _eval_series(
    name: str, rows: _EvalRows, bound: tuple[int, int], steps_in_order: Column, chosen: Column, *, has_notes: bool
) -> EvalSeries:
    order = np.asarray(rows.order).astype(int)
    mine = (order >= bound[0]) & (order < bound[1])
    position = np.clip(order, 0, max(len(steps_in_order) - 1, 0))
    own = np.where(np.isnan(chosen[position]), np.nan, np.asarray(rows.step)) if len(chosen) else np.asarray(rows.step)
    step = np.where(np.isnan(own) | has_notes, steps_in_order[position], own) if len(steps_in_order) else own
    table = np.column_stack([step, np.asarray(rows.epoch), np.asarray(rows.loss), *_metric_columns(rows)])[mine]
    table = table[np.argsort(table[:, 0], kind="stable")]
    table = merge_equal_steps(table, 0)
    has_loss = ~np.isnan(table[:, 2])
    table = table[has_loss if has_loss.any() else ~np.isnan(table[:, 3:]).all(axis=1)]
    metrics = {key: table[:, 3 + index] for index, key in enumerate(rows.metrics)}
    return EvalSeries(name, table[:, 0], table[:, 1], table[:, 2], metrics)


def _metric_columns(rows: _EvalRows) -> list[Column]:
    columns = []
    for pairs in rows.metrics.values():
        column = np.full(len(rows.loss), np.nan)
        positions, values = zip(*pairs, strict=True)
        column[list(positions)] = values
        columns.append(column)
    return columns
