"""Whether a study has earned a per cent: its best full run stands between worse ones, so that the basin was seen, not believed.

After one or two full runs everything that a search says of the loss is its prior: on recorded fine-tunes the stated regret was
then a tenth of the true one and less. With a worse full run at a lower rate and one at a higher rate it was right to
within a factor of 1.5 (docs/figures/search.md).
"""

from __future__ import annotations

import numpy as np

from finestep.search.observations import Observations
from finestep.search.prior import SearchPrior
from finestep.search.space import Array

FEWEST_FULL_RUNS, FEWEST_WITHOUT_PRIOR = 3, 5
MANY_FULL_RUNS = 5
WITHOUT_PRIOR = 1.9
"""Octaves: who believes the rate no better than this starts without a prior, and four runs were then stated three times too well."""
NEAREST, FARTHEST = 0.2, 3.2
"""Octaves between the best rate and what stands beside it: nearer is the same rate, farther says little."""

SLOPE_DOUBT = 1.28
"""Standard deviations of the slope: its central 80 %."""


def is_settled(observations: Observations, prior: SearchPrior) -> bool:
    """True when three full runs were made (five without a prior) and the best of them has a worse one below and above it.

    With five, a worse one below is enough: it says how steep the study is, and the search has looked where it expected more.
    """
    sides, number = open_sides(observations, prior), _num_full(observations)
    return number >= _fewest(prior) and (not sides or (sides == (1,) and number >= MANY_FULL_RUNS))


def is_surrounded(observations: Observations, prior: SearchPrior, *, is_short: bool = False) -> bool:
    """True when a study is settled and worse full runs stand on both sides of the best: it may end.

    Args:
        is_short: the study has few steps. Its seeds differ so much that fewer than five runs surround nothing: who went on to the
            sixth ended at 2.9 % in place of 4.1 % on 22 recorded fine-tunes.
    """
    fewest = MANY_FULL_RUNS if is_short else _fewest(prior)
    return _num_full(observations) >= fewest and not open_sides(observations, prior)


def _num_full(observations: Observations) -> int:
    """Full runs of the search's own: that of the usual default lies far off."""
    is_own = np.array([not trial.is_baseline for trial in observations.trials], dtype=bool)
    return int((is_own & (observations.points.length > -1e-6)).sum())


def _fewest(prior: SearchPrior) -> int:
    return FEWEST_FULL_RUNS if prior.learning_rate_sd < WITHOUT_PRIOR else FEWEST_WITHOUT_PRIOR


def open_sides(observations: Observations, prior: SearchPrior) -> tuple[int, ...]:
    """On which sides of the best full run no worse one stands: -1 at lower rates, 1 at higher ones; both without a result.

    Worse is what lies beyond the noise of one run. Rates are compared along their usual motion with the batch. A run at another
    batch size is beside the best one only if it is so for every likely slope of that motion. A diverged run counts as a worse one,
    on whichever side it is.
    """
    best = best_full(observations)
    if best is None:
        return (-1, 1)
    full = np.flatnonzero(observations.points.length > -1e-6)
    gaps = _along(observations, prior)[full] - _along(observations, prior)[best]
    doubt = SLOPE_DOUBT * prior.slope_sd * np.abs(observations.points.v[full] - observations.points.v[best])
    worse = observations.failed[full] | (observations.excess[full] > observations.excess[best] + prior.noise)
    near = worse & (np.abs(gaps) > NEAREST + doubt) & (np.abs(gaps) <= FARTHEST)
    return tuple(side for side in (-1, 1) if not (near & (side * gaps > 0)).any())


def best_full(observations: Observations) -> int | None:
    """Index of the best full run that gave a result."""
    full = np.flatnonzero((observations.points.length > -1e-6) & ~observations.failed)
    return int(full[observations.excess[full].argmin()]) if len(full) else None


def _along(observations: Observations, prior: SearchPrior) -> Array:
    return observations.points.x - prior.slope * observations.points.v
