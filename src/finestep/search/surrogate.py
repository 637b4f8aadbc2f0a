"""The surrogate: a bowl over log learning rate and log batch size whose centre moves with length, plus a small GP.

Notation (P particles, n observations, m points, F features): a particle fixes the few nonlinear numbers (the two
curvatures, the slope, raggedness, noise, trust in the centre); given it, the centre, its motion with length, a level
per fidelity and corrections of the curvature are linear and Gaussian, so their posterior and the marginal likelihood
are exact. Particles are a fixed quasi-random set, weighed by that likelihood. It never reads a trial or a file.

    w = x - slope * v,   z = (w, v) - prior centre - prior motion * log2(fidelity) - c - g * log2(fidelity) - walk(fidelity)
    excess(z) = a_w h(z_w) + 1/2 a_v z_v^2 + level_fidelity + ragged(z) + noise

where a are the curvatures, c is how far the prior centre is off, g how far its motion is off, walk a random walk back
from the full length (so that two short lengths do not fix the motion to the full one), and h is a bowl that is linear
far to the left and steep to the right. The excess is linear in c, g and walk about their estimate, which is found by a
few Gauss-Newton steps; local corrections of the shape then sit where the optimum is, not where the prior had it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.linalg.lapack import dtrtri
from scipy.special import ndtri
from scipy.stats import qmc

from finestep.search.observations import SQUASH_FROM, Observations, Points
from finestep.search.prior import DISTRUST, SearchPrior
from finestep.search.space import Array, Dimension, Index

NUM_PARTICLES = 128
NUM_KEPT = 10
"""Particles used for prediction: the heaviest."""
MANY = 40
"""Beyond so many trials the surface itself is known, and a quarter of the particles is enough."""
LEVEL_SD = 8.0
"""Spread of the unknown floor of the bowl below the best seen, per cent."""
FORM_ERROR = 0.12
"""Share of the excess by which a bowl is the wrong form, so that far points count for little."""
FAR_ERROR = 0.6
"""The same for the squashed part of an excess."""
LEFT_ARM, LEFT_ARM_SPREAD, RIGHT_RISE = 1.2, 0.5, 0.3
"""h(z) = arm^2 (sqrt(1 + (z / arm)^2) - 1) to the left, z^2 / 2 (1 + RIGHT_RISE z) to the right (octaves): excess at a
quarter, half, double and four times the best rate like 1.1 : 0.5 : 0.6 : 3 (LoRA sweep, medians); the arm is uncertain
(log-normal spread), because some surfaces stay quadratic far to the left."""
NUM_STEPS, REACH = 3, 7.0
"""Gauss-Newton steps towards the centre, and how far it may lie from the prior's, octaves."""
BEND_SD, TWIST_SD, BEND_LENGTH_SD = 0.25, 0.2, 0.12
"""Local corrections of the curvature, of the coupling, and of the curvature per octave of length (shares; on the project's own
fine-tuning surfaces the logarithm of the curvature grows by 0.08, 0.33 and 0.35 an octave)."""
RAGGED_RATE, RAGGED_BATCH, RAGGED_LENGTH = 2.0, 2.5, 3.0
"""Length scales of the departure from the bowl, octaves."""
OWN_RAGGED = 0.5
"""Share of the raggedness (in amplitude) that each fidelity has for itself."""
EXTRA_SD = 0.6
"""An ordered field is expected to cost its effect at a full range from its default; spread of tilt and bend (shares)."""


@dataclass(frozen=True)
class Particles:
    """Values of the nonlinear numbers, each [P]."""

    rate_curvature: Array
    batch_curvature: Array
    slope: Array
    raggedness: Array
    noise: Array
    trust: Array
    drift_trust: Array
    left_arm: Array

    def take(self, index: Index) -> Particles:
        return Particles(*(getattr(self, name)[index] for name in self.__dataclass_fields__))


@lru_cache(maxsize=8)
def particles_of(prior: SearchPrior, count: int = NUM_PARTICLES) -> Particles:
    """A fixed quasi-random set from the prior; the same for every seed, so that only data move the answer."""
    uniform = qmc.Sobol(8, scramble=True, seed=0).random(count)
    normal = ndtri(np.clip(uniform, 1e-4, 1 - 1e-4)).T
    return Particles(
        rate_curvature=prior.bowl.rate_curvature * np.exp(prior.bowl.rate_curvature_spread * normal[0]),
        batch_curvature=prior.bowl.batch_curvature * np.exp(prior.bowl.batch_curvature_spread * normal[1]),
        slope=prior.slope + prior.slope_sd * normal[2],
        raggedness=prior.raggedness * np.exp(0.5 * normal[3]),
        noise=prior.noise * np.exp(0.5 * normal[4]),
        trust=_distrust(uniform[:, 5]),
        drift_trust=_distrust(uniform[:, 6]),
        left_arm=LEFT_ARM * np.exp(LEFT_ARM_SPREAD * normal[7]),
    )


def _distrust(uniform: Array) -> Array:
    times, shares = zip(*DISTRUST, strict=True)
    return np.array(times)[np.minimum(np.searchsorted(np.cumsum(shares), uniform), len(times) - 1)]


@dataclass(frozen=True)
class Shift:
    """Estimates about which the excess is linear: coefficients of the motion, rate and batch in turn, [2 M, P], octaves."""

    values: Array

    def take(self, index: Index) -> Shift:
        return Shift(self.values[:, index])

    def along(self, axis: int, motion: Array) -> Array:
        """The shift along one axis (0 rate, 1 batch) where the motion has these terms [M, m]: [P, m]."""
        return self.values[axis::2].T @ motion


def bowl(z: Array, arm: Array | float = LEFT_ARM) -> tuple[Array, Array]:
    """The excess along the learning rate in units of the curvature, and its slope.

    >>> [round(float(x), 2) for x in bowl(np.array([-2.0, -1.0, 0.0, 1.0, 2.0]))[0]]
    [1.36, 0.43, 0.0, 0.65, 3.2]
    """
    root = np.sqrt(1 + (z / arm) ** 2)
    left = z < 0
    height = np.where(left, arm**2 * (root - 1), 0.5 * z**2 * (1 + RIGHT_RISE * z))
    return height, np.where(left, z / root, z + 1.5 * RIGHT_RISE * z**2)


@dataclass(frozen=True)
class Design:
    """The model's mean [P, m] and scaled features [P, m, F] at some points."""

    mean: Array
    features: Array


class Model:
    """The prior distribution over surfaces: means and covariances between points, for any set of particles."""

    def __init__(self, prior: SearchPrior, extras: tuple[Dimension, ...], lengths: Array):
        self.prior, self.extras, self.lengths = prior, extras, np.unique(np.round(lengths, 6))
        shorter = self.lengths[self.lengths < 0]
        self._steps = tuple(zip(shorter, np.sqrt(np.diff(shorter, append=0.0)), strict=True))

    def design(self, points: Points, particles: Particles, shift: Shift | None = None) -> Design:
        """Mean and features about a shift; a feature is scaled so that its coefficient has a standard normal prior."""
        length, motion = points.length[None, :], self.motion(points.length)
        shift = self.no_shift(len(particles.slope)) if shift is None else shift
        z_w, z_v = self._aligned(points, particles)
        off_w, off_v = shift.along(0, motion), shift.along(1, motion)
        z_w, z_v = z_w - off_w, z_v - off_v
        a_w, a_v = particles.rate_curvature[:, None], particles.batch_curvature[:, None]
        height, steep = bowl(z_w, particles.left_arm[:, None])
        height, steep, lift, tilt = a_w * height, a_w * steep, 0.5 * a_v * z_v**2, a_v * z_v
        mean = height + lift + steep * off_w + tilt * off_v + self._extra_mean(points)[None, :]
        scale = self.scales(particles)[:, :, None]
        columns = [
            *(-side * term * scale[2 * m + n] for m, term in enumerate(motion) for n, side in enumerate((steep, tilt))),
            height * BEND_SD,
            lift * BEND_SD,
            np.sqrt(a_w * a_v) * z_w * z_v * TWIST_SD,
            height * length * BEND_LENGTH_SD,
            lift * length * BEND_LENGTH_SD,
        ]
        level = LEVEL_SD * (np.round(points.length, 6)[:, None] == self.lengths[None, :])
        shared = np.broadcast_to(np.hstack([level, *self._extra_columns(points)]), (len(a_w), len(points), self._width))
        return Design(mean, np.concatenate([np.stack(columns, axis=2), shared], axis=2))

    def motion(self, length: Array) -> Array:
        """Terms of the shift at some lengths, [M, m]: the centre, its motion an octave, and each step of its walk, full length last."""
        walk = [size * (np.round(length, 6) <= end) for end, size in self._steps]
        return np.stack([np.ones(len(length)), length, *walk])

    def no_shift(self, count: int) -> Shift:
        """The prior's own centre and motion, for so many particles."""
        return Shift(np.zeros((2 * (2 + len(self._steps)), count)))

    def scales(self, particles: Particles) -> Array:
        """Spread of the coefficients of the motion, rate and batch in turn, [2 M, P]."""
        prior, trust, drift = self.prior, particles.trust, particles.drift_trust
        return np.stack(
            [
                prior.learning_rate_sd * trust,
                prior.batch_size_sd * trust,
                prior.drift.rate_exponent_sd * drift,
                prior.drift.batch_exponent_sd * drift,
                *[np.full(len(trust), prior.drift.wander)] * (2 * len(self._steps)),
            ]
        )

    @property
    def _width(self) -> int:
        return len(self.lengths) + sum(len(d.values) if d.scale == "choice" else 2 for d in self.extras)

    def _extra_mean(self, points: Points) -> Array:
        """An ordered field is expected to cost its effect at a full range from the default."""
        gaps = [
            d.effect * (points.extra[:, index] - d.coordinate(d.start)) ** 2
            for index, d in enumerate(self.extras)
            if d.scale != "choice"
        ]
        return np.sum(gaps, axis=0) if gaps else np.zeros(len(points))

    def _extra_columns(self, points: Points) -> list[Array]:
        """Further fields: a bend about the default and a tilt, or a level per category."""
        columns = []
        for index, dimension in enumerate(self.extras):
            u = points.extra[:, index]
            if dimension.scale == "choice":
                columns.append(dimension.effect * (u[:, None] == np.arange(len(dimension.values))[None, :]))
            else:
                gap = u - dimension.coordinate(dimension.start)
                columns.append(EXTRA_SD * dimension.effect * np.stack([gap, gap**2], axis=1))
        return columns

    def _aligned(self, points: Points, particles: Particles) -> tuple[Array, Array]:
        rate, batch = np.log2(self.prior.learning_rate), np.log2(self.prior.batch_size)
        z_v = points.v - batch - self.prior.drift.batch_exponent * points.length
        drift = self.prior.drift.rate_exponent * points.length
        z_w = (points.x - rate - drift)[None, :] - particles.slope[:, None] * (points.v - batch)[None, :]
        return z_w, np.broadcast_to(z_v[None, :], z_w.shape)

    def _typical(self, points: Points) -> tuple[Array, Array]:
        drift = self.prior.drift.rate_exponent * points.length
        return (
            points.x - self.prior.slope * points.v - drift,
            points.v - self.prior.drift.batch_exponent * points.length,
        )

    def noise_variance(self, points: Points, excess: Array, particles: Particles) -> Array:
        """Variance of an observation, [P, n]: repeat noise, plus the bowl's error of form, which grows with the excess."""
        share = np.where(points.length < 0, self.prior.short_noise_share, 1.0)
        form = FORM_ERROR * np.clip(excess, 0, SQUASH_FROM) + FAR_ERROR * np.clip(excess - SQUASH_FROM, 0, None)
        return (particles.noise[:, None] * share[None, :]) ** 2 + form[None, :] ** 2

    def ragged(self, a: Points, b: Points) -> Array:
        """Correlation of the departure from the bowl between two sets of points, [m, k]; the same for all particles."""
        (a_w, a_v), (b_w, b_v) = self._typical(a), self._typical(b)
        near = _squared(a_w, b_w, RAGGED_RATE) + _squared(a_v, b_v, RAGGED_BATCH)
        for index, dimension in enumerate(self.extras):
            scale = 0.5 if dimension.scale == "choice" else 0.7
            near = near + _squared(a.extra[:, index], b.extra[:, index], scale)
        same = np.abs(a.length[:, None] - b.length[None, :]) < 1e-6
        along = np.exp(-0.5 * _squared(a.length, b.length, RAGGED_LENGTH))
        share = OWN_RAGGED**2
        return np.exp(-0.5 * near) * ((1 - share) * along + share * same)


def _squared(a: Array, b: Array, scale: float) -> Array:
    return ((a[:, None] - b[None, :]) / scale) ** 2


class Posterior:
    """The surface given observations: mean and covariance at any points, over the heaviest particles."""

    def __init__(self, model: Model, observations: Observations):
        self.model, self.points = model, observations.points
        count, num_kept = (
            (NUM_PARTICLES, NUM_KEPT) if len(observations) <= MANY else (NUM_PARTICLES // 4, NUM_KEPT // 2)
        )
        every = particles_of(model.prior, count)
        shift = model.no_shift(count)
        # The loss is a bowl, which is not linear in the place of its bottom. Each pass linearises it around the last estimate of
        # the place and solves for a better one (Gauss-Newton); a few passes are enough.
        for _ in range(NUM_STEPS):
            design = model.design(self.points, every, shift)
            root, white, log_likelihood = _condition(model, observations, every, design)
            used = shift
            shift = _step(model, every, design, root, white)
        weights = np.exp(log_likelihood - log_likelihood.max())
        # Particles are guesses of the shape (curvature, slope, noise). Most explain the observations badly, and predicting with
        # them would cost time and change nothing.
        keep = np.argsort(-weights, kind="stable")[:num_kept]
        self.weights = weights[keep] / weights[keep].sum()
        self.effective = weights.sum() ** 2 / (weights**2).sum()
        self.particles, self.shift = every.take(keep), used.take(keep)
        self._features = design.features[keep]
        self._root, self._white = root[keep], white[keep]
        self._noise = np.sqrt(model.noise_variance(self.points, observations.excess, self.particles))

    def at(self, points: Points) -> Prediction:
        """The joint prediction at some points, level included, noise excluded."""
        design = self.model.design(points, self.particles, self.shift)
        cross = design.features @ self._features.transpose(0, 2, 1)
        cross = cross + (self.particles.raggedness**2)[:, None, None] * self.model.ragged(points, self.points)[None]
        white = self._root @ cross.transpose(0, 2, 1)
        means = design.mean + (white.transpose(0, 2, 1) @ self._white)[:, :, 0]
        return Prediction(self, points, design.features, white, means)


def _condition(model: Model, data: Observations, particles: Particles, design: Design) -> tuple[Array, Array, Array]:
    """The inverse root of the covariance, the whitened residual, and the log likelihood, one a particle."""
    size = len(data)
    kernel = design.features @ design.features.transpose(0, 2, 1)
    kernel = kernel + (particles.raggedness**2)[:, None, None] * model.ragged(data.points, data.points)[None]
    variance = model.noise_variance(data.points, data.excess, particles)
    kernel[:, np.arange(size), np.arange(size)] += variance
    cholesky = np.linalg.cholesky(kernel)
    residual = data.excess[None, :] - design.mean
    # The inverse of the Cholesky factor whitens whatever is correlated like the observations, for every prediction to come.
    root: Array = np.stack([dtrtri(one, lower=1)[0] for one in cholesky]) if size else np.asarray(cholesky)
    white = root @ residual[:, :, None]
    log_determinant = np.log(np.diagonal(cholesky, axis1=1, axis2=2)).sum(axis=1)
    log_likelihood: Array = -0.5 * (white[:, :, 0] ** 2).sum(axis=1) - log_determinant
    return root, white, log_likelihood


def _step(model: Model, particles: Particles, design: Design, root: Array, white: Array) -> Shift:
    """The shift that the observations suggest, one Gauss-Newton step from where the design is linear."""
    weights = root.transpose(0, 2, 1) @ white
    scales = model.scales(particles)
    coefficients = (design.features[:, :, : len(scales)].transpose(0, 2, 1) @ weights)[:, :, 0]
    return Shift(np.clip(coefficients.T * scales, -REACH, REACH))


def _shares(weights: Array, count: int) -> list[int]:
    """How many of `count` draws each particle gets: whole shares, and the rest to the heaviest."""
    shares = np.floor(weights * count).astype(int)
    shares[: count - int(shares.sum())] += 1
    return [int(share) for share in shares]


@dataclass(frozen=True)
class Prediction:
    """The mixture over particles at m points, by its first two moments."""

    posterior: Posterior
    points: Points
    features: Array
    white: Array
    means: Array

    @property
    def mean(self) -> Array:
        """Mean excess, [m], per cent."""
        mean: Array = self.posterior.weights @ self.means
        return mean

    def covariance(self, rows: Index, columns: Index) -> Array:
        """Covariance between two selections of the points, [len(rows), len(columns)]."""
        post, weights = self.posterior, self.posterior.weights
        root = np.sqrt(weights)[:, None, None]
        left, right = self._stack(rows, root), self._stack(columns, root)
        linear = left[0] @ right[0].T - left[1] @ right[1].T
        ragged = post.model.ragged(self.points.take(rows), self.points.take(columns))
        off = (self.means - self.mean[None, :]) * np.sqrt(weights)[:, None]
        spread: Array = linear + (weights @ post.particles.raggedness**2) * ragged + off[:, rows].T @ off[:, columns]
        return spread

    def samples(self, rows: Index, *, count: int, seed: int) -> Array:
        """Joint samples of the surface at a selection of the points, [count, len(rows)], from the mixture itself.

        A draw from the prior is moved by what the observations say against it (Matheron's rule).
        """
        post, rng = self.posterior, np.random.default_rng(seed)
        here = self.points.take(rows)
        together = Points(
            *(np.concatenate([getattr(here, k), getattr(post.points, k)]) for k in ("x", "v", "length", "extra"))
        )
        values, vectors = np.linalg.eigh(post.model.ragged(together, together))
        root = vectors * np.sqrt(np.maximum(values, 0))[None, :]
        drawn = []
        for index, times in enumerate(_shares(post.weights, count)):
            linear = rng.standard_normal((times, self.features.shape[2]))
            ragged = post.particles.raggedness[index] * rng.standard_normal((times, len(together))) @ root.T
            noise = post._noise[index] * rng.standard_normal((times, len(post.points)))
            seen = linear @ post._features[index].T + ragged[:, len(rows) :] + noise
            moved = (post._root[index] @ seen.T).T @ self.white[index][:, rows]
            drawn.append(
                self.means[index, rows] + linear @ self.features[index, rows].T + ragged[:, : len(rows)] - moved
            )
        return np.concatenate(drawn)

    def _stack(self, index: Index, root: Array) -> tuple[Array, Array]:
        features = (self.features[:, index] * root).transpose(1, 0, 2).reshape(len(index), -1)
        white = (self.white[:, :, index] * root).transpose(2, 0, 1).reshape(len(index), -1)
        return features, white

    @property
    def variance(self) -> Array:
        """Variance at each point, [m]."""
        weights = self.posterior.weights
        inner = (self.features**2).sum(axis=2) + (self.posterior.particles.raggedness**2)[:, None]
        inner = inner - (self.white**2).sum(axis=1) + (self.means - self.mean[None, :]) ** 2
        variance: Array = np.maximum(weights @ inner, 1e-10)
        return variance
