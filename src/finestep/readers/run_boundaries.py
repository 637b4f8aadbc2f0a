"""Where one run ends and the next begins in a stream of rows, and which row wins when a step is logged twice.

A step counter that falls back to its start and stays there is a new run; one that falls back a little is a resume or a
second process writing to the same file, and its rows are merged.
"""

from __future__ import annotations

import numpy as np

from finestep.diagnosis.training_log import Column
from finestep.readers.limits import MAX_RUNS

MIN_ROWS_OF_A_RUN = 3
NEW_RUN_MARK = -2.0


def run_starts(step: Column, epoch: Column, loss: Column) -> list[int]:
    """Positions of the first rows of the runs; the first is always 0."""
    marks = [int(i) for i in np.flatnonzero(step == NEW_RUN_MARK)]
    clean = np.where(step == NEW_RUN_MARK, np.nan, step)
    counter = clean if (~np.isnan(clean)).any() else epoch
    rows = np.flatnonzero(~np.isnan(counter) & ~np.isnan(loss))
    falls = [int(rows[i]) for i in _restarts(counter[rows])]
    return sorted({0, *marks, *falls})


def merge_equal_steps(rows: Column, step_slot: int) -> Column:
    """One row for each step (rows sorted by step): in every column the last value that is not missing."""
    if not len(rows):
        return rows
    is_last = np.append(rows[1:, step_slot] != rows[:-1, step_slot], True)
    if is_last.all():
        return rows
    group_start = np.flatnonzero(np.insert(is_last[:-1], 0, True))
    group_of_row = np.cumsum(np.insert(is_last[:-1], 0, True)) - 1
    index = np.arange(len(rows))[:, None]
    last_known = np.maximum.accumulate(np.where(np.isnan(rows), -1, index), axis=0)[is_last]
    inside = last_known >= group_start[group_of_row[is_last]][:, None]
    merged = np.take_along_axis(rows, np.maximum(last_known, 0), axis=0)
    return np.where(inside, merged, np.nan)


def _restarts(counter: Column) -> list[int]:
    """Indices at which the counter falls back to where it began and goes on rising from there."""
    if len(counter) < 2 * MIN_ROWS_OF_A_RUN:
        return []
    spacing = float(np.median(np.abs(np.diff(counter))))
    starts: list[int] = []
    begin, highest = 0, np.maximum.accumulate(counter)
    for index in (np.flatnonzero(np.diff(counter) < 0) + 1).tolist():
        if _is_restart(counter[index : index + MIN_ROWS_OF_A_RUN], counter[begin], highest[index - 1], spacing):
            if index - begin >= MIN_ROWS_OF_A_RUN:
                starts.append(index)
            begin = index
            highest[index:] = np.maximum.accumulate(counter[index:])
        if len(starts) >= MAX_RUNS:
            break
    return starts


def _is_restart(after: Column, first: float, highest: float, spacing: float) -> bool:
    span = highest - first
    is_at_start = after[0] <= first + max(2 * spacing, 0.02 * span)
    goes_on = len(after) == MIN_ROWS_OF_A_RUN and bool((np.diff(after) >= 0).all()) and after[-1] < highest
    return bool(is_at_start and goes_on and span > 3 * spacing)
