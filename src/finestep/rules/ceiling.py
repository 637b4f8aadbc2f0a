"""The rate at which training breaks, from a range test; only a ceiling: the best rate of a range test is not the best rate of a run.

Mechanics: the rate rises by a constant factor a step; the smoothed loss (EMA 0.9, debiased) is compared with its best so far. The test
is greedy and short, so it says nothing about which stable rate is best (Wu et al. 2018, arXiv 1803.02021; transformers issue 16013).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from finestep.errors import BadInput

SMOOTHING = 0.9
WORSE = 1.1
NOISE_WIDTHS = 4.0
BELOW_CEILING = 10.0
"""A rate above a tenth of the breaking rate is not credible (necessary, not sufficient)."""
FIRST_SHARE = 0.25


@dataclass(frozen=True, slots=True)
class Ceiling:
    """`breaks_at` is None when training stayed stable up to `tested_to`."""

    breaks_at: float | None
    tested_to: float

    @property
    def highest_credible(self) -> float:
        """Search no higher than this."""
        return self.tested_to if self.breaks_at is None else self.breaks_at / BELOW_CEILING


def range_rates(*, prior: float, num_steps: int) -> list[float]:
    """Rates of the test: a tenth of the prior to a hundred times it, evenly spaced in log."""
    return [float(rate) for rate in np.geomspace(prior / 10, prior * 100, num_steps)]


def ceiling(rates: Sequence[float], losses: Sequence[float]) -> Ceiling:
    """Where the smoothed loss first lies 10 % (and four widths of its early noise) above its best, or is not finite."""
    if len(rates) != len(losses) or len(rates) < 8:
        raise BadInput("a range test needs one loss for each of at least eight rates", value=(len(rates), len(losses)))
    noise = _early_noise(losses)
    mean, best = 0.0, math.inf
    for step, (rate, loss) in enumerate(zip(rates, losses, strict=True), start=1):
        if not math.isfinite(loss):
            return Ceiling(rate, rate)
        mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
        smooth = mean / (1 - SMOOTHING**step)
        if smooth > best + max((WORSE - 1) * abs(best), NOISE_WIDTHS * noise):
            return Ceiling(rate, rate)
        best = min(best, smooth)
    return Ceiling(None, rates[-1])


def _early_noise(losses: Sequence[float]) -> float:
    """Standard deviation of the smoothed loss while the rate is too low to change much."""
    early = np.array([x for x in losses[: max(8, int(FIRST_SHARE * len(losses)))] if math.isfinite(x)])
    if len(early) < 3:
        return 0.0
    differences = np.diff(early)
    return float(np.std(differences) / math.sqrt(2) * math.sqrt((1 - SMOOTHING) / (1 + SMOOTHING)))


def ceiling_words(found: Ceiling) -> str:
    """In words."""
    if found.breaks_at is None:
        return f"training stayed stable up to {found.tested_to:.1e}"
    return f"training breaks at {found.breaks_at:.1e}; search no higher than {found.highest_credible:.1e}"
