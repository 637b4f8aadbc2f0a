"""Ranges, ticks and cell borders on logarithmic axes; it knows no trials."""

from __future__ import annotations

import math
from collections.abc import Sequence


def padded(values: Sequence[float], *, share: float, least: float) -> tuple[float, float]:
    """The range of some values, widened on both sides by a share of itself and at least by `least`."""
    low, high = min(values), max(values)
    room = max(share * (high - low), least)
    return low - room, high + room


def log_ticks(low: float, high: float) -> list[float]:
    """Positions (log10) of round numbers between two powers: 1, 2, 5 in each decade, or decades on a wide axis."""
    factors = (1, 2, 5) if high - low <= 2.6 else (1,)
    decades = range(math.floor(low), math.ceil(high) + 1)
    ticks = [decade + math.log10(factor) for decade in decades for factor in factors]
    inside = [round(tick, 6) for tick in ticks if low <= tick <= high]
    return inside if len(inside) > 1 else [low + share * (high - low) for share in (0.1, 0.5, 0.9)]


def tick_labels(ticks: Sequence[float]) -> list[str]:
    """Numbers with as few digits as tell them apart.

    >>> tick_labels([4.4168, 4.4172])
    ['4.4168', '4.4172']
    """
    for digits in range(4, 10):
        labels = [f"{tick:.{digits}g}" for tick in ticks]
        if len(set(labels)) == len(set(ticks)):
            break
    return labels if ticks else []


def linear_ticks(low: float, high: float) -> list[float]:
    """Between four and nine round numbers of a linear axis."""
    if high <= low:
        return [low]
    raw = (high - low) / 5
    power = 10 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw)
    first = math.ceil(low / step)
    return [round(i * step, 12) for i in range(first, math.floor(high / step) + 1)]


def clustered(positions: Sequence[float], *, width: float) -> list[list[float]]:
    """Sorted positions in groups that are at most `width` wide, greedily from the left."""
    groups: list[list[float]] = []
    for position in sorted(set(positions)):
        if groups and position - groups[-1][0] <= width:
            groups[-1].append(position)
        else:
            groups.append([position])
    return groups


def borders(centres: Sequence[float], *, widest: float) -> list[tuple[float, float]]:
    """The interval around each sorted centre: halfway to its neighbours, and never farther than `widest`."""
    intervals = []
    for i, centre in enumerate(centres):
        left = (centre - centres[i - 1]) / 2 if i > 0 else math.inf
        right = (centres[i + 1] - centre) / 2 if i + 1 < len(centres) else math.inf
        left, right = (right if math.isinf(left) else left), (left if math.isinf(right) else right)
        intervals.append((centre - min(left, widest), centre + min(right, widest)))
    return intervals
