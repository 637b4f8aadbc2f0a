"""A loss that rose, and no rate explains it: the data changed, or something that the log does not show."""

from __future__ import annotations

import math

import numpy as np

from finestep.diagnosis.catalogue import Evidence, found
from finestep.diagnosis.chance import Chance
from finestep.diagnosis.curves import LossCurve
from finestep.diagnosis.signals import Signals, relative_rate
from finestep.diagnosis.thresholds import Thresholds
from finestep.finding import Finding

TINY_LOSS = 0.05


def rise_row(curve: LossCurve) -> int:
    """Row of the log at which the smoothed loss last crosses half-way between its best and its end."""
    level = math.sqrt(max(curve.best, 1e-12) * max(curve.end, 1e-12))
    below = np.flatnonzero(curve.smooth <= level)
    position = min(int(below[-1]) + 1, curve.num_rows - 1) if len(below) else 0
    return int(curve.rows[position])


def has_another_cause(signals: Signals, curve: LossCurve, row: int, limits: Thresholds, chance: Chance | None) -> bool:
    rate = relative_rate(signals.log, row)
    tiny = curve.end < TINY_LOSS and rate < 0.7
    is_past_peak = not rate >= 0.95  # Or not known: then the gradients decide alone.
    return (
        rate < limits.lost.low_rate_share
        or tiny
        or (chance is None and is_past_peak and is_calm_jump(signals, curve, row))
    )


def is_calm_jump(signals: Signals, curve: LossCurve, row: int) -> bool:
    """A step up, after the peak rate, that no gradient norm shows before, at or after it."""
    norms = signals.log.train.grad_norm
    before, after = norms[:row], norms[max(0, row - 3) :]
    before, after = before[np.isfinite(before)], after[np.isfinite(after)]
    known = len(before) >= 8 and len(after) >= 8
    return bool(known and after.max() < 3 * np.median(before) and _is_abrupt(curve, row))


def _is_abrupt(curve: LossCurve, row: int) -> bool:
    """True when most of the rise happens within two smoothing windows."""
    window = max(3, curve.num_rows // 20)
    position = int(np.searchsorted(curve.rows, row))
    before = float(np.median(curve.smooth[max(0, position - 2 * window) : max(1, position - window)]))
    later = curve.smooth[position + window : position + 2 * window]
    after = float(np.median(later)) if len(later) else curve.end
    return after - before > 0.6 * (curve.end - before)


def not_the_rate(curve: LossCurve, row: int, evidence: Evidence) -> Finding:
    if _is_abrupt(curve, row):
        return found(
            "data_changed",
            "The loss jumps although the learning rate is past its peak and no gradient shows it: the data "
            "or the loss changed.",
            advice="look at the rows from that step on (their order, template and masking), and shuffle the data",
            confidence=0.7,
            known=evidence,
        )
    return found(
        "unexplained_rise",
        "The loss rises slowly while the learning rate falls; cannot tell why, because no rate explains it.",
        advice="look at the order of the data and at how the loss is defined; log a validation loss next time",
        confidence=0.6,
        known=evidence,
    )
