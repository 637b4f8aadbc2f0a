"""The gradient noise scale from the micro-batches of accumulated steps: unbiased parts, their ratio, and its interval; it trains nothing.

For K micro-batches of b_k units (tokens, or rows for labels) with mean gradients g_k and their weighted mean g:
    tr(Sigma) = (sum b_k |g_k|^2 - sum b_k |g|^2) / (K - 1),    |G|^2 = |g|^2 - tr(Sigma) / sum b_k,
both unbiased (McCandlish et al. 2018, arXiv 1812.06162; unequal sizes as derived for Pollux). The scale is the ratio of their means over
steps, never the mean of ratios. It is a diagnostic: on OLMo it underestimates the measured critical batch by orders of magnitude
(Merrill et al. 2025, arXiv 2505.23971).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from finestep.errors import BadInput

COVERAGE = 0.8


@dataclass(frozen=True, slots=True)
class StepNoise:
    """One accumulated step: unbiased tr(Sigma) a unit, and |G|^2 (which may come out negative)."""

    trace: float
    signal: float


@dataclass(frozen=True, slots=True)
class NoiseScale:
    """tr(Sigma) / |G|^2 in units. `value` and `high` are None when |G|^2 cannot be told from zero: then it is at least `low`."""

    value: float | None
    low: float
    high: float | None
    num_steps: int

    def times(self, factor: float) -> NoiseScale:
        """The same in other units, e.g. rows instead of tokens."""
        value, high = (None if x is None else factor * x for x in (self.value, self.high))
        return NoiseScale(value, factor * self.low, high, self.num_steps)


def step_noise(sizes: Sequence[float], squares: Sequence[float], square_of_mean: float) -> StepNoise:
    """Of one step, from the sizes b_k, the squared norms |g_k|^2 and the squared norm |g|^2 of the weighted mean.

    >>> step_noise([1, 1], [5.0, 1.0], 2.0)
    StepNoise(trace=2.0, signal=1.0)
    """
    if len(sizes) != len(squares) or len(sizes) < 2:
        raise BadInput("the noise of a step needs at least two micro-batches", value=len(sizes))
    weights = np.asarray(sizes, dtype=float)
    total = float(weights.sum())
    trace = float(weights @ np.asarray(squares, dtype=float) - total * square_of_mean) / (len(sizes) - 1)
    return StepNoise(trace, square_of_mean - trace / total)


def noise_scale(steps: Sequence[StepNoise]) -> NoiseScale:
    """The ratio of the means over steps with its 80 % interval.

    The interval is Fieller's: all ratios r for which the mean of `trace - r x signal` cannot be told from zero, with the delete-one
    jackknife's variances (for means they are the sample's). It stays right when the signal is weak, where an interval of the ratio's own
    standard error does not, and has no upper end when the interval of |G|^2 contains zero.
    """
    if len(steps) < 3:
        raise BadInput("a noise scale needs at least three steps", value=len(steps))
    if not all(math.isfinite(step.trace) and math.isfinite(step.signal) for step in steps):
        raise BadInput("gradients must be finite to tell their noise", value="not finite")
    values_N2 = np.array([(step.trace, step.signal) for step in steps])
    trace, signal = values_N2.mean(axis=0)
    covariance_22 = np.cov(values_N2.T) / len(steps)
    reach = float(stats.t.ppf((1 + COVERAGE) / 2, len(steps) - 1)) ** 2
    square = signal**2 - reach * covariance_22[1, 1]
    middle = trace * signal - reach * covariance_22[0, 1]
    end = trace**2 - reach * covariance_22[0, 0]
    root = math.sqrt(max(middle**2 - square * end, 0.0))
    if square <= 0 or signal <= 0:
        return NoiseScale(None, _lower_end(square, middle, root, end), None, len(steps))
    low, high = (middle - root) / square, (middle + root) / square
    return NoiseScale(trace / signal, max(low, 0.0), high, len(steps))


def _lower_end(square: float, middle: float, root: float, end: float) -> float:
    """Where the unbounded interval begins: the positive root, or 0 when the noise itself is unclear."""
    if end <= 0:
        return 0.0
    if square == 0:
        return end / (2 * middle) if middle > 0 else 0.0
    return max((middle - root) / square, (middle + root) / square, 0.0)


def noise_words(scale: NoiseScale, *, unit: str = "rows") -> str:
    """In words, e.g. "about 35 rows (80 %: 22 to 60)"."""
    if scale.value is None or scale.high is None:
        return f"at least {scale.low:,.0f} {unit}: the mean gradient drowns in noise after {scale.num_steps} steps"
    return f"about {scale.value:,.0f} {unit} (80 %: {scale.low:,.0f} to {scale.high:,.0f})"
