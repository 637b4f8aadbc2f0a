"""Look: one view of a study, candidates and their prediction included; it can pretend that a trial has been measured.

Pretending changes variances only, never means, so that several lanes are planned without inventing results.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import solve_triangular

from finestep.search.acquisition import capped_improvement, knowledge_gain
from finestep.search.divergence import divergence_probability
from finestep.search.observations import Observations, Points
from finestep.search.prior import SearchPrior
from finestep.search.space import Array, Dimension, Index, Mask, SearchSpace
from finestep.search.surrogate import Model, Posterior

MAX_TARGETS = 240
"""Full-length candidates that are weighed; of more, the most promising are kept."""
MAX_COMBINATIONS = 36
"""Combinations of further fields that are weighed at each learning rate and batch size."""
CAP = 1.5
"""An improvement by more than this many curvatures (the loss of a rate 1.7 octaves off) counts as so much."""
DIVERGED_PENALTY = 3.0
"""Per cent added to a prediction for certain divergence."""


@dataclass(frozen=True)
class Candidates:
    """Places that may be proposed, at every fidelity, with the values behind them."""

    points: Points
    combination: Index
    """Index into `combinations` of each point."""
    combinations: tuple[tuple[object, ...], ...]
    cost: Array
    """Of each point, in full runs."""


def candidates_of(space: SearchSpace) -> Candidates:
    """Every learning rate x batch size x combination of further fields, at full length."""
    combinations = combinations_of(space.extras)
    rates = np.log2(np.array(space.learning_rates))
    batches = np.log2(np.array(space.batch_sizes, dtype=float))
    x, v, which = (axis.ravel() for axis in np.meshgrid(rates, batches, np.arange(len(combinations)), indexing="ij"))
    places = [[d.coordinate(value) for d, value in zip(space.extras, c, strict=True)] for c in combinations]
    extra = np.array(places, dtype=float).reshape(len(combinations), len(space.extras))[which]
    cost = np.array([space.full_run_cost(combination) for combination in combinations])[which]
    return Candidates(Points(x, v, np.zeros(len(x)), extra), which, combinations, cost)


def combinations_of(extras: tuple[Dimension, ...]) -> tuple[tuple[object, ...], ...]:
    """All combinations when they are few; else the default, one change at a time, and an even sample of the rest."""
    start = tuple(dimension.start for dimension in extras)
    every = list(itertools.islice(itertools.product(*(dimension.values for dimension in extras)), 4096))
    if len(every) <= MAX_COMBINATIONS:
        return tuple(every)
    single = [c for c in every if sum(a != b for a, b in zip(c, start, strict=True)) <= 1]
    rest = [c for c in every if c not in single]
    step = max(1, len(rest) // max(1, MAX_COMBINATIONS - len(single)))
    return (*single, *rest[::step])


def at_lengths(candidates: Candidates, fidelities: tuple[float, ...]) -> Candidates:
    """The same places at every fidelity, full length first."""
    lengths = np.log2(np.array(fidelities))[::-1]
    count = len(candidates.points)
    index = np.tile(np.arange(count), len(lengths))
    points = candidates.points.take(index)
    length = np.repeat(lengths, count)
    moved = Points(points.x, points.v, length, points.extra)
    return Candidates(
        moved, candidates.combination[index], candidates.combinations, candidates.cost[index] * 2.0**length
    )


def shortlist(
    candidates: Candidates,
    model: Model,
    posterior: Posterior,
    danger: Array,
    *,
    wished: Sequence[tuple[float, float]] = (),
) -> Candidates:
    """The most promising places when there are many: lowest mean, and lowest by one standard deviation, half each.

    Args:
        wished: log2 of learning rates and batch sizes that are kept in any case.
    """
    if len(candidates.points) <= MAX_TARGETS:
        return candidates
    prediction = posterior.at(candidates.points)
    mean = prediction.mean + DIVERGED_PENALTY * danger
    orders = (np.argsort(values, kind="stable") for values in (mean, mean - np.sqrt(prediction.variance)))
    chosen = [order[: MAX_TARGETS // 2] for order in orders]
    kept = [np.flatnonzero(candidates.points.is_at(*place)) for place in wished]
    keep = np.unique(np.concatenate([*chosen, *kept]))
    return Candidates(
        candidates.points.take(keep), candidates.combination[keep], candidates.combinations, candidates.cost[keep]
    )


class Look:
    """The prediction at all candidates, and what is already measured, running or pretended."""

    def __init__(
        self,
        space: SearchSpace,
        prior: SearchPrior,
        observations: Observations,
        *,
        wished: Sequence[tuple[float, float]] = (),
    ):
        self.observations = observations
        self.cap = CAP * prior.bowl.rate_curvature
        lengths = np.concatenate([np.log2(np.array(space.fidelities)), observations.points.length])
        model = Model(prior, space.extras, lengths)
        self.posterior = Posterior(model, observations)
        places = candidates_of(space)
        danger = divergence_probability(observations, prior, places.points)
        places = shortlist(places, model, self.posterior, danger, wished=wished)
        self.candidates = at_lengths(places, space.fidelities)
        self.full = np.arange(len(places.points))
        self.points = _joined(self.candidates.points, observations.pending)
        self._prediction = self.posterior.at(self.points)
        self.danger = divergence_probability(observations, prior, self.points)
        self.mean = self._prediction.mean + DIVERGED_PENALTY * self.danger
        self.noise = self._noise()
        self.cross = self._prediction.covariance(self.full, np.arange(len(self.points)))
        self.variance = self._prediction.variance
        # Each pretended run lowers the covariance by the outer product of one vector (the update of a Gaussian after one look),
        # so the vectors are kept instead of a covariance of all points.
        self._pretended: list[Array] = []
        self.closed = self._closed(space)
        self.opened = _lengths(observations.points.take(np.flatnonzero(~observations.failed)))
        self._pretend_pending()

    def _noise(self) -> Array:
        """Variance of a look at each point: grows with the predicted excess."""
        excess = np.zeros(len(self.points))
        for length in np.unique(self.points.length):
            here = self.points.length == length
            excess[here] = self.mean[here] - self.mean[here].min()
        each = self.posterior.model.noise_variance(self.points, excess, self.posterior.particles)
        variance: Array = self.posterior.weights @ each
        return variance

    def _closed(self, space: SearchSpace) -> Mask:
        """True for candidates that were measured or are running, and for batch sizes that memory does not hold."""
        closed = self.candidates.points.v > self.observations.too_large - 1e-6
        for points in (self.observations.points, self.observations.pending, self.observations.silent):
            for index in range(len(points)):
                closed |= _same_place(self.candidates.points, points, index)
        return closed

    def _pretend_pending(self) -> None:
        """Pretend that all running trials have been measured, at once: rows of a Cholesky factor are what one after the other gives."""
        every = np.arange(len(self.points))
        pending = every[len(self.candidates.points) :]
        if not len(pending):
            return
        rows = self._prediction.covariance(pending, every)
        root = np.linalg.cholesky(rows[:, pending] + np.diag(self.noise[pending] + 1e-10))
        drops = solve_triangular(root, rows, lower=True)
        self._pretended = list(drops)
        self.cross = self.cross - drops[:, self.full].T @ drops
        self.variance = np.maximum(self.variance - (drops**2).sum(axis=0), 1e-10)
        self.opened = self.opened | _lengths(self.observations.pending)

    def pretend(self, index: int) -> None:
        """Condition on one more look at a point; variances fall, means stay."""
        drop = self._drop(index)
        self._pretended.append(drop)
        self.cross, self.variance = self._after(drop)
        self.opened = self.opened | _lengths(self.points.take(np.array([index])))
        if index < len(self.closed):
            self.closed[index] = True

    def _drop(self, index: int) -> Array:
        row = self._prediction.covariance(np.array([index]), np.arange(len(self.points)))[0]
        if self._pretended:
            earlier = np.stack(self._pretended)
            row = row - earlier[:, index] @ earlier
        drop: Array = row / np.sqrt(max(row[index], 1e-10) + self.noise[index])
        return drop

    def _after(self, drop: Array) -> tuple[Array, Array]:
        cross = self.cross - drop[self.full][:, None] * drop[None, :]
        return cross, np.maximum(self.variance - drop**2, 1e-10)

    def surfaces(self, *, count: int, seed: int) -> Array:
        """Joint samples of the surface at the full-length candidates, [count, T]: what runs would give in the mean of seeds."""
        return self._prediction.samples(self.full, count=count, seed=seed) + DIVERGED_PENALTY * self.danger[self.full]

    def measured(self, surfaces: Array, *, seed: int) -> Array:
        """What one full run a candidate would measure on those surfaces: the noise of repeats is added."""
        noise = np.sqrt(self.posterior.weights @ self.posterior.particles.noise**2)
        measured: Array = surfaces + noise * np.random.default_rng([seed, 1]).standard_normal(surfaces.shape)
        return measured

    def best(self, length: float) -> int:
        """The best predicted candidate of one length that has not been measured (any, if all were)."""
        here = np.flatnonzero(self.candidates.points.length == length)
        free = here[~self.closed[here]]
        here = free if len(free) else here
        return int(here[self.mean[here].argmin()])

    def knowledge_rates(self) -> Array:
        """Knowledge gained at full length per unit of cost, for each candidate, % per full run.

        The first look at a new length teaches only its level; it is priced as a pair with a look at its best point.
        """
        rates = np.zeros(len(self.candidates.points))
        for length in np.unique(self.candidates.points.length):
            here = np.flatnonzero(self.candidates.points.length == length)
            # The first run of a length teaches mostly how far losses of that length lie above full length, which no full run
            # needs to know. So it is priced as a pair: with a run at its best point paid for already.
            new = round(float(length), 6) not in self.opened
            cross, variance = self._after(self._drop(self.best(length))) if new else (self.cross, self.variance)
            gain = knowledge_gain(self.mean[self.full], cross[:, here], variance[here] + self.noise[here], cap=self.cap)
            rates[here] = gain * (1 - self.danger[here]) / (self.candidates.cost[here] * (2 if new else 1))
        return np.where(self.closed, 0.0, rates)

    def improvements(self) -> Array:
        """Expected improvement of each full-length candidate over the best one measured, %; empty without one."""
        done = np.flatnonzero(self.closed[self.full])
        if not len(done):
            return np.zeros(0)
        best = done[self.mean[done].argmin()]
        between = self.variance[self.full] + self.variance[best] - 2 * self.cross[:, best]
        gain = capped_improvement(
            self.mean[self.full], np.sqrt(np.maximum(between, 1e-10)), self.mean[best], cap=self.cap
        )
        return np.where(self.closed[self.full], 0.0, gain * (1 - self.danger[self.full]))


def _joined(a: Points, b: Points) -> Points:
    names = ("x", "v", "length", "extra")
    return Points(*(np.concatenate([getattr(a, name), getattr(b, name)]) for name in names))


def _lengths(points: Points) -> frozenset[float]:
    return frozenset(round(float(length), 6) for length in points.length)


def _same_place(candidates: Points, points: Points, index: int) -> Mask:
    near = (np.abs(candidates.x - points.x[index]) < 0.05) & (np.abs(candidates.v - points.v[index]) < 0.05)
    near &= np.abs(candidates.length - points.length[index]) < 1e-3
    same: Mask = near & (np.abs(candidates.extra - points.extra[index]) < 0.02).all(axis=1)
    return same
