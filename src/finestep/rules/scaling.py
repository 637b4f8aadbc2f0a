"""Moving a learning rate from one effective batch size to another; nothing here measures anything."""

from __future__ import annotations

import math
from dataclasses import dataclass

from finestep.rules.rate_law import packaged_law
from finestep.rules.rate_setting import Group
from finestep.study import ScalingRule

EXPONENTS: dict[ScalingRule, float] = {"sqrt": 0.5, "linear": 1.0, "none": 0.0}
"""sqrt: Malladi et al. 2022 (arXiv 2205.10287), for Adam while gradient noise dominates; linear: Goyal et al. 2017
(arXiv 1706.02677), for SGD with momentum."""


def scale_learning_rate(learning_rate: float, *, from_batch: int, to_batch: int, rule: ScalingRule = "sqrt") -> float:
    """The learning rate at `to_batch` that corresponds to `learning_rate` at `from_batch`.

    >>> scale_learning_rate(1e-4, from_batch=16, to_batch=64)
    0.0002
    """
    factor: float = (to_batch / from_batch) ** EXPONENTS[rule]
    return learning_rate * factor


Z80 = 1.2815515655446004
LEAST_BETA = 0.5
"""Below it the rule of Malladi et al. does not hold any more, and the average would be of two steps."""


@dataclass(frozen=True, slots=True)
class ScaledRate:
    """A rate after a change of batch, the 80 % interval of what is best there, and the factor that was applied."""

    value: float
    low: float
    high: float
    factor: float
    why: str


def measured_exponent(group: Group) -> tuple[float, float]:
    """(exponent of the best rate in the batch when the data stay the same, its sd), by the law that `recommend` uses.

    A larger batch then also takes fewer steps, so that both exponents of the law act.
    """
    law = packaged_law()
    kind = "encoder" if group.startswith("encoder") else group
    weights = {f"{kind} batch": 1.0, f"{kind} steps": -1.0}
    exponent = sum(law.mean[law.names.index(name)] * weight for name, weight in weights.items())
    return exponent, math.hypot(law.coefficient_sd(weights), math.sqrt(2) * law.spreads["slope"])


def scale_by(
    learning_rate: float, *, from_batch: float, to_batch: float, exponent: float, sd: float, words: str
) -> ScaledRate:
    """The rate at `to_batch` by an exponent with a doubt.

    >>> round(scale_by(1e-4, from_batch=16, to_batch=160, exponent=0.4, sd=0.1, words="").factor, 2)
    2.51
    """
    dex = math.log10(to_batch / from_batch)
    factor, spread = 10 ** (exponent * dex), 10 ** (Z80 * sd * abs(dex))
    value = learning_rate * factor
    return ScaledRate(value, value / spread, value * spread, factor, f"batch^{exponent:.2g} {words}")


def capped_batch(batch: float, *, noise_scale: float) -> float:
    """The batch to scale to: never beyond the noise scale, where a larger batch no longer wants a higher rate."""
    return min(batch, noise_scale)


def scale_betas(beta1: float, beta2: float, *, factor: float) -> tuple[float, float]:
    """Adam's betas when the batch grows by `factor`: averages over the same rows (Malladi et al., evidence `adam-sde`).

    Their 1 - beta grows with the factor; beta^factor is that for small changes, and never reaches 0. It stops at LEAST_BETA.

    >>> scale_betas(0.9, 0.999, factor=4.0)
    (0.6561, 0.996006)
    """
    return _scaled_beta(beta1, factor), _scaled_beta(beta2, factor)


def _scaled_beta(beta: float, factor: float) -> float:
    return beta if beta == 0 else round(max(beta**factor, min(beta, LEAST_BETA)), 6)


def scale_epsilon(epsilon: float, *, factor: float) -> float:
    """Adam's epsilon when the batch grows by `factor` (evidence `adam-sde`)."""
    return epsilon / math.sqrt(factor)
