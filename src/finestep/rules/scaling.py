"""Moving a learning rate from one effective batch size to another; nothing here measures anything."""

from __future__ import annotations

import math
from dataclasses import dataclass

from finestep.study import ScalingRule

EXPONENTS: dict[ScalingRule, float] = {"sqrt": 0.5, "linear": 1.0, "none": 0.0}
"""sqrt: Malladi et al. 2022 (arXiv 2205.10287), for Adam while gradient noise dominates; linear: Goyal et al. 2017
(arXiv 1706.02677), for SGD with momentum."""


def scale_learning_rate(learning_rate: float, *, from_batch: int, to_batch: int, rule: ScalingRule = "sqrt") -> float:
    """The learning rate at `to_batch` that corresponds to `learning_rate` at `from_batch`.

    >>> scale_learning_rate(1e-4, from_batch=16, to_batch=64)
    0.0002
    """
    return learning_rate * (to_batch / from_batch) ** EXPONENTS[rule]


MEASURED_EXPONENTS: dict[str, tuple[float, float]] = {"fixed steps": (0.3, 0.15), "fixed data": (0.4, 0.2)}
"""Held fixed -> (exponent of the rate in the batch, sd): what the law of the rate says of LoRA, full fine-tuning and encoders
(evidence `rate-law`). At fixed data a larger batch also takes fewer steps."""
Z80 = 1.2815515655446004


@dataclass(frozen=True, slots=True)
class ScaledRate:
    """A rate after a change of batch, the 80 % interval of what is best there, and the factor that was applied."""

    value: float
    low: float
    high: float
    factor: float
    why: str


def scale_measured(learning_rate: float, *, from_batch: float, to_batch: float, held: str = "fixed data") -> ScaledRate:
    """The rate at `to_batch` by the measured exponent, with its interval.

    >>> round(scale_measured(1e-4, from_batch=16, to_batch=160).factor, 2)
    2.51
    """
    exponent, sd = MEASURED_EXPONENTS[held]
    dex = math.log10(to_batch / from_batch)
    factor, spread = 10 ** (exponent * dex), 10 ** (Z80 * sd * abs(dex))
    value = learning_rate * factor
    return ScaledRate(value, value / spread, value * spread, factor, f"batch^{exponent:g} at {held}, measured")


def surge_factor(batch: float, *, noise_scale: float) -> float:
    """Best rate of Adam at a batch, as a share of its highest, by Li et al. (evidence `surge`): sqrt(B) below the
    noise scale, a peak there.

    >>> surge_factor(64, noise_scale=64)
    1.0
    """
    ratio = math.sqrt(noise_scale / batch)
    return 2.0 / (ratio + 1.0 / ratio)


def capped_batch(batch: float, *, noise_scale: float) -> float:
    """The batch to scale to: never beyond the noise scale, where a larger batch no longer wants a higher rate."""
    return min(batch, noise_scale)


def scale_betas(beta1: float, beta2: float, *, factor: float) -> tuple[float, float]:
    """Adam's betas when the batch grows by `factor` (Malladi et al., evidence `adam-sde`): 1 - beta grows with it, at
    most to 1 - 0.

    >>> scale_betas(0.9, 0.999, factor=4.0)
    (0.6, 0.996)
    """
    return tuple(round(max(0.0, 1.0 - factor * (1.0 - beta)), 6) for beta in (beta1, beta2))  # type: ignore[return-value]


def scale_epsilon(epsilon: float, *, factor: float) -> float:
    """Adam's epsilon when the batch grows by `factor` (evidence `adam-sde`)."""
    return epsilon / math.sqrt(factor)
