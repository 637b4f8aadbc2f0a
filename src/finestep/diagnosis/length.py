"""Were rate, warmup and length enough? The questions in their order; and runs too short to show a gain, or with nothing left to gain."""

from __future__ import annotations

import numpy as np

from finestep.diagnosis.catalogue import found
from finestep.diagnosis.chance import MOST_IGNORANT
from finestep.diagnosis.motion import IGNORANT_LOSS
from finestep.diagnosis.next_rate import moved
from finestep.diagnosis.signals import Signals
from finestep.diagnosis.still_falling import still_falling
from finestep.diagnosis.stuck import WHEN_AT_CHANCE
from finestep.diagnosis.thresholds import Thresholds
from finestep.diagnosis.too_low import LOWEST_USUAL_RATE, slow_from_ignorance, straight_response
from finestep.finding import Finding

LATE_PEAK, RISEN = 0.8, 2.0
"""A rate whose maximum lies this late, that far above its first value, was still warming up."""
A_TRIAL = 0.05
"""Share of an epoch that few steps saw, below which a run was a trial of the script, whatever its loss did."""
LEARNED = 0.5
"""Loss in nats below which little is left to learn."""
FAST_START = 1.5
"""Standard deviations of a row by which the first one must lie above the next for its fall to count as gain."""


def length_findings(signals: Signals, limits: Thresholds) -> list[Finding]:
    """Was the rate too low, the warmup too long, the run too short, or was there nothing left to learn?"""
    if signals.log.context.objective != "supervised":
        return []
    checks = (
        _warmup_never_ended,
        straight_response,
        slow_from_ignorance,
        still_falling,
        _few_steps,
        _already_converged,
    )
    return [finding for check in checks if (finding := check(signals, limits)) is not None]


def _warmup_never_ended(signals: Signals, limits: Thresholds) -> Finding | None:
    """The rate was highest in the last fifth of the steps: the run ended before its warmup did."""
    train, schedule = signals.log.train, signals.schedule
    known = np.isfinite(train.learning_rate)
    rates, steps = train.learning_rate[known], train.step[known]
    if schedule is None or len(rates) < limits.min_rows or not rates.max() > 0 or steps[-1] <= steps[0]:
        return None
    # The first row at the highest rate: a rate that stays there after its warmup reaches it early.
    peak_at = float(steps[int(np.argmax(rates >= 0.999 * rates.max()))])
    if (
        # From the first row on, because a resumed run counts on from where it was.
        peak_at - steps[0] < LATE_PEAK * (steps[-1] - steps[0])
        or rates.max() < RISEN * max(rates[0], 1e-30)
        or signals.progress.share_done < 0.5
    ):
        return None
    return found(
        "warmup_never_ended",
        "The rate was still rising when the run ended: warmup took all of its steps.",
        advice=f"warm up over 5-10 % of the steps, at the same peak rate of {schedule.peak:.2g}",
        peak_step=peak_at,
        last_step=float(steps[-1]),
    )


def _few_steps(signals: Signals, limits: Thresholds) -> Finding | None:
    """So few steps that the loss hardly left its start."""
    curve, last_step, epochs = signals.loss, signals.progress.last_step, signals.progress.epochs
    if curve is None or curve.num_rows < limits.min_rows or not last_step <= limits.few_steps or curve.start <= 0:
        return None
    # An epoch of 0 is the first one of a log that counts whole epochs.
    if 0 < epochs < A_TRIAL:
        return _only_tried(last_step, epochs)
    gain = 1 - curve.end / max(curve.start, signals.log.context.base_train_loss or 0.0)
    # Runs of few steps at a good rate are half way down in their second row.
    gain_of_all = 1 - curve.end / max(
        curve.first, curve.start
    )  # A high rate has gained most of it after the first row.
    if (
        gain > 3 * max(curve.noise, 0.01)
        or gain_of_all > 4 * max(curve.noise, 0.01)
        or curve.whole.t < -limits.trend_t
        or _evaluations_gained(signals)
        or curve.spread < 0.02
    ):
        return None
    return found(
        "undertrained",
        f"Only {last_step:.0f} steps were taken and the loss has not left its noise.",
        advice="train several hundred steps, with a smaller batch or more epochs if rows are few",
        confidence=0.7,
        last_step=last_step,
        gain=gain,
    )


def _only_tried(last_step: float, epochs: float) -> Finding:
    """Few steps on next to nothing of the data, as the `max_steps=60` of a demonstration."""
    return found(
        "undertrained",
        f"Only {last_step:.0f} steps were taken, on {100 * epochs:.2g} % of the rows.",
        advice="train at least one epoch, or several hundred steps",
        last_step=last_step,
        epochs=epochs,
    )


def _evaluations_gained(signals: Signals) -> bool:
    """Three evaluations or more, the last of which is better than the first beyond their noise."""
    evaluation = signals.evaluation
    if evaluation is None or evaluation.num_rows < 3:
        return False
    return evaluation.last < evaluation.first * (1 - 2 * min(max(evaluation.noise, 0.002), 0.05))


def _already_converged(signals: Signals, limits: Thresholds) -> Finding | None:
    """A long run with normal steps that gained next to nothing: the starting point had seen this data."""
    curve, evaluation = signals.loss, signals.evaluation
    if (
        curve is None
        or curve.num_rows < 30
        or curve.start <= 0
        or not signals.progress.last_step >= 3 * limits.few_steps
    ):
        return None
    # A fine-tune may gain most of what there is within its first row.
    first = curve.first if curve.first > (1 + FAST_START * max(curve.noise, 0.01)) * curve.start else 0.0
    gain = 1 - curve.end / max(first, curve.start, float(np.median(curve.smooth[: max(1, curve.num_rows // 20)])))
    eval_gain = 1 - evaluation.best / evaluation.first if evaluation and evaluation.first > 0 else 0.0
    if not -0.05 < gain < limits.too_low.converged_gain or eval_gain > limits.too_low.converged_gain:
        return None
    if signals.schedule is not None and signals.schedule.peak < LOWEST_USUAL_RATE and curve.end > LEARNED:
        return _rate_of_nothing(signals, signals.schedule.peak, gain)
    if IGNORANT_LOSS < curve.end < MOST_IGNORANT and signals.loss_factor == 1.0:
        return _never_began(curve.end, gain)
    return found(
        "already_converged",
        "The loss hardly changes over the whole run: the model had learned this data before, or there is "
        "nothing to learn.",
        advice=(
            "check that you did not start from an adapter trained on the same rows; otherwise use harder or new data"
        ),
        confidence=0.55,
        first_loss=curve.start,
        last_loss=curve.end,
        gain=gain,
    )


def _never_began(loss: float, gain: float) -> Finding:
    """A loss that hardly changes, at a level at which there is everything to learn."""
    return found(
        "stuck_at_chance",
        f"The loss hardly moves from {loss:.3g}, where a model knows next to nothing: it learns nothing.",
        advice=WHEN_AT_CHANCE,
        loss=loss,
        gain=gain,
    )


def _rate_of_nothing(signals: Signals, peak: float, gain: float) -> Finding:
    """A loss that hardly moved at a rate at which hardly anything can."""
    meaning = (
        f"The loss hardly changed, at a rate of {peak:.1g}, below any that trains a model in practice: "
        "the learning rate was the limit."
    )
    return found(
        "learning_rate_too_low",
        meaning,
        advice=f"{moved(signals, 10)}, and refine from there",
        learning_rate=peak,
        gain=gain,
    )
