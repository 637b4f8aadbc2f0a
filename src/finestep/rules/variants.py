"""How the best rate of a LoRA variant relates to that of plain LoRA; it knows no model.

Ratios from Lee et al. (evidence `lr-matters`: ten variants, each with its rate tuned, within 2 % of LoRA), explained
there by the top
Hessian eigenvalue at initialisation. LoRA+ trains B at 16 times A's rate, A's reduced by 4 (evidence `lora-plus`,
from memory).
"""

from __future__ import annotations

import math

from finestep.rules.terms import Term

LORA_PLUS_RATIO = 16.0
VARIANTS: dict[str, tuple[float, float, str]] = {
    "lora": (1.0, 0.0, "lr-matters"),
    "rslora": (1.0, 0.1, "rslora"),
    "dora": (1.0, 0.1, "lr-matters"),
    "init-ab": (1 / 1.8, 0.15, "lr-matters"),
    "milora": (1 / 3.2, 0.15, "lr-matters"),
    "pissa": (1 / 10, 0.2, "lr-matters"),
    "lora-ga": (1 / 18, 0.2, "lr-matters"),
    "olora": (1 / 18, 0.2, "lr-matters"),
    "lora+": (1 / 4, 0.2, "lora-plus"),
}
"""Variant -> (its best rate over plain LoRA's, sd in dex, evidence)."""


def variant_term(variant: str) -> Term:
    """The factor of a variant as a term in dex."""
    ratio, sd, source = VARIANTS[variant]
    return Term("variant", math.log10(ratio), sd, source, f"{variant} against plain LoRA: x{ratio:.2g}")


def effective_alpha(alpha: float, rank: int, *, rslora: bool) -> float:
    """The alpha of plain LoRA with the same scale: rsLoRA multiplies by alpha / sqrt(rank) instead of alpha / rank.

    >>> effective_alpha(16, 64, rslora=True)
    128.0
    """
    return alpha * math.sqrt(rank) if rslora else alpha
