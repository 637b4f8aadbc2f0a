"""Where one run ends and the next begins in a stream of rows, and which row wins when a step is logged twice.

A counter of steps or epochs that falls back to its start and stays there is a new run (an epoch not where steps and losses go on, as
after a resume over streamed rows), and so is a learning rate that falls
back to nothing while the loss jumps back to where it began. A step that falls back while the epoch goes on counts inside epochs.
One that falls back a little is a resume or a second process writing to the same file, and its rows are merged.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from finestep.diagnosis.training_log import Column
from finestep.readers.limits import MAX_RUNS

MIN_ROWS_OF_A_RUN = 3
NEW_RUN_MARK = -2.0


def run_starts(step: Column, epoch: Column, loss: Column, rate: Column | None = None) -> list[int]:
    """Positions of the first rows of the runs; the first is always 0."""
    marks = [int(i) for i in np.flatnonzero(step == NEW_RUN_MARK)]
    clean = np.where(step == NEW_RUN_MARK, np.nan, step)
    falls: set[int] = set()
    for counter in (clean, epoch):
        rows = np.flatnonzero(np.isfinite(counter) & ~np.isnan(loss))
        found = _restarts(counter[rows])
        if counter is epoch:
            found = [i for i in found if not _is_resumed(clean[rows], loss[rows], i)]
        falls |= {int(rows[i]) for i in found}
    if rate is not None:
        rows = np.flatnonzero(np.isfinite(loss) & np.isfinite(rate))
        falls |= {int(rows[i]) for i in _begun_again(loss[rows], rate[rows])}
    return sorted({0, *marks, *_apart(sorted(falls))})


def continued(step: Column, epoch: Column, loss: Column) -> Column:
    """Steps counted on from epoch to epoch, for logs that begin to count again in each of them.

    Where no epoch is logged, a count that comes to the same end each time is an epoch if the loss goes on from where it was.
    """
    has_epochs = bool(np.isfinite(epoch).any())
    rows = np.flatnonzero(
        np.isfinite(step) & (np.isfinite(epoch) if has_epochs else np.isfinite(loss)) & (step != NEW_RUN_MARK)
    )
    if len(rows) < 2 * MIN_ROWS_OF_A_RUN:
        return step
    own, era = step[rows], epoch[rows]
    falls = (np.diff(own) < 0) | (has_epochs & (np.diff(own) == 0) & (np.diff(era) > 0))
    if not falls.any():
        return step
    if has_epochs and (not (np.diff(era)[falls] > 0).all() or (era != np.floor(era)).any()):
        return step
    if not has_epochs and not _goes_on(own, loss[rows], (np.flatnonzero(falls) + 1).tolist()):
        return step
    lengths = own[:-1][falls]
    if lengths.min() < 0.9 * lengths.max():
        return step
    spacing = np.median(np.diff(own)[~falls]) if (~falls).any() else own[0]
    jumps = np.concatenate([[0.0], np.where(falls, own[:-1] + spacing - own[1:], 0.0)])
    result = step.copy()
    result[rows] = own + np.cumsum(jumps)
    return result


def leftovers(step: Column, epoch: Column, loss: Column) -> npt.NDArray[np.bool_]:
    """Rows that a progress bar shows again at the start of an epoch: the count of the epoch before at its end, with the old loss, until
    the bar begins anew."""
    shown = np.zeros(len(step), dtype=bool)
    rows = np.flatnonzero(np.isfinite(step) & np.isfinite(epoch) & np.isfinite(loss))
    own, era = step[rows], epoch[rows]
    if len(rows) < 2 * MIN_ROWS_OF_A_RUN or (era != np.floor(era)).any() or (np.diff(era) < 0).any():
        return shown
    falls = np.flatnonzero((np.diff(own) < 0) & (np.diff(era) == 0) & (own[:-1] >= 0.9 * own.max())) + 1
    for fall in falls.tolist():
        shown[rows[int(np.searchsorted(era, era[fall])) : fall]] = True
    return shown


def _goes_on(step: Column, loss: Column, starts: list[int]) -> bool:
    """True when counts begin where the first one did, and the loss after each is near that before it, not back at its beginning."""
    if len(starts) < 2 or (step[starts] > step[0] + 2 * np.median(np.abs(np.diff(step)))).any():
        return False
    first = float(np.median(loss[:MIN_ROWS_OF_A_RUN]))
    for start in starts:
        before = float(np.median(loss[max(0, start - MIN_ROWS_OF_A_RUN) : start]))
        after = float(np.median(loss[start : start + MIN_ROWS_OF_A_RUN]))
        if after - before > max(0.2 * (first - before), 0.02 * abs(before)):
            return False
    return True


def _is_resumed(step: Column, loss: Column, row: int) -> bool:
    """True where steps count on over a row, and the loss stays where it had come to: streamed rows begin anew after a resume, and with
    them the count of epochs."""
    if not step[row] > step[row - 1]:
        return False
    first, before, after = (
        float(np.median(part))
        for part in (loss[:MIN_ROWS_OF_A_RUN], loss[max(0, row - 5) : row], loss[row : row + MIN_ROWS_OF_A_RUN])
    )
    are_known = math.isfinite(first) and math.isfinite(before) and math.isfinite(after)
    return are_known and after - before <= max(0.2 * (first - before), 0.05 * abs(before))


def _begun_again(loss: Column, rate: Column) -> list[int]:
    """Rows at which the rate falls back to a tenth of its peak in one step and warms up again, and the loss is back at its start."""
    peak = np.maximum.accumulate(rate)
    candidates = (
        np.flatnonzero((rate[1:] < 0.1 * peak[1:]) & (rate[1:] < 0.7 * rate[:-1]) | (rate[:-1] < 0.02 * peak[:-1])) + 1
    )
    starts, begin = [], 0
    for index in candidates.tolist():
        after, before = loss[index : index + MIN_ROWS_OF_A_RUN], loss[max(begin, index - 5) : index]
        warms_up = bool((rate[index : index + 2 * MIN_ROWS_OF_A_RUN] > 1.2 * rate[index]).any())
        if index - begin < MIN_ROWS_OF_A_RUN or len(after) < MIN_ROWS_OF_A_RUN or not warms_up:
            continue
        first, level, now = (
            float(np.median(part)) for part in (loss[begin : begin + MIN_ROWS_OF_A_RUN], before, after)
        )
        if now > 1.3 * level > 0 and now - level > 0.5 * (first - level):
            begin = index + int(np.argmax(np.diff(loss[index - 1 : index + MIN_ROWS_OF_A_RUN])))
            starts.append(begin)
        if len(starts) >= MAX_RUNS:
            break
    return starts


def _apart(falls: list[int]) -> list[int]:
    """The starts without those that another one said a few rows before."""
    kept: list[int] = []
    for start in falls:
        if not kept or start - kept[-1] >= MIN_ROWS_OF_A_RUN:
            kept.append(start)
    return kept


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
