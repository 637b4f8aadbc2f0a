"""Observations: the study's trials as the arrays that the surrogate reads; NaN never ranks."""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from finestep.search.space import Array, Index, Mask, SearchSpace
from finestep.trial import Trial

TEACHING_FAILURES = frozenset({"diverged"})
"""Failures that say something about the learning rate; running out of memory or crashing does not."""

SQUASH_FROM = 4.0
"""Per cent above the best beyond which a value only says "far away"."""

KL_EXPONENT = 1.5
"""KL from the base grows with about this power of the rate: 2.2 for small rates, 0.9 to 1.2 near the best (shipped model)."""

SMALLEST, LARGEST = 5e-324, sys.float_info.max
"""Where the logarithm of a double exists."""
FLOOR_ROOM = 10.0

DIVERGED_EXCESS = 6.0
"""What a diverged trial counts as, in squashed per cent."""


class Objective(BaseModel):
    """What is optimised: the validation loss, or a metric of the outcome."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    metric: str | None = Field(None, description="Name in `Outcome.metrics`; None = the validation loss.")
    goal: Literal["minimize", "maximize"] = "minimize"
    ceiling: float = Field(1.0, gt=0, description="Best conceivable value of a metric that is maximised.")
    floor: float = Field(
        0.0, le=0, description="What values to minimise lie above; below zero where results are (`floor_of`)."
    )

    def value(self, trial: Trial) -> float | None:
        """The trial's value, or None when it has no finite one or forgot more than the study allows."""
        if trial.outcome is None or not trial.is_choosable:
            return None
        value = trial.outcome.eval_loss if self.metric is None else trial.outcome.metrics.get(self.metric)
        return value if value is not None and math.isfinite(value) else None

    def unranked_words(self, trial: Trial) -> str:
        """Why a trial that ended does not rank by this objective; empty when it does, and when its own state says it."""
        if self.metric is None or trial.outcome is None or not trial.is_choosable:
            return ""
        value = trial.outcome.metrics.get(self.metric)
        if value is not None and math.isfinite(value):
            return ""
        return f"`{self.metric}` was not measured" if value is None else f"`{self.metric}` is {value}"

    def rank(self, value: float) -> float:
        """The value as something to minimise, otherwise as it is: what decides who is best."""
        return -value if self.goal == "maximize" else value

    def log_loss(self, value: float) -> float:
        """The value as something to minimise, on a scale where differences are relative, in per cent; for the surrogate alone.

        A logarithm rounds near values to one, so that it must never decide who is best.
        """
        badness = self.ceiling - value if self.goal == "maximize" else value - self.floor
        return 100 * math.log(min(max(badness, SMALLEST), LARGEST))

    def with_floor(self, trials: Sequence[Trial]) -> Objective:
        """The objective with the floor that these trials ask for."""
        return self.model_copy(update={"floor": floor_of(self, trials)}) if self.goal == "minimize" else self


def floor_of(objective: Objective, trials: Sequence[Trial]) -> float:
    """What results to minimise are measured from, so that their logarithm exists: 0 as long as all are above it.

    A loss below zero (a log-density, a negated score) has no natural zero. Then the floor lies below the best result by ten times
    the median distance from the best of the same length, so that the trial in the middle counts as ten per cent worse.
    """
    by_length: dict[float, list[float]] = {}
    for trial in trials:
        if (value := objective.value(trial)) is not None:
            by_length.setdefault(trial.fidelity, []).append(value)
    lowest = min((min(values) for values in by_length.values()), default=1.0)
    if lowest > 0:
        return 0.0
    gaps = [value - min(values) for values in by_length.values() for value in values if value > min(values)]
    room = FLOOR_ROOM * statistics.median(gaps) if gaps else max(abs(lowest), 1.0)
    return min(max(lowest - min(room, LARGEST / 4), -LARGEST / 2), 0.0)


@dataclass(frozen=True)
class Points:
    """Places in the space. `x` is log2 learning rate, `v` log2 batch size, `length` log2 fidelity, `extra` [n, E]."""

    x: Array
    v: Array
    length: Array
    extra: Array

    def __len__(self) -> int:
        return len(self.x)

    def take(self, index: Index) -> Points:
        return Points(self.x[index], self.v[index], self.length[index], self.extra[index])

    def is_at(self, log_rate: float, log_batch: float) -> Mask:
        """Which of them have this learning rate and batch size, at any length."""
        here: Mask = (np.abs(self.x - log_rate) < 0.05) & (np.abs(self.v - log_batch) < 0.05)
        return here


@dataclass(frozen=True)
class Observations:
    """Finished trials that teach: where, what (squashed per cent above the best of the same fidelity), how trusted."""

    points: Points
    excess: Array
    """Squashed per cent above the best finished trial of the same fidelity."""
    failed: Mask
    """True where the trial diverged, or forgot more than the study allows."""
    limit_place: Array
    """Log2 rate at which the trial would have ended on the study's limit of forgetting; NaN: no limit, or not measured."""
    trials: tuple[Trial, ...]
    pending: Points
    """Where trials are running."""
    silent: Points
    """Where trials failed without teaching (out of memory, crash): not proposed again."""
    too_large: float = math.inf
    """Log2 of the smallest batch size for which memory was too small: neither it nor a larger one is proposed again."""

    def __len__(self) -> int:
        return len(self.points)

    def rules_out(self, batch: int) -> bool:
        """True for a batch size that memory does not hold."""
        return math.log2(batch) > self.too_large - 1e-6


def observe(trials: Sequence[Trial], space: SearchSpace, objective: Objective) -> Observations:
    """Sort trials into finished ones that teach, and running ones."""
    kept = [trial for trial in trials if objective.value(trial) is not None or _teaches(trial)]
    running = [trial for trial in trials if trial.state == "running"]
    taught = {id(trial) for trial in kept}
    silent = [trial for trial in trials if id(trial) not in taught and trial.state != "running"]
    failed = np.array([objective.value(trial) is None for trial in kept], dtype=bool)
    points = points_of(kept, space)
    excess = _excess(kept, failed, points, objective)
    limits = points.x + np.array([_octaves_to_limit(trial) for trial in kept], dtype=float)
    return Observations(
        points,
        excess,
        failed,
        limits,
        tuple(kept),
        points_of(running, space),
        points_of(silent, space),
        too_large=math.log2(smallest) if (smallest := too_large_batch(trials)) is not None else math.inf,
    )


def too_large_batch(trials: Sequence[Trial]) -> int | None:
    """The smallest batch size at which a trial ran out of memory; None when none did.

    Whoever can take fewer rows a pass has done so before a trial ends like that, so that a larger batch cannot help.
    """
    return min((one.recipe.effective_batch_size for one in trials if one.state == "out_of_memory"), default=None)


def _octaves_to_limit(trial: Trial) -> float:
    """How far the rate is below the one that ends on the limit of forgetting (negative: above), from the KL that was measured."""
    kl, limit = (
        (trial.outcome.forgetting.kl_at_end, trial.outcome.forgetting.kl_limit) if trial.outcome else (None, None)
    )
    if kl is None or limit is None or not 0 < kl < math.inf:
        return math.nan
    return math.log2(limit / kl) / KL_EXPONENT


def _teaches(trial: Trial) -> bool:
    """A trial that forgot too much teaches as a diverged one does: a smaller learning rate is needed, and its loss does not count."""
    forgot = trial.outcome is not None and trial.outcome.forgets_too_much
    return trial.state in TEACHING_FAILURES or trial.ranks or forgot


def points_of(trials: Sequence[Trial], space: SearchSpace) -> Points:
    """The places of some trials."""
    rows = [
        (math.log2(t.recipe.learning_rate), math.log2(t.recipe.effective_batch_size), math.log2(t.fidelity))
        for t in trials
    ]
    table = np.array(rows, dtype=float).reshape(-1, 3)
    extra = np.array([[d.coordinate(field_of(t, d.name)) for d in space.extras] for t in trials], dtype=float)
    return Points(table[:, 0], table[:, 1], table[:, 2], extra.reshape(len(trials), len(space.extras)))


def field_of(trial: Trial, name: str) -> object:
    """A field of the trial's recipe by dotted name."""
    return trial.recipe.field(name)


def _excess(trials: Sequence[Trial], failed: Mask, points: Points, objective: Objective) -> Array:
    excess = np.full(len(trials), DIVERGED_EXCESS)
    values = np.array(
        [np.nan if f else objective.log_loss(objective.value(t) or 0.0) for t, f in zip(trials, failed, strict=True)]
    )
    for length in np.unique(points.length):
        here = (points.length == length) & ~failed
        if here.any():
            excess[here] = squash(values[here] - values[here].min())
    return excess


def squash(excess: Array) -> Array:
    """Keep small excess, take the logarithm of large: far is far.

    >>> squash(np.array([1.0, 4.0])).tolist()
    [1.0, 4.0]
    """
    return np.where(excess < SQUASH_FROM, excess, SQUASH_FROM + np.log1p(np.maximum(excess - SQUASH_FROM, 0)))
