"""The cliff: the probability that a run diverges, rising with the learning rate; it never looks at losses."""

from __future__ import annotations

import numpy as np
from scipy.special import expit

from finestep.search.observations import Array, Observations, Points
from finestep.search.prior import SearchPrior

STEEPNESS = 4.3
"""Of the logistic, per octave: P(diverged) = sigmoid((x - 0.84) / 0.07) in decades, 87 cells of the LoRA sweep, widened
fourfold because batch size, warmup and data move the border."""
GRID = np.linspace(-4.0, 4.0, 81)


def divergence_probability(observations: Observations, prior: SearchPrior, points: Points) -> Array:
    """Probability of divergence at each point, averaged over where the cliff may be.

    The cliff is a line in log learning rate over log batch size (with the prior's slope); its place has a normal prior
    and is updated by which finished trials diverged.
    """
    centre = np.log2(prior.learning_rate) + prior.cliff
    spread = np.hypot(prior.learning_rate_sd, prior.cliff_sd)
    places = centre + spread * GRID
    log_weight = -0.5 * GRID**2
    if len(observations):
        chance = expit(STEEPNESS * (_along(observations.points, prior)[:, None] - places[None, :]))
        chance = np.clip(chance, 1e-4, 1 - 1e-4)
        log_weight = log_weight + np.where(observations.failed[:, None], np.log(chance), np.log1p(-chance)).sum(axis=0)
    weight = np.exp(log_weight - log_weight.max())
    return expit(STEEPNESS * (_along(points, prior)[:, None] - places[None, :])) @ (weight / weight.sum())


def _along(points: Points, prior: SearchPrior) -> Array:
    return points.x - prior.slope * (points.v - np.log2(prior.batch_size)) - prior.rate_exponent * points.length
