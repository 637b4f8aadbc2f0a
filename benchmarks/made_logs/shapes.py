"""Shapes of curves: how losses, rates, rewards and metrics of real runs move, each from a seed; it writes no file.

Time t runs from 0 to 1 over the rows of a run.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]


def falling(t: Values, start: float, floor: float, *, speed: float = 12.0) -> Values:
    """A loss that falls fast and then slowly, as fine-tunes do: a power law."""
    return floor + (start - floor) / (1 + speed * t) ** 0.9


def annealed(t: Values, start: float, floor: float) -> Values:
    """The same, with the last small fall that the decay of the rate brings."""
    return falling(t, start, floor) - 0.03 * floor * np.clip((t - 0.7) / 0.3, 0, 1)


def stairs(t: Values, start: float, *, epochs: int, ratio: float) -> Values:
    """Flat inside epochs, down by a ratio at each border."""
    return start * ratio ** np.minimum(np.floor(t * epochs), epochs - 1)


def risen_again(t: Values, start: float, floor: float, *, turn: float, end: float) -> Values:
    """Down to a floor at `turn`, then up to `end` as a smooth bend."""
    down = falling(t / turn, start, floor, speed=20.0)
    up = floor + (end - floor) * ((t - turn) / (1 - turn)).clip(0, 1) ** 1.2
    return np.where(t < turn, down, up + (down[np.searchsorted(t, turn) - 1] - floor))


def lost(t: Values, start: float, best: float, *, onset: float, level: float) -> Values:
    """Down, then up within a few per cent of the run to a level that it never leaves."""
    jump = 1 / (1 + np.exp(-(t - onset) / 0.01))
    return falling(t, start, best) * (1 - jump) + level * jump


def noisy(values: Values, sd: float, rng: np.random.Generator, *, correlation: float = 0.0) -> Values:
    """Multiplied by noise, neighbouring rows correlated if asked for."""
    white = rng.normal(0, 1, len(values))
    if correlation:
        for row in range(1, len(white)):
            white[row] = correlation * white[row - 1] + math.sqrt(1 - correlation**2) * white[row]
    return values * np.exp(sd * white)


def linear_rate(t: Values, peak: float, *, warmup: float = 0.05) -> Values:
    """Warm up, then down to nothing."""
    return peak * np.where(t < warmup, (t + 1e-3) / warmup, (1 - t) / (1 - warmup)).clip(0, 1)


def cosine_rate(t: Values, peak: float, *, warmup: float = 0.03) -> Values:
    """Warm up, then half a cosine."""
    after = 0.5 * (1 + np.cos(np.pi * ((t - warmup) / (1 - warmup)).clip(0, 1)))
    return peak * np.where(t < warmup, (t + 1e-3) / warmup, after)


def constant_rate(t: Values, peak: float) -> Values:
    """The same in every row."""
    return np.full(len(t), peak)


def averaged_from_start(values: Values) -> Values:
    """Mean of everything so far: what many training scripts print."""
    return np.cumsum(values) / np.arange(1, len(values) + 1)


def smoothed(values: Values, weight: float) -> Values:
    """Exponential mean: what progress bars show."""
    out = values.copy()
    for row in range(1, len(out)):
        out[row] = weight * out[row - 1] + (1 - weight) * values[row]
    return out
