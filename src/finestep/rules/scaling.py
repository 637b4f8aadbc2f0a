"""Moving a learning rate from one effective batch size to another; nothing here measures anything."""

from __future__ import annotations

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
