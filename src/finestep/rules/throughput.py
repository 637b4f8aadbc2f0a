"""Which micro-batch is fast enough, and how long a whole run takes at it; it measures nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence

from finestep.errors import BadInput

NEAR_BEST = 0.97
"""Beyond this share of the best rate a larger micro-batch only costs memory."""


def knee(rates: Sequence[tuple[int, float]]) -> int:
    """The smallest micro-batch within 3 % of the best rate, from (micro-batch, tokens per second).

    >>> knee([(1, 50.0), (2, 90.0), (4, 98.5), (8, 100.0)])
    4
    """
    if not rates:
        raise BadInput("a knee needs at least one measured micro-batch")
    best = max(rate for _, rate in rates)
    return min(size for size, rate in rates if rate >= NEAR_BEST * best)


def run_seconds(
    *,
    num_rows: int,
    effective_batch_size: int,
    micro_batch: int,
    micro_step_s: float,
    update_s: float,
    num_evaluations: int,
    evaluation_s: float,
) -> float:
    """Seconds of one whole run: forward and backward passes, updates and evaluations (one before the first step)."""
    steps = math.ceil(num_rows / effective_batch_size)
    passes = num_rows / min(micro_batch, effective_batch_size)
    return passes * micro_step_s + steps * update_s + (num_evaluations + 1) * evaluation_s


def price(seconds: float, price_per_hour: float | None) -> float | None:
    """What so many seconds cost."""
    return None if price_per_hour is None else seconds / 3600 * price_per_hour
