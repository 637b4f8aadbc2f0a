"""Adam's second moment for short runs: beta2 such that its warmup of 2 / (1 - beta2) steps fits into a fifth of the
run.

Ma and Yarats (evidence `adam-warmup`): beta2 0.999 wants 2,000 steps of warmup, 0.95 wants 40. Studied for Adam.
"""

from __future__ import annotations

from finestep.estimate import Estimate

CHOICES = (0.95, 0.96, 0.97, 0.98, 0.99, 0.995, 0.999)
SHARE = 0.2


def beta2(num_steps: int) -> Estimate:
    """beta2 of a run of `num_steps`.

    >>> beta2(500).value, beta2(50).value, beta2(20_000).value
    (0.98, 0.95, 0.999)
    """
    wanted = 1.0 - 2.0 / (SHARE * max(num_steps, 1))
    value = max((choice for choice in CHOICES if choice <= wanted + 1e-9), default=CHOICES[0])
    why = f"averages over about {round(1 / (1 - value))} of {num_steps:,} steps"
    return Estimate(value=value, low=CHOICES[0], high=max(0.999, value), unit="", source="adam-warmup", why=why)
