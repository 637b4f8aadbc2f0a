"""How wide the interval of the best rate, and how large the stated regret, must be to be true; the search itself stays as it is.

The posterior of the surrogate is too sure of itself in some studies and not sure enough in others. So each kind of study has factors of its
own. An interval at the batch size of the best run always holds the rate of that run. The factors are those with which 80 % of the intervals
held on recorded fine-tunes: 79 to 82 % of eight with each of them left out once, and 76 to 80 % of 35 short ones (docs/figures/search.md,
docs/log.md).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from finestep.estimate import Estimate
from finestep.search.opening import DECIDES_ALL, Opening
from finestep.trial import Trial

ONE_RUN_AND_SHORT_ONES = 0.8
USUAL, SHORT, SHORT_WITHOUT_PRIOR = (1.1, 0.75, 0.8, 0.65), (0.95, 0.55, 0.75, 0.45), (1.0, 0.85, 0.7, 0.6)
"""Octaves over octaves after one, two, three and more full runs. Short: the study has few steps, so that its first runs are given."""
REGRET_OF_SHORT = 1.3
"""What a short study states of its regret is multiplied with this. On 30 recorded ones by loss it was then 2.4, 0.7 and 1.0 times the true
one in the mean, after three, four and six full runs; the two halves differ widely (docs/figures/scoreboard.md)."""


def width_factor(trials: Sequence[Trial], opening: Opening = DECIDES_ALL) -> float:
    """What the distance between a predicted best rate and the ends of its interval is multiplied with.

    The run of the usual default does not count: it lies far off, and says little about where the best rate is.

    Args:
        trials: all of the study.
        opening: which of the first full runs are given, in a study of few steps.
    """
    ended = [trial.fidelity for trial in trials if trial.state != "running" and not trial.is_baseline]
    num_full = ended.count(1.0)
    if num_full == 0:
        return 1.0
    if num_full == 1 and num_full < len(ended):
        return ONE_RUN_AND_SHORT_ONES
    short = SHORT_WITHOUT_PRIOR if opening.is_without_prior else SHORT
    factors = short if opening.is_short else USUAL
    return factors[min(num_full, len(factors)) - 1]


def regret_factor(opening: Opening) -> float:
    """What a stated regret is multiplied with."""
    return REGRET_OF_SHORT if opening.is_short else 1.0


def widened(rate: Estimate, factor: float, *, within: tuple[float, float]) -> Estimate:
    """The interval with its ends so many times as far from the value, in the logarithm.

    Args:
        within: lowest and highest rate that may be tried; an end beyond them could not be checked, so it is said to lie there.
    """
    low, high = (rate.value * math.exp(factor * math.log(end / rate.value)) for end in (rate.low, rate.high))
    lowest, highest = min(within[0], rate.value), max(within[1], rate.value)
    return rate.model_copy(update={"low": max(low, lowest), "high": min(high, highest)})


def up_to(rate: Estimate, measured: float) -> Estimate:
    """The interval, made wide enough to hold a measured rate.

    >>> rate = Estimate(value=2e-4, low=1e-4, high=3e-4, unit="1", source="measured here", coverage=0.8)
    >>> up_to(rate, 4e-4).high, up_to(rate, 2e-4).high
    (0.0004, 0.0003)
    """
    return rate.model_copy(update={"low": min(rate.low, measured), "high": max(rate.high, measured)})
