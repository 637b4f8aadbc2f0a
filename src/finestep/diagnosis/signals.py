"""Signals: the numbers read off one training log, from which the verdicts are made; it judges nothing.

Levels are medians over windows, `best` is the lowest smoothed loss, `first` the first row; ratios, not absolute losses,
because losses are scaled, summed or negative in real logs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from finestep.diagnosis.curves import EvalCurve, LossCurve, eval_curve, loss_curve
from finestep.diagnosis.metrics import MetricCurve, metric_curve
from finestep.diagnosis.training_log import Column, TrainingLog

SUMMED_FROM, SUMMED_SPREAD = 2.0, 0.2
"""A training loss is a sum over accumulation steps when it is this many times the validation loss, always nearly the same."""


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
        loss=loss_curve(log.train.loss),
        evaluation=eval_curve(evaluation) if evaluation is not None else None,
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
    # Only the last third: early in a run the two losses differ for other reasons than a sum.
    late = (
        np.isfinite(evaluation.loss)
        & (evaluation.loss > 0)
        & (np.arange(len(evaluation)) >= min(2 * len(evaluation) // 3, len(evaluation) - 2))
    )
    # One ratio may be chance; a sum shows the same ratio each time.
    if known.sum() < 3 or late.sum() < 2:
        return 1.0
    ratios = np.interp(evaluation.step[late], train.step[known], train.loss[known]) / evaluation.loss[late]
    middle = float(np.median(ratios))
    return middle if middle > SUMMED_FROM and np.abs(np.log(ratios / middle)).max() < SUMMED_SPREAD else 1.0


def _schedule(log: TrainingLog) -> Schedule | None:
    rates = log.train.learning_rate
    known = np.isfinite(rates)
    if not known.any() or rates[known].max() <= 0:
        peak = log.context.settings.peak_learning_rate
        return Schedule(peak, math.nan, 0.0, False) if peak else None
    values, steps = rates[known], log.train.step[known]
    peak = float(values.max())
    planned = log.context.settings.max_steps or float(steps[-1])
    warmup = float(steps[int(np.argmax(values >= 0.995 * peak))]) / max(planned, 1.0)
    # A constant rate still has nine tenths of its peak in the last tenth of the rows.
    late = values[-max(1, len(values) // 10) :]
    # The first row of a decay lies a little below the peak and is no warmup.
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
    settings = log.context.settings
    planned = float(settings.max_steps or math.nan)
    epochs = [
        float(np.nanmax(series.epoch))
        for series in (log.train, evaluation)
        if series is not None and np.isfinite(series.epoch).any()
    ]
    # A run that logs each 100 steps has taken up to 99 more than its last row shows.
    spacing = settings.logging_steps if settings.logging_steps and settings.logging_steps >= 1 else 0.0
    done = min((last + spacing) / planned, 1.0) if planned > 0 else math.nan
    if done != done and epochs and settings.num_epochs:
        done = min(max(epochs) / settings.num_epochs, 1.0)
    return Progress(last, planned, done, max(epochs, default=math.nan))


def _gradient(norms: Column) -> GradientNorm | None:
    known = ~np.isnan(norms)
    if not known.any():
        return None
    broken = np.isinf(norms[known])
    finite = norms[known][~broken]
    # The worst stretch and not the whole share, because a loss scaler fails now and then in any run.
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


def or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None
