"""Robust statistics of noisy curves: spike scores, drift, noise, trends; plain numbers in, plain numbers out.

Notation: x a series, sd a standard deviation in the units of x, MAD the median absolute deviation.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from finestep.diagnosis.training_log import Column

MAD_TO_SD = 1.4826
"""Standard deviation over MAD for Gaussian noise."""

SPIKE_WINDOW = 64
SPIKE_MIN_VALUES = 16
_MAX_WINDOWS = 20_000


class Trend(NamedTuple):
    """Straight line through a series: change over its whole length, and that change over its standard error."""

    change: float
    t: float


def noise_sd(x: Column) -> float:
    """Standard deviation of the row-to-row noise, from first differences, so that a slow trend does not count."""
    if len(x) < 3:
        return 0.0
    differences = np.diff(x)
    return float(MAD_TO_SD * np.median(np.abs(differences - np.median(differences))) / math.sqrt(2))


def spike_scores(
    x: Column, *, window: int = SPIKE_WINDOW, min_values: int = SPIKE_MIN_VALUES, floor: float = 0.0
) -> Column:
    """(x - median) / (1.4826 MAD) of each value against the `window` values before it; NaN while there are too few.

    In series of more than 20,000 values the reference is refreshed every few values instead of at each one.
    `floor` is the smallest standard deviation that is believed. Source: science notes 7.1 (D1 with median and MAD).
    """
    count = len(x)
    scores = np.full(count, np.nan)
    if count <= min_values:
        return scores
    # The first values have too few before them for a window: each is scored against all of these.
    early = range(min_values, min(window, count))
    for index in early:
        scores[index] = _score(x[:index], x[index : index + 1], floor)[0]
    stride = max(1, count // _MAX_WINDOWS)
    starts = np.arange(window, count, stride)
    if not len(starts):
        return scores
    past = np.lib.stride_tricks.sliding_window_view(x, window)[starts - window]
    centre = np.median(past, axis=1)
    scale = np.maximum(MAD_TO_SD * np.median(np.abs(past - centre[:, None]), axis=1), max(floor, 1e-12))
    nearest = (np.arange(window, count) - window) // stride
    scores[window:] = (x[window:] - centre[nearest]) / scale[nearest]
    return scores


def drift_sum(x: Column, *, level: float, sd: float, slack: float = 0.5) -> Column:
    """One-sided CUSUM S = max(0, S + (x - level) / sd - slack); an alarm at S > 8 is rare by chance.

    Source: science notes 7.1 D2: at 8 a false alarm every 12,000 steps with Gaussian noise, 4,600 with Student's t5.
    """
    # The slack keeps a series at its level from ever adding up.
    steps = (x - level) / max(sd, 1e-12) - slack
    walk = np.cumsum(steps)
    return walk - np.minimum(np.minimum.accumulate(walk), 0.0)


def smoothed(x: Column, width: int) -> Column:
    """Median over `width` values centred at each one, shorter at both ends; long series are thinned inside."""
    if width <= 1 or len(x) < 3:
        return x.astype(float)
    half = width // 2
    padded = np.pad(x.astype(float), half, mode="reflect")
    # A median for each of a million rows would take minutes, and neighbours hardly differ.
    stride = max(1, len(x) // _MAX_WINDOWS)
    view = np.lib.stride_tricks.sliding_window_view(padded, 2 * half + 1)[: len(x) : stride]
    if view.shape[1] > 512:
        view = view[:, :: view.shape[1] // 256]
    return np.repeat(np.median(view, axis=1), stride)[: len(x)]


def trend(x: Column, *, num_blocks: int = 8) -> Trend:
    """Change along a series and its t value, from block medians: neither outliers nor short correlations inflate it."""
    num_blocks = min(num_blocks, len(x))
    if num_blocks < 4:
        return Trend(0.0, 0.0)
    # Rows that are alike fall into one block, and outliers do not move its median: both would make t too large.
    blocks = np.array([np.median(block) for block in np.array_split(x, num_blocks)])
    positions = np.arange(num_blocks) - (num_blocks - 1) / 2
    slope = float(positions @ blocks / (positions @ positions))
    residual = blocks - blocks.mean() - slope * positions
    error = math.sqrt(float(residual @ residual) / (num_blocks - 2) / float(positions @ positions))
    return Trend(slope * (num_blocks - 1), slope / max(error, 1e-12))


def sorted_median(ordered: list[float]) -> float:
    """Median of a sorted list."""
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else 0.5 * (ordered[middle - 1] + ordered[middle])


def _score(past: Column, value: Column, floor: float) -> Column:
    centre = np.median(past)
    scale = max(MAD_TO_SD * float(np.median(np.abs(past - centre))), floor, 1e-12)
    return (value - centre) / scale
