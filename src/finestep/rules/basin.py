"""The shape of loss against log learning rate near the optimum, and where to aim when unsure.

x = log10(rate / best rate). Excess loss in nats: 0.015 |x|^1.4 to the left, 0.030 x^2.35 to the right, and a run
diverges with probability sigmoid((x - 0.84) / 0.07) to a model that is 0.65 nats worse. From 87 cells of the sweep
(evidence `basin`): one data set and one length; small models are up to five times steeper.
"""

from __future__ import annotations

import math
from functools import cache

LEFT_NATS, LEFT_POWER = 0.015, 1.4
RIGHT_NATS, RIGHT_POWER = 0.030, 2.35
CLIFF_DEX, CLIFF_WIDTH_DEX = 0.84, 0.07
DIVERGENCE_NATS = 0.65
WATCHED_DIVERGENCE_NATS = 0.1
"""Price of a divergence for the aim. A diverged model is 0.65 nats worse, but nobody keeps it: a watched run stops at
once and is repeated lower, at under 0.01 nats of final loss. Ten times that prices the wasted part of a run. A judgement
(docs/log.md): on the sweep a dearer price only added regret."""
_GRID = 81
_FARTHEST_LEFT_DEX, _AIM_STEP_DEX = -0.8, 0.01


def excess_nats(x: float, *, divergence_nats: float = DIVERGENCE_NATS) -> float:
    """Expected loss above the best, in nats, at `x` dex from the best rate.

    >>> round(excess_nats(-1.0), 4), round(excess_nats(0.0), 4)
    (0.015, 0.0)
    """
    smooth = LEFT_NATS * (-x) ** LEFT_POWER if x < 0 else RIGHT_NATS * x**RIGHT_POWER
    return smooth + divergence_nats * divergence_probability(x)


def divergence_probability(x: float) -> float:
    """Chance that a run at `x` dex from the best rate diverges."""
    argument = (CLIFF_DEX - x) / CLIFF_WIDTH_DEX
    return 0.0 if argument > 700 else 1.0 / (1.0 + math.exp(argument))


@cache
def aim_shift(sd: float, *, divergence_nats: float = WATCHED_DIVERGENCE_NATS) -> float:
    """How far from the centre to aim, in dex (never above 0), when the best rate is known to within `sd` dex.

    The left side is mild and the right side is a cliff, so the best guess under uncertainty is left of the centre.
    """
    steps = [_AIM_STEP_DEX * k for k in range(int(_FARTHEST_LEFT_DEX / _AIM_STEP_DEX), 1)]
    return min(steps, key=lambda shift: _expected(shift, sd, divergence_nats))


def _expected(shift: float, sd: float, divergence_nats: float) -> float:
    nodes = [8.0 * k / (_GRID - 1) - 4.0 for k in range(_GRID)]
    weights = [math.exp(-0.5 * z * z) for z in nodes]
    total = sum(
        w * excess_nats(shift - sd * z, divergence_nats=divergence_nats) for z, w in zip(nodes, weights, strict=True)
    )
    return total / sum(weights)
