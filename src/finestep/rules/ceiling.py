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
NOISE_WIDTHS = 5.0
BELOW_CEILING = 10.0
"""A rate above a tenth of the breaking rate is not credible (necessary, not sufficient)."""
EARLY_SHARE, EARLY_STEPS = 0.25, 8
FEWEST_BAD_STEPS = 3


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
    """Where the smoothed loss rises 10 % (and five widths of its noise) above its best for good, or is no longer finite.

    For good, because the rate only rises: what comes back down was chance.
    """
    if len(rates) != len(losses) or len(rates) < EARLY_STEPS:
        raise BadInput("a range test needs one loss for each of at least eight rates", value=(len(rates), len(losses)))
    finite = [math.isfinite(loss) for loss in losses]
    end = len(losses) if all(finite) else finite.index(False)
    bad = _bad_steps(losses[:end]) if end >= EARLY_STEPS else np.zeros(end, dtype=bool)
    first = end - int(np.argmin(bad[::-1])) if not bad.all() else 0
    if end == len(losses) and end - first < FEWEST_BAD_STEPS:
        return Ceiling(None, rates[-1])
    return Ceiling(rates[min(first, end)], rates[min(end, len(rates) - 1)])


def _bad_steps(losses: Sequence[float]) -> np.ndarray:
    """Which steps lie above the best so far by more than the noise of a smoothed loss allows."""
    early = np.asarray(losses[: max(EARLY_STEPS, int(EARLY_SHARE * len(losses)))])
    noise = float(np.std(np.diff(early)) / math.sqrt(2))
    mean, best = 0.0, math.inf
    bad = np.zeros(len(losses), dtype=bool)
    for step, loss in enumerate(losses, start=1):
        mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
        left = SMOOTHING**step
        smooth = mean / (1 - left)
        width = noise * math.sqrt((1 - SMOOTHING) / (1 + SMOOTHING) * (1 + left) / (1 - left))
        bad[step - 1] = smooth > best + max((WORSE - 1) * abs(best), NOISE_WIDTHS * width)
        best = min(best, smooth)
    return bad


def ceiling_words(found: Ceiling) -> str:
    """In words."""
    if found.breaks_at is None:
        return f"training stayed stable up to {found.tested_to:.1e}"
    return f"training breaks at {found.breaks_at:.1e}; search no higher than {found.highest_credible:.1e}"
