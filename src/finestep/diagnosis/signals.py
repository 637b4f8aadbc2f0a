"""Signals: the numbers read off one training log, from which the verdicts are made; it judges nothing.

Levels are medians over windows, `best` is the lowest smoothed loss, `first` the first row; ratios, not absolute losses,
because losses are scaled, summed or negative in real logs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from finestep.diagnosis.metrics import MetricCurve, metric_curve
from finestep.diagnosis.robust import Trend, noise_sd, smoothed, trend
from finestep.diagnosis.training_log import Column, EvalSeries, TrainingLog

MAX_SMOOTHING_ROWS = 4096
SUMMED_FROM, SUMMED_SPREAD = 2.0, 0.2
"""A training loss is a sum over accumulation steps when it is this many times the validation loss, always nearly the same."""


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
    tail_drop: float
    """Relative drop of the fitted line over the last fifth of the rows; positive = still falling."""
    tail_t: float
    late_drop: float
    """Share of the whole drop that happened in the second half of the rows."""
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


@dataclass(frozen=True)
class Schedule:
    """The learning rate as logged."""

    peak: float
    last: float
    warmup_share: float
    """Share of the planned steps before the peak; 0 when unknown."""
    is_constant: bool


@dataclass(frozen=True)
class Progress:
    """How far the run came; NaN = not known."""

    last_step: float
    planned_steps: float
    share_done: float
    epochs: float


@dataclass(frozen=True)
class GradientNorm:
    """The gradient norm before clipping."""

    num_known: int
    num_not_finite: int
    worst_in_20: int
    broken_tail: int
    median: float
    last_to_first: float
    largest_ratio: float
    """Largest value over the median."""


@dataclass(frozen=True)
class Signals:
    """All signals of one log; a part is None when the log does not hold it."""

    log: TrainingLog
    loss: LossCurve | None
    evaluation: EvalCurve | None
    schedule: Schedule | None
    progress: Progress
    gradient: GradientNorm | None
    metric: MetricCurve | None
    loss_factor: float
    """Times that the training loss is the validation loss at the same steps, where it is a sum; otherwise 1."""
    num_rows: int
    num_evaluations: int


def signals_of(log: TrainingLog) -> Signals:
    """Read every signal off a log."""
    schedule, progress = _schedule(log), _progress(log)
    evaluation = log.evaluation
    return Signals(
        log=log,
        loss=_loss_curve(log.train.loss),
        evaluation=_eval_curve(evaluation) if evaluation is not None else None,
        schedule=schedule,
        progress=progress,
        gradient=_gradient(log.train.grad_norm),
        metric=metric_curve(evaluation) or next(filter(None, map(metric_curve, log.evaluations)), None),
        loss_factor=_loss_factor(log),
        num_rows=len(log.train),
        num_evaluations=len(evaluation) if evaluation is not None else 0,
    )


def relative_rate(log: TrainingLog, row: int) -> float:
    """Learning rate at a row over the peak; NaN when rates are not logged."""
    rates = log.train.learning_rate
    known = rates[np.isfinite(rates)]
    if not len(known) or known.max() <= 0 or not 0 <= row < len(rates):
        return math.nan
    return float(rates[row] / known.max())


def _loss_factor(log: TrainingLog) -> float:
    """Training over validation loss in the last third of the run, when that is one number above 2: the training loss is summed."""
    evaluation = log.evaluation
    if evaluation is None or len(log.train) < 3 or log.context.objective != "supervised":
        return 1.0
    train = log.train
    known = np.isfinite(train.loss) & (train.loss > 0)
    late = (
        np.isfinite(evaluation.loss)
        & (evaluation.loss > 0)
        & (np.arange(len(evaluation)) >= min(2 * len(evaluation) // 3, len(evaluation) - 2))
    )
    if known.sum() < 3 or late.sum() < 2:
        return 1.0
    ratios = np.interp(evaluation.step[late], train.step[known], train.loss[known]) / evaluation.loss[late]
    middle = float(np.median(ratios))
    return middle if middle > SUMMED_FROM and np.abs(np.log(ratios / middle)).max() < SUMMED_SPREAD else 1.0


def _loss_curve(loss: Column) -> LossCurve | None:
    rows = np.flatnonzero(np.isfinite(loss))
    if not len(rows):
        return None
    x = loss[rows]
    width = min(max(1, len(x) // 15), MAX_SMOOTHING_ROWS)
    smooth = smoothed(x, width)
    end_rows = max(1, min(len(x) // 8, MAX_SMOOTHING_ROWS))
    scale = max(abs(float(np.median(x))), 1e-12)
    best_row = int(np.argmin(smooth))
    start, end, best = (
        float(np.median(x[: max(1, min(3, len(x) // 8))])),
        float(np.median(x[-end_rows:])),
        float(smooth[best_row]),
    )
    noise = noise_sd(x) / scale
    return LossCurve(
        num_rows=len(x),
        first=float(x[0]),
        start=start,
        best=min(best, end),
        end=end,
        best_row=best_row,
        noise=noise,
        level_error=1.2533 * noise_sd(x[len(x) // 2 :]) / math.sqrt(end_rows) / max(abs(end), 1e-12),
        contrast_error=1.5 * 1.2533 * noise * math.sqrt(1 / end_rows + 1 / width),
        median=float(np.median(x)),
        spread=float(np.percentile(x, 95) - np.percentile(x, 5)) / scale,
        **_tail(x, end),
        late_drop=_late_drop(smooth, start, end),
        whole=trend(x),
        smooth=smooth,
        rows=rows,
    )


def _tail(x: Column, end: float) -> dict[str, float]:
    """Drop over the last fifth, from a line through the last 40 %."""
    tail = x[-max(4, int(0.4 * len(x))) :]
    if len(tail) < 4:
        return {"tail_drop": 0.0, "tail_t": 0.0}
    line = trend(tail)
    return {"tail_drop": -0.5 * line.change / max(abs(end), 1e-12), "tail_t": -line.t}


def _late_drop(smooth: Column, start: float, end: float) -> float:
    middle = float(smooth[len(smooth) // 2])
    return (middle - end) / (start - end) if start > end else 0.0


def _eval_curve(series: EvalSeries) -> EvalCurve | None:
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
    before = float(np.interp(0.8 * steps[-1], steps, x))
    return 1 - float(x[-1]) / before if len(x) > 1 and before > 0 else 0.0


def _eval_noise(x: Column) -> float:
    """From second differences, which a smooth bend hardly touches; half of the evaluations decide."""
    if len(x) < 5:
        return 0.0
    second = x[2:] - 2 * x[1:-1] + x[:-2]
    return float(1.4826 * np.median(np.abs(second)) / math.sqrt(6)) / max(abs(float(np.median(x))), 1e-12)


def _schedule(log: TrainingLog) -> Schedule | None:
    rates = log.train.learning_rate
    known = np.isfinite(rates)
    if not known.any() or rates[known].max() <= 0:
        peak = log.context.peak_learning_rate
        return Schedule(peak, math.nan, 0.0, False) if peak else None
    values, steps = rates[known], log.train.step[known]
    peak = float(values.max())
    planned = log.context.max_steps or float(steps[-1])
    warmup = float(steps[int(np.argmax(values >= 0.995 * peak))]) / max(planned, 1.0)
    late = values[-max(1, len(values) // 10) :]
    rises = values[0] < 0.9 * peak
    return Schedule(
        peak, float(values[-1]), warmup if rises else 0.0, bool(len(values) > 3 and late.min() > 0.9 * peak)
    )


def _progress(log: TrainingLog) -> Progress:
    evaluation = log.evaluation
    steps = [series.step[-1] for series in (log.train, evaluation) if series is not None and len(series)]
    last = float(max(steps, default=math.nan))
    if log.context.last_step is not None and len(steps):
        last = max(last, log.context.last_step)
    planned = float(log.context.max_steps or math.nan)
    epochs = [
        float(np.nanmax(series.epoch))
        for series in (log.train, evaluation)
        if series is not None and np.isfinite(series.epoch).any()
    ]
    # A run that logs each 100 steps has taken up to 99 more than its last row shows.
    spacing = log.context.logging_steps if log.context.logging_steps and log.context.logging_steps >= 1 else 0.0
    done = min((last + spacing) / planned, 1.0) if planned > 0 else math.nan
    if done != done and epochs and log.context.num_epochs:
        done = min(max(epochs) / log.context.num_epochs, 1.0)
    return Progress(last, planned, done, max(epochs, default=math.nan))


def _gradient(norms: Column) -> GradientNorm | None:
    known = ~np.isnan(norms)
    if not known.any():
        return None
    broken = np.isinf(norms[known])
    finite = norms[known][~broken]
    counts = np.convolve(broken, np.ones(min(20, len(broken))), mode="valid")
    whole = np.flatnonzero(~broken)
    median = float(np.median(finite)) if len(finite) else math.nan
    eighth = max(1, len(finite) // 8)
    return GradientNorm(
        num_known=int(known.sum()),
        num_not_finite=int(broken.sum()),
        worst_in_20=round(float(counts.max())),
        broken_tail=len(broken) - 1 - int(whole[-1]) if len(whole) else len(broken),
        median=median,
        last_to_first=float(np.median(finite[-eighth:]) / max(np.median(finite[:eighth]), 1e-12))
        if len(finite)
        else math.nan,
        largest_ratio=float(finite.max() / max(median, 1e-12)) if len(finite) else math.nan,
    )
