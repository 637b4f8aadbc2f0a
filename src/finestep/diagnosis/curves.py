"""The curves of a log in numbers: levels of the training and the validation loss, where they lie, and how sure they are."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from finestep.diagnosis.robust import Trend, noise_sd, smoothed, trend
from finestep.diagnosis.training_log import Column, EvalSeries

MAX_SMOOTHING_ROWS = 4096


@dataclass(frozen=True)
class Tail:
    """How a curve ends: a line through its last rows."""

    drop: float = 0.0
    """Relative drop of the line over the last fifth of the rows; positive = still falling."""
    t: float = 0.0
    """How many standard errors that is."""


@dataclass(frozen=True)
class LossCurve:
    """The training loss: levels (nats), where they lie, and how sure they are. Rows that are not finite are left
    out."""

    num_rows: int
    first: float
    start: float
    best: float
    end: float
    best_row: int
    noise: float
    """Relative standard deviation of one row around its neighbours."""
    level_error: float
    """Relative standard error of `end`."""
    contrast_error: float
    """Relative standard error of `end` against `best`, widened by half for correlated and heavy-tailed noise."""
    median: float
    spread: float
    """Relative distance between the 5th and the 95th percentile of the rows."""
    tail: Tail
    whole: Trend
    smooth: Column
    rows: npt.NDArray[np.intp]
    """Indices of the finite rows in the log."""


@dataclass(frozen=True)
class EvalCurve:
    """The main validation loss: finite evaluations only."""

    num_rows: int
    first: float
    best: float
    last: float
    best_row: int
    best_step: float
    noise: float
    """Relative standard deviation of one evaluation around the line through its neighbours."""
    rise: float
    """last / best - 1."""
    tail_drop: float
    """Relative drop over the last fifth of the steps, between evaluations by a straight line; negative = rise."""
    num_after_best: int
    rising_run: int
    """Evaluations at the end that each lie above the one before."""


def loss_curve(loss: Column) -> LossCurve | None:
    rows = np.flatnonzero(np.isfinite(loss))
    if not len(rows):
        return None
    x = loss[rows]
    # A fifteenth of the run hides the noise of batches and keeps a jump in its place.
    width = min(max(1, len(x) // 15), MAX_SMOOTHING_ROWS)
    smooth = smoothed(x, width)
    # The last eighth: few rows would be noise, more would still hold the descent.
    end_rows = max(1, min(len(x) // 8, MAX_SMOOTHING_ROWS))
    scale = max(abs(float(np.median(x))), 1e-12)
    best_row = int(np.argmin(smooth))
    start, end, best = (
        float(np.median(x[: max(1, min(3, len(x) // 8))])),
        float(np.median(x[-end_rows:])),
        float(smooth[best_row]),
    )
    # From differences of neighbours, so that the descent itself does not count as noise.
    noise = noise_sd(x) / scale
    return LossCurve(
        num_rows=len(x),
        first=float(x[0]),
        start=start,
        best=min(best, end),
        end=end,
        best_row=best_row,
        noise=noise,
        # 1.2533 is the standard error of a median over that of a mean, for Gaussian noise.
        level_error=1.2533 * noise_sd(x[len(x) // 2 :]) / math.sqrt(end_rows) / max(abs(end), 1e-12),
        contrast_error=1.5 * 1.2533 * noise * math.sqrt(1 / end_rows + 1 / width),
        median=float(np.median(x)),
        spread=float(np.percentile(x, 95) - np.percentile(x, 5)) / scale,
        tail=_tail(x, end),
        whole=trend(x),
        smooth=smooth,
        rows=rows,
    )


def _tail(x: Column, end: float) -> Tail:
    """Drop over the last fifth, from a line through the last 40 %."""
    # A line through two fifths says more of the last fifth than its few rows alone.
    tail = x[-max(4, int(0.4 * len(x))) :]
    if len(tail) < 4:
        return Tail()
    line = trend(tail)
    return Tail(drop=-0.5 * line.change / max(abs(end), 1e-12), t=-line.t)


def eval_curve(series: EvalSeries) -> EvalCurve | None:
    finite = np.isfinite(series.loss)
    x, steps = series.loss[finite], series.step[finite]
    if not len(x):
        return None
    best_row = int(np.argmin(x))
    best = float(x[best_row])
    rising = len(x) - 1
    while rising > 0 and x[rising] > x[rising - 1]:
        rising -= 1
    return EvalCurve(
        num_rows=len(x),
        first=float(x[0]),
        best=best,
        last=float(x[-1]),
        best_row=best_row,
        best_step=float(steps[best_row]),
        noise=_eval_noise(x),
        rise=float(x[-1]) / best - 1 if best > 0 else 0.0,
        tail_drop=_eval_tail_drop(steps, x),
        num_after_best=len(x) - 1 - best_row,
        rising_run=len(x) - 1 - rising,
    )


def _eval_tail_drop(steps: Column, x: Column) -> float:
    # Evaluations may lie far apart, so the value at four fifths of the steps is read off the line between two of them.
    before = float(np.interp(0.8 * steps[-1], steps, x))
    return 1 - float(x[-1]) / before if len(x) > 1 and before > 0 else 0.0


def _eval_noise(x: Column) -> float:
    """From second differences, which a smooth bend hardly touches; half of the evaluations decide."""
    # Three second differences are the least of which a median means something.
    if len(x) < 5:
        return 0.0
    second = x[2:] - 2 * x[1:-1] + x[:-2]
    return float(1.4826 * np.median(np.abs(second)) / math.sqrt(6)) / max(abs(float(np.median(x))), 1e-12)
