"""What the next trial is worth: expected improvement at full length, and knowledge gained per unit of cost. Pure."""

from __future__ import annotations

import numpy as np
from scipy.special import ndtr, ndtri

from finestep.search.space import Array

NODES = ndtri((np.arange(16) + 0.5) / 16)
"""Equally likely values of a standard normal."""


def capped_improvement(mean: Array, sd: Array, best: float | Array, *, cap: float) -> Array:
    """Expected fall below `best`, where a fall by more than the cap counts as the cap.

    A prior with heavy tails promises great falls far away, with little chance: without a cap they lead the search.
    """
    return expected_improvement(mean, sd, best) - expected_improvement(mean, sd, best - cap)


def expected_improvement(mean: Array, sd: Array, best: float | Array) -> Array:
    """Expected fall below `best` of normal variables."""
    sd = np.maximum(sd, 1e-9)
    score = (best - mean) / sd
    fall: Array = sd * (score * ndtr(score) + np.exp(-0.5 * score**2) / np.sqrt(2 * np.pi))
    return fall


def knowledge_gain(mean: Array, cross: Array, total_variance: Array, *, cap: float = np.inf) -> Array:
    """Expected fall of the smallest posterior mean over the targets after one noisy look at each probe.

    Args:
        mean: posterior mean of the targets, [T].
        cross: covariance between targets and probes, [T, J].
        total_variance: variance of the looks, noise included, [J].
        cap: a greater fall counts as this.
    """
    slope = cross / np.sqrt(total_variance)[None, :]
    after: Array = np.zeros(cross.shape[1])
    for node in NODES:
        after += np.maximum((mean[:, None] + slope * node).min(axis=0), mean.min() - cap)
    falls: Array = np.maximum(mean.min() - after / len(NODES), 0.0)
    return falls


def expected_regret(samples: Array, chosen: int) -> float:
    """Mean excess of the chosen target over the best one, over joint samples [S, T]."""
    return float((samples[:, chosen] - samples.min(axis=1)).mean())
