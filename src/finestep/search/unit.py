"""The unit in which losses are compared: the search knows how bent a loss usually is, and some losses are far more bent.

A model that is still learning fast (a tiny one, a few hundred steps) loses tens of per cent where a large one loses
one. Seen in per cent, everything would look equally "far away". The left flank of the basin, where no run blows up,
says how steep the study is; losses are divided by that. A metric is turned into a loss on the way: its distance from
the best conceivable value.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from finestep.search.observations import Objective
from finestep.search.prior import SearchPrior
from finestep.trial import Trial

LARGEST_UNIT = 64.0
STEEP_NOISE = 8.0
"""A study that is steeper than usual is noisier too, even in its own unit, by its steepness and at most so many times: two seeds
of the shipped example differ by 12 %."""


def unit_of(trials: Sequence[Trial], objective: Objective, prior: SearchPrior) -> float:
    """How many times steeper than believed the losses fall towards the best rate, at least 1.

    At each length, a trial left of the best one by d octaves is expected to lie curvature / 2 x (d + 1)^2 above it, the
    best one being itself up to an octave off; the unit is the median of measured over expected.
    """
    ratios = []
    for fidelity in {trial.fidelity for trial in trials}:
        here = [
            (objective.log_loss(value), _along(trial, prior), math.log2(trial.recipe.effective_batch_size))
            for trial in trials
            if trial.fidelity == fidelity and (value := objective.value(trial)) is not None
        ]
        best = min(here, default=None)
        for loss, place, batch in here:
            gap = best[1] - place if best else 0.0
            if best and gap > 0.4:
                expected = 0.5 * prior.rate_curvature * (gap + 1) ** 2
                expected += 0.5 * prior.batch_curvature * (batch - best[2]) ** 2
                ratios.append((loss - best[0]) / expected)
    return min(max(statistics.median(ratios), 1.0), LARGEST_UNIT) if ratios else 1.0


def prior_in_units(prior: SearchPrior, unit: float) -> SearchPrior:
    """The prior for losses in this unit: its shape stays, its noise is that of a study so steep."""
    return prior.model_copy(update={"noise": min(unit, STEEP_NOISE) * prior.noise})


def in_units(trials: Sequence[Trial], objective: Objective, unit: float) -> list[Trial]:
    """The trials with the objective as a loss in this unit: a difference of `unit` per cent becomes one per cent."""
    return [_converted(trial, objective, unit) for trial in trials]


def _converted(trial: Trial, objective: Objective, unit: float) -> Trial:
    if trial.outcome is None or not trial.ranks:
        return trial
    value = objective.value(trial)
    loss = None if value is None else math.exp(objective.log_loss(value) / 100 / unit)
    return trial.model_copy(update={"outcome": trial.outcome.model_copy(update={"eval_loss": loss})})


def _along(trial: Trial, prior: SearchPrior) -> float:
    """Log rate with the batch's usual share taken out, octaves."""
    return math.log2(trial.recipe.learning_rate) - prior.slope * math.log2(trial.recipe.effective_batch_size)
