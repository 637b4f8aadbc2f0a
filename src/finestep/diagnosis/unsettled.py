"""Not lost, but not sound: a run that ends above its best, drifts upwards, or never gets better than its base."""

from __future__ import annotations

import math

import numpy as np

from finestep.diagnosis.catalogue import Evidence, found
from finestep.diagnosis.curves import LossCurve
from finestep.diagnosis.other_cause import is_calm_jump, not_the_rate, rise_row
from finestep.diagnosis.rate_level import chance_of, diverged, lower_rate_advice, peak_row, rate_at
from finestep.diagnosis.signals import Signals, relative_rate
from finestep.diagnosis.thresholds import Thresholds
from finestep.finding import Finding

NO_BETTER, FELL_FAR = 1.02, 0.7
ALL_GIVEN_BACK, SMALL_GAIN_LOST = 0.9, 1.04
"""Share of the gain that is gone, and what it was at least, of a run that ends where it began."""


def unsettled(signals: Signals, curve: LossCurve, limits: Thresholds) -> Finding | None:
    """Not lost, but well above its best, or drifting upwards together with the validation loss."""
    if min(curve.best, curve.start) <= 0 or not _has_risen(signals, curve, limits):
        return None
    row = rise_row(curve)
    rate = relative_rate(signals.log, row)
    chance = chance_of(signals, curve.end, limits)
    if row >= peak_row(signals):
        if rate < 0.95 and chance is None and is_calm_jump(signals, curve, row):
            known: Evidence = {"step": float(signals.log.train.step[row]), "rate_over_peak": rate}
            return not_the_rate(curve, row, {**known, "best_loss": curve.best, "end_loss": curve.end})
        # At a small share of the peak rate the steps are too small to do that.
        if rate < limits.lost.low_rate_share:
            return None
    # Back to a guess after having learned is a loss of everything, not of a part.
    began_as_a_guess = chance is not None and chance.kind == "labels" and abs(curve.start / chance.loss - 1) < 0.1
    if chance is not None and began_as_a_guess and _given_back(curve) > ALL_GIVEN_BACK:
        meaning = f"The loss came down to {curve.best:.3g} and went back to {chance.words}."
        return diverged(signals, meaning, curve.best, curve.end)
    return found(
        "unstable",
        f"Training and validation loss end above their best ({curve.best:.3g} -> {curve.end:.3g}): the rate is at its limit.",
        advice=lower_rate_advice(signals, factor=2),
        confidence=0.6,
        best_loss=curve.best,
        end_loss=curve.end,
        drift_t=curve.whole.t,
        learning_rate=rate_at(signals, row),
    )


def _given_back(curve: LossCurve) -> float:
    """Share of the gain that is gone at the end."""
    return (curve.end - curve.best) / max(curve.start - curve.best, 1e-12)


def _has_risen(signals: Signals, curve: LossCurve, limits: Thresholds) -> bool:
    """The end is clearly above the best and no validation loss denies it, or both losses drift upwards."""
    beyond, evaluation = _given_back(curve), signals.evaluation
    clear = math.log(curve.end / curve.best) > limits.level_z * max(curve.contrast_error, 0.01)
    risen = curve.end > limits.lost.unstable_ratio * curve.best and beyond > limits.lost.given_back / 2 and clear
    risen = risen or (clear and beyond > ALL_GIVEN_BACK and curve.end > SMALL_GAIN_LOST * curve.best)
    if risen and (evaluation is None or evaluation.rise > 0.005 or evaluation.num_rows < 2):
        return True
    drifts = curve.whole.t > limits.trend_t and curve.whole.change > 2.5 * curve.level_error * curve.start
    grew = curve.end > curve.start or beyond > 0.9
    return bool(drifts and evaluation is not None and evaluation.rise > 0.005 and grew)


def worse_than_base(signals: Signals, curve: LossCurve, limits: Thresholds) -> Finding | None:
    """After a quarter of the run no evaluation is better than the one before the first step, and the training loss did not fall far."""
    series = signals.log.evaluation
    if series is None or not len(series):
        return None
    base = signals.log.context.base_eval_loss or (float(series.loss[0]) if series.step[0] == 0 else None)
    # Evaluations of the first quarter may lie in the warmup, where a loss is often worse for a while.
    after = series.loss[(series.step > 0.25 * signals.progress.last_step) & np.isfinite(series.loss)]
    if base is None or len(after) < 2 or after.min() <= NO_BETTER * base or curve.end < FELL_FAR * curve.start:
        return None
    rate = signals.schedule.peak if signals.schedule else None
    return no_better_than_base(base, float(after.min()), advice=lower_rate_advice(signals), learning_rate=rate)


def no_better_than_base(base: float, best: float, *, advice: str, learning_rate: float | None) -> Finding:
    """No evaluation reached the loss of the model before its first step."""
    return found(
        "worse_than_base",
        f"No evaluation is better than the {base:.3g} of the model before training (best {best:.3g}).",
        advice=advice,
        base_eval_loss=base,
        best_eval_loss=best,
        learning_rate=learning_rate,
    )
