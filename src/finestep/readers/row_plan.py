"""What to do with rows of one set of names: which column each value goes to; decided once for each set."""

from __future__ import annotations

from collections.abc import Mapping
from operator import itemgetter
from typing import NamedTuple

import numpy as np

from finestep.diagnosis.training_log import Column
from finestep.readers.column_names import Role, looks_like_a_loss, objective_of, role_of
from finestep.readers.limits import MAX_MAGNITUDE, MAX_NAMES, MAX_STEP, MISSING, NOT_FINITE
from finestep.readers.row_columns import EPOCH, GUESS_RANK, LOSS, LOSS_RANK, NUM_COMMON, SLOTS, STEP, STEP_RANK, WIDTH

_SPLIT_NAMES = frozenset({"phase", "split", "mode", "stage", "subset", "partition", "set"})
_VALIDATION = {**dict.fromkeys(("val", "valid", "validation", "eval", "evaluation", "dev"), "eval"), "test": "test"}
"""Words of such a column, and how the names of measured values begin that are of that set."""
_PLAIN = frozenset({float, int, str})
_NO_ROW_ALONE = frozenset({"step", "epoch", "elapsed_s", "num_tokens", "accuracy"})
"""Columns that say nothing of a run unless another one stands beside them."""


class Plan(NamedTuple):
    """Where the values of rows with one set of keys go."""

    train: tuple[tuple[str, int], ...]
    extra: tuple[tuple[str, int], ...]
    evals: tuple[tuple[str, str, str], ...]
    context: tuple[tuple[str, str], ...]
    step_rank: float
    loss_rank: float
    is_used: bool
    split: str | None = None
    """The column that says for each row whether it is of training or of validation."""


def of_validation(row: Mapping[str, object], plan: Plan) -> dict[str, object] | None:
    """The row with the names of validation, where one of its columns says that it is of that; otherwise None.

    >>> row = {"phase": "val", "step": 5, "loss": 2.0}
    >>> of_validation(row, RowPlans().plan_of(tuple(row)))
    {'step': 5, 'eval_loss': 2.0}
    """
    value = row[plan.split] if plan.split is not None else None
    prefix = _VALIDATION.get(value.strip().lower()) if isinstance(value, str) else None
    if prefix is None:
        return None
    counted = {key for key, slot in plan.train if slot in (STEP, EPOCH)}
    return {
        key if key in counted else f"{prefix}_{key.rsplit('/', 1)[-1]}": value
        for key, value in row.items()
        if key != plan.split
    }


class RowPlans:
    """The plans of one file, and what the names of its columns say about it."""

    def __init__(self) -> None:
        self.tags: set[str] = set()
        self._roles: dict[str, Role | None] = {}
        self._plans: dict[tuple[str, ...], Plan] = {}

    @property
    def guessed_loss(self) -> str | None:
        """The column that had to be guessed to be the training loss, where no name said it."""
        plans = self._plans.values()
        guessed = [plan for plan in plans if plan.loss_rank == GUESS_RANK]
        if not guessed or any(plan.loss_rank < GUESS_RANK for plan in plans):
            return None
        return next(key for key, slot in guessed[0].train if slot == LOSS)

    def plan_of(self, keys: tuple[str, ...]) -> Plan:
        """The plan of rows with these names, made once."""
        plan = self._plans.get(keys)
        if plan is not None:
            return plan
        plan = self._make_plan(keys)
        if len(self._plans) < MAX_NAMES:
            self._plans[keys] = plan
        return plan

    def _make_plan(self, keys: tuple[str, ...]) -> Plan:
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
        if "loss" not in best and not is_summary:
            # Beside evaluations only a name that says that it is of training.
            best.update(self._guess_loss(keys, must_say_train=bool(evals)))
        train = tuple((key, SLOTS[slot]) for slot, (_, key) in best.items() if SLOTS[slot] < NUM_COMMON)
        extra = tuple((key, SLOTS[slot] - WIDTH) for slot, (_, key) in best.items() if SLOTS[slot] >= WIDTH)
        used = best.keys() - _NO_ROW_ALONE
        return Plan(
            train=train,
            extra=extra,
            evals=tuple(evals),
            context=tuple(context),
            step_rank=float(best["step"][0]) if "step" in best else MISSING,
            loss_rank=float(best["loss"][0]) if "loss" in best else MISSING,
            is_used=bool(used or evals),
            split=next((key for key in keys[:MAX_NAMES] if str(key).lower() in _SPLIT_NAMES), None) if best else None,
        )

    def _guess_loss(self, keys: tuple[str, ...], *, must_say_train: bool) -> dict[str, tuple[int, str]]:
        named = (key for key in keys if isinstance(key, str) and looks_like_a_loss(key))
        guesses = [key for key in named if not must_say_train or key.lower().startswith("train")]
        return {"loss": (GUESS_RANK, guesses[0])} if guesses else {}

    def _role(self, key: str) -> Role | None:
        if not isinstance(key, str) or len(key) > 200:
            return None
        if key not in self._roles:
            if len(self._roles) >= MAX_NAMES:
                return None
            self._roles[key] = role_of(key)
        return self._roles[key]


def as_columns(rows: list[Mapping[str, object]], plan: Plan) -> Column | None:
    """What `RowTable.add` makes of each row, for rows of plain numbers; None when a value needs a closer look."""
    columns: dict[str, Column] = {}
    for key, _ in plan.train:
        values = list(map(itemgetter(key), rows))
        if not set(map(type, values)) <= _PLAIN:
            return None
        try:
            columns[key] = np.array(values, dtype=np.float64)
        except (ValueError, OverflowError):
            return None
    return in_places(columns, plan, len(rows))


def in_places(columns: Mapping[str, Column], plan: Plan, num_rows: int) -> Column:
    """The rows of a table, from columns of numbers by name."""
    matrix = np.full((num_rows, WIDTH), MISSING)
    for key, slot in plan.train:
        matrix[:, slot] = np.where(np.abs(columns[key]) < MAX_MAGNITUDE, columns[key], NOT_FINITE)
    steps = matrix[:, STEP]
    steps[~((steps >= -1.0) & (steps <= MAX_STEP))] = MISSING
    matrix[:, STEP_RANK], matrix[:, LOSS_RANK] = plan.step_rank, plan.loss_rank
    return matrix
