"""Is the run lost? Its end against its first rows and against its best, and the same for its evaluations."""

from __future__ import annotations

import math

import numpy as np

from finestep.diagnosis.catalogue import Evidence, found
from finestep.diagnosis.chance import MOST_IGNORANT, accumulation_factor
from finestep.diagnosis.curves import LossCurve
from finestep.diagnosis.other_cause import TINY_LOSS, has_another_cause, not_the_rate, rise_row
from finestep.diagnosis.rate_level import chance_of, diverged, lower_rate_advice, peak_row, rate_at
from finestep.diagnosis.signals import Signals, relative_rate
from finestep.diagnosis.thresholds import Thresholds
from finestep.finding import Finding

FEW_ROWS, TWICE = 30, 2.0
EVALS_ROSE = 1.1


def lost_findings(signals: Signals, curve: LossCurve, limits: Thresholds) -> list[Finding]:
    """The first sign that the run is lost."""
    checks = (_lost, _ends_high, _evaluations_rose)
    return [finding for check in checks if (finding := check(signals, curve, limits)) is not None][:1]


def is_lost(curve: LossCurve, limits: Thresholds) -> bool:
    """True when the end lies far above the best level (or the first row) and most of the gain is gone."""
    if min(curve.best, curve.first, curve.start) <= 0:
        return False
    # A ratio alone would call a rise from 0.02 to 0.04 lost, although nothing of the gain from 2.0 is gone.
    beyond = (curve.end - curve.best) / max(curve.start - curve.best, 1e-12)
    clear = math.log(curve.end / curve.best) > limits.level_z * max(curve.contrast_error, 0.01)
    fell_back = curve.end > limits.lost.ratio * curve.best and beyond > limits.lost.given_back and clear
    return bool(fell_back or _lost_at_once(curve, limits))


def _lost_at_once(curve: LossCurve, limits: Thresholds) -> bool:
    """A model that was good before the first step and never again: a fine-tune worse than its base."""
    # The loss must have been far up soon after the start: a slow drift upwards has other causes.
    early = float(np.max(curve.smooth[: max(3, curve.num_rows // 4)]))
    noise = max(curve.noise, 0.05) * max(curve.end, 1e-12)
    return (
        curve.end > limits.lost.ratio * curve.first and early > 2 * curve.first and curve.end - curve.first > 4 * noise
    )


def _lost(signals: Signals, curve: LossCurve, limits: Thresholds) -> Finding | None:
    if not is_lost(curve, limits):
        return None
    row = rise_row(curve)
    step = float(signals.log.train.step[row])
    rate = relative_rate(signals.log, row)
    evidence: Evidence = {
        "step": step, "best_loss": min(curve.best, curve.first), "end_loss": curve.end, "first_loss": curve.first,
        "learning_rate": rate_at(signals, row), "rate_over_peak": rate if rate == rate else None,
    }  # fmt: skip
    chance = chance_of(signals, curve.end, limits)
    # No change of the data makes a model worse than one that knows nothing.
    is_destroyed = curve.end > max(MOST_IGNORANT, limits.lost.ratio * curve.first) and not accumulation_factor(
        curve.first
    )
    # Before its peak the rate is still growing, and a rise is its own doing.
    if not is_destroyed and row >= peak_row(signals) and has_another_cause(signals, curve, row, limits, chance):
        return not_the_rate(curve, row, evidence) if signals.log.context.objective == "supervised" else None
    where = f" and stays at {chance.words}" if chance else ""
    return found(
        "diverged",
        f"The loss rose from {min(curve.best, curve.first):.3g} at about step {step:.0f} to {curve.end:.3g}{where}: "
        "the learning rate is too high.",
        advice=lower_rate_advice(signals),
        confidence=0.9,
        known=evidence,
    )


def _ends_high(signals: Signals, curve: LossCurve, limits: Thresholds) -> Finding | None:
    """A log of few rows whose last two both lie far above its lowest: too few for medians, and too far for chance."""
    loss = signals.log.train.loss[curve.rows]
    if not limits.min_rows <= curve.num_rows <= FEW_ROWS or not loss.min() > TINY_LOSS:
        return None
    # The second lowest, because the lowest of noisy rows is a lucky one.
    low, evaluation = float(np.sort(loss)[1]), signals.evaluation
    is_denied = evaluation is not None and evaluation.num_rows >= 2 and evaluation.num_after_best == 0
    if is_denied or not loss[-2:].min() > max(TWICE, 1 + 4 * min(curve.noise, 0.4)) * low:
        return None
    return diverged(signals, f"The last losses are {loss[-1] / low:.1f} times the lowest.", low, float(loss[-1]))


def _evaluations_rose(signals: Signals, curve: LossCurve, limits: Thresholds) -> Finding | None:
    """Validation and training loss both end above where they began: not overfitting, but a model that gets worse."""
    base = signals.log.context.base_train_loss
    if (
        base is not None
        and curve.num_rows >= limits.min_rows
        and curve.end > EVALS_ROSE * base
        and curve.end - base > 2 * curve.level_error
    ):
        return diverged(
            signals,
            f"The training loss ends at {curve.end:.3g}, above the {base:.3g} before training.",
            base,
            curve.end,
        )
    series = signals.log.evaluation
    known = series.loss[np.isfinite(series.loss)] if series is not None else np.empty(0)
    if len(known) < 3 or not known[0] > 0 or np.median(known[-3:]) <= EVALS_ROSE * known[0] or curve.end < curve.start:
        return None
    meaning = f"The validation loss went from {known[0]:.3g} up to {known[-1]:.3g}, and the training loss did not fall."
    return diverged(signals, meaning, float(known[0]), float(known[-1]))
