"""The shape of loss against log learning rate near the optimum, and where to aim when unsure.

x = log10(rate / best rate), excess loss in nats. LoRA: 0.015 |x|^1.4 to the left, 0.030 x^2.35 to the right, and a run diverges
with probability sigmoid((x - 0.84) / 0.07); from 87 cells of the sweep (evidence `basin`): one data set and one length; small models are up
to five times steeper. Full fine-tuning: 0.032 |x|^1.5 to the left, 0.25 x^3.2 to the right; from seven sweeps of Qwen2.5-1.5B (evidence
`full-basin`): at twice the best rate it costs four times as much as LoRA. Encoders, in shares of
accuracy: 0.019 |x|^1.3 to the left, 0.028 x^2.6 to the right; from 1,024 runs of DeBERTa-base (evidence `opda-mnli`), and much as LoRA.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

CLIFF_DEX, CLIFF_WIDTH_DEX = 0.84, 0.07
DIVERGENCE_NATS = 0.65
"""How much worse a diverged model is. Nobody keeps one, so that the aim does not count it: a watched run stops at once and is repeated
lower. On the sweep every price of it only added regret (docs/log.md)."""
WORST_NATS = 0.1
"""What a run that is far too high counts as for the aim: it is seen, stopped and repeated."""
LEAST_SHIFT_DEX = 0.05
"""A smaller step off the centre is not worth its explanation."""
_GRID = 81
_FARTHEST_LEFT_DEX, _AIM_STEP_DEX = -0.8, 0.01


@dataclass(frozen=True)
class Basin:
    """Excess loss in nats: left x |x|^left_power below the best rate, right x x^right_power above it."""

    left: float
    left_power: float
    right: float
    right_power: float
    has_cliff: bool = False

    def excess_nats(self, x: float, *, divergence_nats: float = 0.0) -> float:
        """Expected loss above the best, in nats, at `x` dex from the best rate.

        >>> round(LORA.excess_nats(-1.0), 4), round(FULL.excess_nats(1.0), 4)
        (0.015, 0.25)
        """
        smooth: float = self.left * (-x) ** self.left_power if x < 0 else self.right * x**self.right_power
        return smooth + (divergence_nats * divergence_probability(x) if self.has_cliff else 0.0)


LORA = Basin(0.015, 1.4, 0.030, 2.35, has_cliff=True)
FULL = Basin(0.032, 1.5, 0.25, 3.2)
ENCODER = Basin(0.019, 1.3, 0.028, 2.6)


def divergence_probability(x: float) -> float:
    """Chance that a LoRA run at `x` dex from the best rate diverges."""
    argument = (CLIFF_DEX - x) / CLIFF_WIDTH_DEX
    return 0.0 if argument > 700 else 1.0 / (1.0 + math.exp(argument))


@cache
def aim_shift(sd: float, *, basin: Basin = LORA, divergence_nats: float = 0.0) -> float:
    """How far from the centre to aim, in dex (never above 0), when the best rate is known to within `sd` dex.

    Where the right side is steeper than the left, the best guess under doubt is left of the centre.
    """
    steps = [_AIM_STEP_DEX * k for k in range(int(_FARTHEST_LEFT_DEX / _AIM_STEP_DEX), 1)]
    best = min(steps, key=lambda shift: _expected(basin, shift, sd, divergence_nats))
    return best if best <= -LEAST_SHIFT_DEX + 1e-9 else 0.0


def _expected(basin: Basin, shift: float, sd: float, divergence_nats: float) -> float:
    nodes = [8.0 * k / (_GRID - 1) - 4.0 for k in range(_GRID)]
    weights = [math.exp(-0.5 * z * z) for z in nodes]
    worst = WORST_NATS + divergence_nats
    total = sum(
        w * min(basin.excess_nats(shift - sd * z, divergence_nats=divergence_nats), worst)
        for z, w in zip(nodes, weights, strict=True)
    )
    return total / sum(weights)
