"""Whether a study has earned a per cent: its best full run stands between worse ones, so that the basin was seen, not believed.

After one or two full runs everything that a search says of the loss is its prior: on recorded fine-tunes the stated regret was
then a tenth of the true one and less. With a worse full run at a lower rate and one at a higher rate it was right to
within a factor of 1.5 (docs/search.md).
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


def is_settled(observations: Observations, prior: SearchPrior) -> bool:
    """True when three full runs were made (five without a prior) and the best of them has a worse one below and above it.

    With five, a worse one below is enough: it says how steep the study is, and the search has looked where it expected more.
    """
    full = observations.points.length > -1e-6
    fewest = FEWEST_FULL_RUNS if prior.learning_rate_sd < WITHOUT_PRIOR else FEWEST_WITHOUT_PRIOR
    sides, number = open_sides(observations, prior), int(full.sum())
    return number >= fewest and (not sides or (sides == (1,) and number >= MANY_FULL_RUNS))


def open_sides(observations: Observations, prior: SearchPrior) -> tuple[int, ...]:
    """On which sides of the best full run no worse one stands: -1 at lower rates, 1 at higher ones; both without a result.

    Rates are compared along their usual motion with the batch. A diverged run counts as a worse one, on whichever side it is.
    """
    best = best_full(observations)
    if best is None:
        return (-1, 1)
    full = np.flatnonzero(observations.points.length > -1e-6)
    gaps = _along(observations, prior)[full] - _along(observations, prior)[best]
    worse = observations.failed[full] | (observations.excess[full] > observations.excess[best] + 1e-9)
    near = worse & (np.abs(gaps) > NEAREST) & (np.abs(gaps) <= FARTHEST)
    return tuple(side for side in (-1, 1) if not (near & (side * gaps > 0)).any())


def best_full(observations: Observations) -> int | None:
    """Index of the best full run that gave a result."""
    full = np.flatnonzero((observations.points.length > -1e-6) & ~observations.failed)
    return int(full[observations.excess[full].argmin()]) if len(full) else None


def _along(observations: Observations, prior: SearchPrior) -> Array:
    return observations.points.x - prior.slope * observations.points.v
