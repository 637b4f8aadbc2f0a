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
from dataclasses import dataclass

from finestep.search.observations import Objective
from finestep.search.prior import SearchPrior
from finestep.trial import Trial

LARGEST_UNIT = 64.0
MOST_LOG = 709.0
"""The exponential of more is no double."""
BESIDE = 1.0
"""Octaves: nearer than this a trial at another batch size did not blow up for its rate."""
STEEP_NOISE = 4.0
"""A study that is steeper than usual is noisier too, even in its own unit, by its steepness and at most so many times: two seeds
of the shipped example differ by 10 to 12 % at a unit of about 57, of MiniLM by 6 % at about 20: four and six times the usual noise."""

SHORT_STUDY_NOISE = 7.0
"""A study of few steps is noisy however steep it is: on 23 recorded ones the standard deviation of two seeds was 6.6 times the usual
noise in their own unit (the median; half of them between 4 and 10)."""


def unit_of(trials: Sequence[Trial], objective: Objective, prior: SearchPrior) -> float:
    """How many times steeper than believed the losses fall towards the best rate, at least 1.

    At each length, a trial left of the best one by d octaves is expected to lie curvature / 2 x (d + 1)^2 above it, the
    best one being itself up to an octave off; the unit is the median of measured over expected. Without such a trial, one near the
    best rate at another batch size says it, if less well.
    """
    ratios, beside = [], []
    for fidelity in {trial.fidelity for trial in trials}:
        here = [
            (objective.log_loss(value), _along(trial, prior), math.log2(trial.recipe.effective_batch_size))
            for trial in trials
            if trial.fidelity == fidelity and (value := objective.value(trial)) is not None
        ]
        best = min(here, default=None)
        # Only trials to the left of the best one count: to its right a loss can rise steeply because the run nearly broke,
        # which says nothing about how steep the bowl is.
        for loss, place, batch in here:
            gap = best[1] - place if best else 0.0
            if best and gap > 0.4:
                expected = 0.5 * prior.bowl.rate_curvature * (gap + 1) ** 2
                expected += 0.5 * prior.bowl.batch_curvature * (batch - best[2]) ** 2
                ratios.append((loss - best[0]) / expected)
            elif best and abs(gap) <= BESIDE and batch != best[2]:
                expected = 0.5 * prior.bowl.rate_curvature * (abs(gap) + 1) ** 2
                expected += 0.5 * prior.bowl.batch_curvature * (abs(batch - best[2]) + 1) ** 2
                beside.append((loss - best[0]) / expected)
    found = ratios or beside
    return min(max(statistics.median(found), 1.0), LARGEST_UNIT) if found else 1.0


@dataclass(frozen=True)
class Reading:
    """How results become losses that the search can compare, each in its own unit: a difference of `unit` per cent counts as one.

    Of a metric that is maximised a short run shows its validation loss instead: after an eighth of a run an exact match is
    still zero and an accuracy near chance, and a rate that is best for them then is not best in the end.
    """

    objective: Objective
    unit: float
    short: Objective
    short_unit: float

    @classmethod
    def of(cls, trials: Sequence[Trial], objective: Objective, prior: SearchPrior) -> Reading:
        """The units that the trials ask for."""
        if objective.metric is None or objective.goal == "minimize":
            unit = unit_of(trials, objective, prior)
            return cls(objective, unit, objective, unit)
        full, short = ([t for t in trials if (t.fidelity == 1.0) == whole] for whole in (True, False))
        losses = Objective().with_floor(trials)
        return cls(objective, unit_of(full, objective, prior), losses, unit_of(short, losses, prior))

    def losses(self, trials: Sequence[Trial]) -> list[Trial]:
        """The trials with what is optimised, or stands for it, as their loss."""
        return [self._as_loss(trial) for trial in trials]

    def _as_loss(self, trial: Trial) -> Trial:
        if trial.outcome is None or not trial.ranks:
            return trial
        objective, unit = (self.objective, self.unit) if trial.fidelity == 1.0 else (self.short, self.short_unit)
        value = objective.value(trial)
        loss = None if value is None else math.exp(min(objective.log_loss(value) / 100 / unit, MOST_LOG))
        return trial.model_copy(update={"outcome": trial.outcome.model_copy(update={"eval_loss": loss})})

    def prior(self, prior: SearchPrior, *, metric_noise: float | None = None, is_short: bool = False) -> SearchPrior:
        """The prior for these losses: its shape stays, its noise is that of a study so steep.

        Args:
            is_short: the study has few steps.
            metric_noise: repeat noise of the objective where it is known, % of its distance from the ceiling.
        """
        steepness = (min(unit, STEEP_NOISE) for unit in (self.unit, self.short_unit))
        noise, short = (prior.noise * max(times, SHORT_STUDY_NOISE if is_short else 1.0) for times in steepness)
        noise = max(noise, (metric_noise or 0.0) / self.unit)
        share = 1.0 if self.short == self.objective else short / noise
        return prior.model_copy(update={"noise": noise, "short_noise_share": share})


def _along(trial: Trial, prior: SearchPrior) -> float:
    """Log rate with the batch's usual share taken out, octaves."""
    return math.log2(trial.recipe.learning_rate) - prior.slope * math.log2(trial.recipe.effective_batch_size)
