"""Belief: what the search expects of every rate at each batch size, as curves that can be drawn; pure, and it chooses nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from finestep.search.observations import SQUASH_FROM, Objective, Observations, observe
from finestep.search.prior import SearchPrior
from finestep.search.space import Array, Mask, SearchSpace
from finestep.trial import Trial

if TYPE_CHECKING:
    pass

NUM_SAMPLES = 256
BAND = (0.1, 0.9)
BESIDE = 1.05
"""Octaves beyond what was tried at a batch size (or twice or half of it) to which its curve is drawn: farther is the prior alone."""
FAR_EXCESS = 9.0
"""Squashed excess beyond which a curve only says "far away" and is not drawn."""


class BelievedPoint(BaseModel):
    """What one rate is expected to give at full length."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    learning_rate: float
    value: float = Field(description="Expected result, in the objective's own scale.")
    low: float = Field(description="10 % of the imagined surfaces lie below.")
    high: float = Field(description="10 % of the imagined surfaces lie above.")


class BelievedCurve(BaseModel):
    """The expected results of one batch size at full length, by rate."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    effective_batch_size: int
    points: tuple[BelievedPoint, ...]


def believed_curves(
    trials: Sequence[Trial],
    *,
    space: SearchSpace,
    prior: SearchPrior,
    objective: Objective,
    best_value: float,
    unit: float,
    seed: int,
) -> tuple[BelievedCurve, ...]:
    """A curve for each batch size; empty while no full run has a result, because nothing says how high the curve lies.

    Args:
        trials: as the search sees them, with their results as losses in units.
        objective: of the study, which turns a loss in units back into its own scale.
        best_value: the best full-length result in that scale.
        unit: how many per cent one unit of excess is.
    """
    observations = observe(trials, space, Objective())
    if not _has_full_result(observations):
        return ()
    from finestep.search.look import Look  # it loads the whole search, and a page needs only the values above

    look = Look(space, prior.within(space), observations)
    points, mean = look.candidates.points.take(look.full), look.mean[look.full]
    low, high = np.quantile(look.surfaces(count=NUM_SAMPLES, seed=seed), BAND, axis=0)
    usual = np.array([look.candidates.combination[index] for index in look.full])
    first = usual == _most_common(usual)

    def told(excess: float) -> float:
        return value_at(objective, best_value, unsquashed(excess) * unit)

    curves = []
    for batch in space.batch_sizes:
        near = _seen_near(observations, float(np.log2(batch)), points.x)
        here = np.flatnonzero((np.abs(points.v - np.log2(batch)) < 0.01) & first & near & (mean < FAR_EXCESS))
        order = here[np.argsort(points.x[here])]
        row = [
            BelievedPoint(
                learning_rate=float(2 ** points.x[i]), value=told(mean[i]), low=told(low[i]), high=told(high[i])
            )
            for i in order
        ]
        if len(row) > 1:
            curves.append(BelievedCurve(effective_batch_size=batch, points=tuple(row)))
    return tuple(curves)


def value_at(objective: Objective, best: float, percent: float) -> float:
    """The result that lies so many per cent above the best one, in the objective's own scale.

    >>> round(value_at(Objective(), 2.0, 10.0), 3)
    2.21
    """
    distance = objective.ceiling - best if objective.goal == "maximize" else best - objective.floor
    moved = distance * math.exp(min(percent / 100, 50.0))
    return objective.ceiling - moved if objective.goal == "maximize" else objective.floor + moved


def unsquashed(excess: float) -> float:
    """The excess behind a squashed one.

    >>> unsquashed(1.0), unsquashed(4.0), round(unsquashed(5.0), 2)
    (1.0, 4.0, 5.72)
    """
    return excess if excess < SQUASH_FROM else SQUASH_FROM + math.expm1(min(excess - SQUASH_FROM, 20.0))


def _seen_near(observations: Observations, v: float, x: Array) -> Mask:
    """Which rates lie between those tried at a batch size, or beside it, and a little beyond."""
    seen = observations.points
    tried = seen.x[np.abs(seen.v - v) < BESIDE] - 0.5 * (seen.v[np.abs(seen.v - v) < BESIDE] - v)
    if not len(tried):
        return np.zeros(len(x), dtype=bool)
    near: Mask = (x > tried.min() - BESIDE) & (x < tried.max() + BESIDE)
    return near


def _has_full_result(observations: Observations) -> bool:
    return bool(((observations.points.length > -1e-6) & ~observations.failed).any())


def _most_common(values: Array) -> int:
    found, counts = np.unique(values, return_counts=True)
    return int(found[counts.argmax()])
