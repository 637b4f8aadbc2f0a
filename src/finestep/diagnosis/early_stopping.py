"""When to stop: gains of the validation loss judged with paired standard errors."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

MIN_GAIN = 0.002
"""Smallest drop of the validation loss, in nats, that counts as gain. Source: science notes 8."""


def paired_gain(
    before: Sequence[float], after: Sequence[float], units: Sequence[float] | None = None
) -> tuple[float, float]:
    """Drop of the loss between two evaluations on the same rows, and its standard error.

    Without `units` the values are losses of rows, all alike; with `units` (tokens of each row) they are sums over each row, and
    the drop is in nats a token. Pairing removes the spread between rows, which is 5-20 times larger. Source: science notes 8;
    Miller, arXiv 2411.00640.

    >>> paired_gain([2.0, 4.0, 9.0], [1.0, 3.0, 8.0])
    (1.0, 0.0)
    """
    difference = np.asarray(before, dtype=float) - np.asarray(after, dtype=float)
    if not len(difference):
        return 0.0, math.inf
    mean_units = 1.0 if units is None else float(np.mean(units))
    drop = float(difference.mean()) / mean_units
    if len(difference) < 2:
        return drop, math.inf
    # Rows with more tokens weigh more: the error of a ratio of sums (Cochran, Sampling Techniques, 6.4).
    weights = np.ones(len(difference)) if units is None else np.asarray(units, dtype=float) / mean_units
    spread = difference / mean_units - drop * weights
    return drop, float(spread.std(ddof=1) / math.sqrt(len(difference)))


def is_progress(
    reference: Sequence[float] | None, now: Sequence[float], units: Sequence[float], *, min_gain: float = 0.0
) -> bool:
    """True when the validation loss fell by more than noise since the reference, the last evaluation that was progress.

    Small steps add up, because the reference stays until they are progress together. Values are sums over each row.
    """
    if reference is None or len(reference) != len(now) or not np.isfinite(reference).all():
        return True
    drop, error = paired_gain(reference, now, units)
    return drop > max(smallest_gain(error), min_gain)


def smallest_gain(standard_error: float) -> float:
    """Drop of the validation loss that counts as progress: two paired standard errors, at least 0.002 nats."""
    return max(2 * standard_error, MIN_GAIN)


def should_stop(losses: Sequence[float], *, patience: int, min_gain: float) -> bool:
    """True when the last `patience` evaluations brought no gain over the best before them.

    >>> should_stop([2.0, 1.5, 1.51, 1.55, 1.6], patience=3, min_gain=0.002)
    True
    """
    if len(losses) <= patience:
        return False
    best_before = min(losses[:-patience])
    return min(losses[-patience:]) > best_before - min_gain
