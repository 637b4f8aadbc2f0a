"""How wide the interval of the best rate must be to hold as often as it says; the search itself stays as it is.

The posterior of the surrogate is too sure of itself after two full runs, which cannot tell noise from steepness, and not sure enough
once four or more surround the best one. The factors are those with which 80 % of the intervals held on eight recorded fine-tunes, every
one left out once: 77 to 81 % (docs/figures/search.md, `python -m benchmarks.search.calibration`).
"""

from __future__ import annotations

import math

from finestep.estimate import Estimate

ONE_RUN, ONE_RUN_AND_SHORT_ONES, MANY_RUNS = 1.15, 0.85, 0.5
WIDTHS = {2: 1.5, 3: 0.95}
"""By the number of full runs, in octaves over octaves; further ones: `MANY_RUNS`."""


def width_factor(*, num_full: int, num_short: int) -> float:
    """What the distance between a predicted best rate and the ends of its interval is multiplied with.

    >>> width_factor(num_full=0, num_short=0), width_factor(num_full=1, num_short=3), width_factor(num_full=7, num_short=0)
    (1.0, 0.85, 0.5)
    """
    if num_full == 0:
        return 1.0
    if num_full == 1:
        return ONE_RUN_AND_SHORT_ONES if num_short else ONE_RUN
    return WIDTHS.get(num_full, MANY_RUNS)


def widened(rate: Estimate, factor: float) -> Estimate:
    """The interval with its ends so many times as far from the value, in the logarithm."""
    low, high = (rate.value * math.exp(factor * math.log(end / rate.value)) for end in (rate.low, rate.high))
    return rate.model_copy(update={"low": low, "high": high})
