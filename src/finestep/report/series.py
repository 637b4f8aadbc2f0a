"""Long series made short without losing what matters: extremes, and where numbers stop being numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence


def kept_indices(series: Sequence[Sequence[float]], *, max_points: int) -> list[int]:
    """Indices that stand for all points of some parallel series: both ends, and in each bucket every series' extremes.

    In each bucket the first value that is not finite is kept too, so that the drawn line breaks where the run did.
    At most `max_points` indices come back; a series that is short enough is kept whole.
    """
    length = len(series[0]) if series else 0
    if length <= max_points:
        return list(range(length))
    num_buckets = max(1, (max_points - 2) // (2 * len(series) + 1))
    kept = {0, length - 1}
    for bucket in range(num_buckets):
        inside = range(bucket * length // num_buckets, (bucket + 1) * length // num_buckets)
        for values in series:
            kept.update(_extremes(values, inside))
        kept.update(_first_bad(series, inside))
    return sorted(kept)


def _extremes(values: Sequence[float], inside: range) -> set[int]:
    finite = [i for i in inside if math.isfinite(values[i])]
    return {min(finite, key=lambda i: values[i]), max(finite, key=lambda i: values[i])} if finite else set()


def _first_bad(series: Sequence[Sequence[float]], inside: range) -> set[int]:
    bad = (i for i in inside if not all(math.isfinite(values[i]) for values in series))
    first = next(bad, None)
    return set() if first is None else {first}


def debiased_ema(values: Iterable[float], *, span: float) -> list[float]:
    """Exponential moving average over about `span` points, divided by its own weight, so that it starts unbiased.

    beta = 1 - 2 / (span + 1); m_t = beta m_(t-1) + (1 - beta) x_t; result m_t / (1 - beta^t), as in Adam
    (Kingma and Ba 2015, section 3). A value that is not finite stays so at its place and does not enter the average.
    """
    beta = 1 - 2 / (max(span, 1.0) + 1)
    mean, weight, smoothed = 0.0, 0.0, []
    for value in values:
        if math.isfinite(value):
            mean = beta * mean + (1 - beta) * value
            weight = beta * weight + (1 - beta)
            smoothed.append(mean / weight)
        else:
            smoothed.append(value)
    return smoothed


def rounded(value: float, *, digits: int) -> float | None:
    """The value with so many significant digits; None when it is not finite (JSON has no NaN)."""
    return float(f"{value:.{digits}g}") if math.isfinite(value) else None
