"""Did it end too early? A loss that was still on its way down at the end, or when the run was stopped."""

from __future__ import annotations

import math

import numpy as np

from finestep.diagnosis.catalogue import found
from finestep.diagnosis.curves import EvalCurve, LossCurve
from finestep.diagnosis.signals import Signals, or_none
from finestep.diagnosis.thresholds import Thresholds
from finestep.diagnosis.too_low import rate_was_the_limit, too_low_finding
from finestep.finding import Finding

LONG_ENOUGH_EPOCHS = 5.0
"""Epochs after which a training loss that falls is no sign that more are needed."""
SEEN_TWICE = 2.0
"""Epochs from which a validation loss that was better before says that enough was trained."""
KNOWN_TEXT = 0.25
"""Training loss (nats a token) that no text has unless it, or its template, is known by heart."""
FIRST_TENTH = 0.1
"""Share of the steps after which a gain is counted; before, a model learns the format."""
ANNEALED_RATE, LITTLE_OF_ALL, LITTLE = 0.15, 0.1, 0.01
"""Below this share of the peak rate, a last fall of less than that part of all that was gained, or than 1 %, is the end of the road."""


def still_falling(signals: Signals, limits: Thresholds) -> Finding | None:
    """A loss that fell to the end, or a run that was stopped long before it."""
    curve, evaluation = signals.loss, signals.evaluation
    if _knows_its_text(curve, evaluation):
        return None
    return _falls_at_the_end(signals, limits) or _stopped_on_the_way(signals, curve, limits)


def _knows_its_text(curve: LossCurve | None, evaluation: EvalCurve | None) -> bool:
    """A training loss that no text has unless it is known by heart: no reason to train longer, as long as no evaluation says so."""
    return evaluation is None and curve is not None and curve.start > 1 and curve.end < KNOWN_TEXT


def _falls_at_the_end(signals: Signals, limits: Thresholds) -> Finding | None:
    curve, evaluation = signals.loss, signals.evaluation
    constant = signals.schedule is not None and signals.schedule.is_constant
    drop, is_clear = _last_fall(curve, evaluation, limits, is_constant=constant)
    if not is_clear:
        return None
    if rate_was_the_limit(signals, curve, evaluation, limits):
        return too_low_finding(signals, drop)
    progress, schedule = signals.progress, signals.schedule
    if _is_end_of_the_road(signals, evaluation) or (evaluation is None and progress.epochs >= LONG_ENOUGH_EPOCHS):
        return None
    was_interrupted = progress.share_done < 0.9
    rate_left = schedule is None or math.isnan(schedule.last) or schedule.last > 0.3 * schedule.peak
    eval_limit = (
        limits.too_short.falling_eval_interrupted if was_interrupted and rate_left else limits.too_short.falling_eval
    )
    # A rate that comes down to nothing brings the loss down with it; more steps would have been spent at a higher rate.
    eval_limit *= limits.too_short.annealed_factor if not was_interrupted and _has_decayed(signals) else 1.0
    # A constant rate within the first epoch: nothing but learning on new rows brings the loss down.
    is_constant = schedule is not None and schedule.is_constant and not progress.epochs >= 1
    tail_limit = (
        limits.too_short.falling_tail / 2
        if was_interrupted and rate_left
        else limits.too_short.falling_tail * (1 if is_constant else 2)
    )
    enough = evaluation.tail_drop > eval_limit if evaluation and evaluation.num_rows >= 3 else drop > tail_limit
    long_warmup = schedule is not None and schedule.warmup_share > 0.4
    if not enough and not (long_warmup and drop > limits.too_short.falling_tail / 3):
        return None
    if _is_small_but_done(signals, curve, limits) and not long_warmup:
        return None
    return _undertrained(signals, drop, was_interrupted, long_warmup)


def _is_end_of_the_road(signals: Signals, evaluation: EvalCurve | None) -> bool:
    """The rate has decayed, and the last evaluation gained next to nothing of what was gained in all."""
    schedule, series = signals.schedule, signals.log.evaluation
    if (
        schedule is None
        or evaluation is None
        or series is None
        or evaluation.num_rows < 3
        or not schedule.last <= ANNEALED_RATE * schedule.peak
    ):
        return False
    known = np.isfinite(series.loss)
    loss, step = series.loss[known], series.step[known]
    # The first tenth teaches the format, which is no measure of what the rest can gain.
    gained = float(loss[-2]) - evaluation.last
    first = float(loss[min(int(np.searchsorted(step, FIRST_TENTH * step[-1])), len(loss) - 2)])
    return gained < LITTLE * evaluation.last or gained < LITTLE_OF_ALL * (first - evaluation.last)


def _stopped_on_the_way(signals: Signals, curve: LossCurve | None, limits: Thresholds) -> Finding | None:
    """A run that was stopped early at a high rate after a fall: most of what it was planned to do was not done.

    How much the other steps would bring cannot be read off its rows; readers call such a run unfinished even where its loss looks flat.
    """
    progress, schedule = signals.progress, signals.schedule
    if curve is None or curve.num_rows < limits.min_rows or not progress.share_done < limits.too_short.stopped_share:
        return None
    if (schedule is not None and schedule.last < 0.5 * schedule.peak) or curve.start <= 0:
        return None
    if signals.evaluation is None and progress.epochs >= LONG_ENOUGH_EPOCHS:
        return None
    # Rows that were seen twice and more, and a validation loss that was better before: the rest of the plan would not help.
    if signals.evaluation is not None and signals.evaluation.num_after_best > 0 and progress.epochs >= SEEN_TWICE:
        return None
    gain = 1 - curve.end / curve.start
    return (
        _undertrained(signals, gain, was_interrupted=True, long_warmup=False)
        if gain > limits.too_short.expected_gain
        else None
    )


def _last_fall(
    curve: LossCurve | None, evaluation: EvalCurve | None, limits: Thresholds, *, is_constant: bool
) -> tuple[float, bool]:
    """Relative drop at the end, from the validation loss when there are three, and whether it is beyond noise."""
    if evaluation is not None and evaluation.num_rows >= 3:
        recent = evaluation.tail_drop
        return recent, recent > 0.002 and evaluation.num_after_best == 0 and recent > 2 * min(evaluation.noise, 0.02)
    if curve is None or curve.num_rows < 10:
        return 0.0, False
    # At a constant rate nothing but learning brings a loss down, so a weaker trend is believed.
    needed = limits.trend_t * (0.75 if is_constant else 1.0)
    return curve.tail.drop, curve.tail.drop > 0 and (curve.tail.t > needed or curve.whole.t < -needed)


def _is_small_but_done(signals: Signals, curve: LossCurve | None, limits: Thresholds) -> bool:
    """A finished short run, hardly evaluated, whose rate has decayed to nothing: its tail falls because the rate
    does."""
    ended = _has_decayed(signals) and not signals.progress.share_done < 0.9
    is_measured = signals.evaluation is not None and signals.evaluation.num_rows >= 3
    return bool(ended and not is_measured and curve is not None)


def _has_decayed(signals: Signals) -> bool:
    """True when the learning rate is known to have come down to nothing."""
    schedule = signals.schedule
    return schedule is not None and schedule.last < 0.1 * schedule.peak


def _undertrained(signals: Signals, drop: float, was_interrupted: bool, long_warmup: bool) -> Finding:
    progress = signals.progress
    if was_interrupted:
        why = f"was stopped at {100 * progress.share_done:.0f} % of its planned steps"
        advice = "resume it, or give it its whole budget"
    elif long_warmup:
        why, advice = "spent most of its steps warming up and ended while falling", "warm up over 3-10 % of the steps"
    else:
        why, advice = (
            "ended while the loss was still falling fast",
            "train 1.5-2 times as many steps with the same peak rate",
        )
    return found(
        "undertrained",
        f"The run {why}.",
        advice=advice,
        confidence=0.7,
        last_step=or_none(progress.last_step),
        planned_steps=or_none(progress.planned_steps),
        epochs=or_none(progress.epochs),
        last_drop=drop,
    )
