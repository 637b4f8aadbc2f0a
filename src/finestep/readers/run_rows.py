"""The rows of one run to its training series and its evaluations: every row gets a step, and equal steps become one."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from finestep.diagnosis.training_log import TRAIN_COLUMNS, Column, EvalSeries, TrainSeries
from finestep.flat import from_flat
from finestep.readers.eval_rows import EvalRows, eval_series
from finestep.readers.limits import MISSING
from finestep.readers.row_columns import EPOCH, SLOTS, STEP, is_told
from finestep.readers.run_boundaries import NEW_RUN_MARK, merge_equal_steps

_CARRIED = ("learning_rate", "epoch")


def run_series(
    matrix: Column, evals: Mapping[str, EvalRows], bound: tuple[int, int], counts_on: bool
) -> tuple[TrainSeries, tuple[EvalSeries, ...], tuple[str, ...]]:
    """Training rows, evaluations and notes of the run between two rows of the table."""
    first, last = bound
    chosen = matrix[:, STEP].copy() if evals else matrix[:0, STEP]
    rows, notes = _number_steps(matrix[first:last])
    steps_in_order = np.full(len(matrix), np.nan)
    steps_in_order[first:last] = rows[:, STEP]
    evaluations = tuple(
        series
        for name, each in evals.items()
        if len(series := eval_series(name, each, bound, steps_in_order, chosen, has_notes=bool(notes) or counts_on))
    )
    train, num_merged = train_series(rows)
    if num_merged > max(3, 0.02 * len(rows)) and len(train):
        notes = (*notes, "some steps were logged more than once; the last value of each was kept")
    return train, evaluations, notes


def _number_steps(rows: Column) -> tuple[Column, tuple[str, ...]]:
    """Give every row a step, in place: its own, or that of the row before, or (in logs without steps) its position."""
    rows[rows[:, STEP] == NEW_RUN_MARK, STEP] = np.nan
    known = ~np.isnan(rows[:, STEP])
    has_loss = is_told(rows)
    if known.any():
        position = np.maximum.accumulate(np.where(known, np.arange(len(rows)), 0))
        rows[:, STEP] = np.where(np.isnan(rows[position, STEP]), rows[known, STEP][0], rows[position, STEP])
        return rows, ()
    if epochs_tell_more(rows[:, EPOCH], int(has_loss.sum())):
        rows[:, STEP] = rows[:, EPOCH]
        return rows, ("the log has no step numbers; its rows are numbered by their epochs",)
    rows[:, STEP] = np.cumsum(has_loss) if has_loss.any() else np.arange(1, len(rows) + 1)
    return rows, ("the log has no step numbers; its training rows are numbered instead",) if has_loss.any() else ()


def epochs_tell_more(epoch: Column, num_told: int) -> bool:
    """True where evaluations by epoch are many and training rows few, so that epochs order the evaluations and row numbers do not."""
    return bool(len(epoch) > 1 and np.isfinite(epoch).all() and len(np.unique(epoch)) > 2 * max(num_told, 1))


def train_series(rows: Column) -> tuple[TrainSeries, int]:
    if not len(rows):
        return from_flat(TrainSeries, dict.fromkeys(TRAIN_COLUMNS, np.empty(0))), 0
    if (np.diff(rows[:, STEP]) < 0).any():
        rows = rows[np.argsort(rows[:, STEP], kind="stable")]
    num_told = int(is_told(rows).sum())
    rows = merge_equal_steps(rows, STEP)
    for name in _CARRIED:
        rows[:, SLOTS[name]] = _carried_forward(rows[:, SLOTS[name]])
    told = is_told(rows)
    rows = rows if told.all() else rows[told]
    silent = np.full(len(rows), MISSING)
    columns = {
        name: np.ascontiguousarray(rows[:, slot]) if slot < rows.shape[1] else silent for name, slot in SLOTS.items()
    }
    return from_flat(TrainSeries, columns), num_told - len(rows)


def _carried_forward(column: Column) -> Column:
    known = ~np.isnan(column)
    if not known.any() or known.all():
        return column
    return column[np.maximum.accumulate(np.where(known, np.arange(len(column)), 0))]
