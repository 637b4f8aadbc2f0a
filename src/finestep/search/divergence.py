"""The cliff: the probability that a run diverges, or forgets more than allowed, rising with the rate; it never looks at losses."""

from __future__ import annotations

import numpy as np
from scipy.special import expit, log_ndtr

from finestep.search.observations import Observations, Points
from finestep.search.prior import SearchPrior
from finestep.search.space import Array

STEEPNESS = 4.3
"""Of the logistic, per octave: P(diverged) = sigmoid((x - 0.84) / 0.07) in decades, 87 cells of the LoRA sweep, widened
fourfold because batch size, warmup and data move the border."""
GRID = np.linspace(-4.0, 4.0, 81)
LIMIT_AN_OCTAVE_OF_LENGTH = 0.8
"""Octaves that the rate on the limit of forgetting falls when the run is twice as long (shipped model, a quarter against the whole)."""
LIMIT_SD, LIMIT_SD_AN_OCTAVE, LIMIT_SD_A_LENGTH = 0.3, 0.4, 0.2
"""Octaves that the place of the limit, read off one KL, may be wrong by: always, for each octave that it is away, and for each
halving of the run."""


def divergence_probability(observations: Observations, prior: SearchPrior, points: Points) -> Array:
    """Probability of divergence at each point, averaged over where the cliff may be.

    The cliff is a line in log learning rate over log batch size (with the prior's slope); its place has a normal prior
    and is updated by which finished trials diverged. Where forgetting has a limit, every KL that was measured says where the
    cliff lies at most.
    """
    centre = np.log2(prior.learning_rate) + prior.cliff
    spread = np.hypot(prior.learning_rate_sd, prior.cliff_sd)
    grid = _reaching(observations, prior, (centre, spread))
    places = centre + spread * grid
    log_weight = -0.5 * grid**2
    if len(observations):
        chance = expit(STEEPNESS * (_along(observations.points, prior)[:, None] - places[None, :]))
        chance = np.clip(chance, 1e-4, 1 - 1e-4)
        logs = np.where(observations.failed[:, None], np.log(chance), np.log1p(-chance))
        is_short_and_within = (
            np.isfinite(observations.limit_place) & ~observations.failed & (observations.points.length < 0)
        )
        # A short run within the limit says little about a long one; its KL says more, below.
        log_weight = log_weight + logs[~is_short_and_within].sum(axis=0)
        log_weight = log_weight + _below_the_limit(observations, prior, places)
    weight = np.exp(log_weight - log_weight.max())
    chances: Array = expit(STEEPNESS * (_along(points, prior)[:, None] - places[None, :])) @ (weight / weight.sum())
    return chances


def _reaching(observations: Observations, prior: SearchPrior, cliff: tuple[float, float]) -> Array:
    """The grid, drawn out to the left when the limit of forgetting lies there."""
    known = np.isfinite(observations.limit_place)
    if not known.any():
        return GRID
    lowest = (_limits(observations, prior)[known].min() - 2 - cliff[0]) / cliff[1]
    return np.linspace(min(lowest, GRID[0]), GRID[-1], 2 * len(GRID))


def _below_the_limit(observations: Observations, prior: SearchPrior, places: Array) -> Array:
    """Log-likelihood of a cliff at each of `places`, given the measured KL.

    A run that forgets more than the limit counts as fallen off the cliff. So the cliff cannot lie at a higher rate than the one at
    which the KL reaches the limit, and that rate is extrapolated from the KL of each run.
    """
    known = np.isfinite(observations.limit_place)
    limits = _limits(observations, prior)[known]
    away = np.abs(observations.limit_place - observations.points.x)[known]
    sd = LIMIT_SD + LIMIT_SD_AN_OCTAVE * away + LIMIT_SD_A_LENGTH * np.abs(observations.points.length[known])
    log_weight: Array = log_ndtr((limits[:, None] - places[None, :]) / sd[:, None]).sum(axis=0)
    return log_weight


def _limits(observations: Observations, prior: SearchPrior) -> Array:
    """Where the limit is reached, as the cliff is counted."""
    further = (LIMIT_AN_OCTAVE_OF_LENGTH + prior.drift.rate_exponent) * observations.points.length
    return _along(observations.points, prior) + observations.limit_place - observations.points.x + further


def _along(points: Points, prior: SearchPrior) -> Array:
    place: Array = (
        points.x - prior.slope * (points.v - np.log2(prior.batch_size)) - prior.drift.rate_exponent * points.length
    )
    return place
