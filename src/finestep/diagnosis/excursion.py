"""A long stay far above its level, from which a run came back: too long for a spike, and no curve of a sound run."""

from __future__ import annotations

import math

import numpy as np

from finestep.diagnosis.catalogue import found
from finestep.diagnosis.chance import MOST_IGNORANT
from finestep.diagnosis.curves import LossCurve
from finestep.diagnosis.rate_level import lower_rate_advice, rate_at
from finestep.diagnosis.signals import Signals, relative_rate
from finestep.diagnosis.thresholds import Thresholds
from finestep.finding import Finding

FEWEST_ROWS, LEAST_LEVEL = 60, 0.5
"""Rows, and nats, below which a stay cannot be told from noise or from a loss of next to nothing."""
FAR, CLEARLY = 2.0, 1.5
"""Loss over its level before and after: at the height of the stay, and throughout it."""
LEAST_SHARE, FEWEST_ROWS_OF_STAY = 0.05, 10


def long_excursion(signals: Signals, curve: LossCurve, limits: Thresholds) -> Finding | None:
    """The run was lost for a twentieth of its rows and more, and found its way back."""
    smooth = curve.smooth
    top = int(np.argmax(smooth))
    # The levels on both sides, because a fall from a high start is no stay.
    level = max(float(smooth[: top + 1].min()), curve.end)
    if curve.num_rows < FEWEST_ROWS or min(float(smooth.min()), curve.end) <= 0 or level < LEAST_LEVEL:
        return None
    height = float(smooth[top]) / level
    if height < FAR or math.log(height) < limits.level_z * max(curve.contrast_error, 0.01):
        return None
    first, last = _stay(smooth > CLEARLY * level, top)
    rate = relative_rate(signals.log, int(curve.rows[first]))
    # What no token frequencies reach is no change of the data, whatever the rate was.
    if rate < limits.lost.low_rate_share and smooth[top] < MOST_IGNORANT:
        return None
    if last - first + 1 < max(FEWEST_ROWS_OF_STAY, LEAST_SHARE * curve.num_rows):
        return None
    step = signals.log.train.step[curve.rows]
    return found(
        "unstable",
        f"From step {step[first]:.0f} to {step[last]:.0f} the loss stood at {smooth[top]:.3g}, {height:.1f} times its level before and "
        "after: the rate is too high.",
        advice=lower_rate_advice(signals, factor=2),
        first_step=float(step[first]),
        last_step=float(step[last]),
        height=height,
        learning_rate=rate_at(signals, int(curve.rows[first])),
    )


def _stay(is_above: np.ndarray, top: int) -> tuple[int, int]:
    """The first and the last row of the stretch around a row."""
    below = np.flatnonzero(~is_above)
    before, after = below[below < top], below[below > top]
    return int(before[-1]) + 1 if len(before) else 0, int(after[0]) - 1 if len(after) else len(is_above) - 1
