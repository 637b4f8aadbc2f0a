"""LoRA variants whose own best rate nobody published as a measurement that the law could use; those that were measured are in the law.

LoRA+ trains B at 16 times A's rate, and A's own is halved.
"""

from __future__ import annotations

import math

from finestep.rules.terms import Term

LORA_PLUS_RATIO = 16.0
VARIANTS = ("lora", "rslora", "dora", "init-ab", "milora", "pissa", "lora-ga", "olora", "lora+")
"""All that can be asked for."""
UNMEASURED: dict[str, tuple[float, float, str]] = {
    "lora": (1.0, 0.0, "rate-law"),
    "rslora": (1.0, 0.1, "rslora"),
    "lora+": (1 / 2, 0.3, "lora-plus"),
}
"""Variant -> (its best rate over plain LoRA's, sd in dex, evidence)."""


def variant_terms(variant: str) -> list[Term]:
    """The factor of a variant as a term in dex; none for plain LoRA."""
    ratio, sd, source = UNMEASURED[variant]
    return [Term("variant", math.log10(ratio), sd, source, f"{variant} against plain LoRA: x{ratio:.2g}")] if sd else []


def effective_alpha(alpha: float, rank: int, *, rslora: bool) -> float:
    """The alpha of plain LoRA with the same scale: rsLoRA multiplies by alpha / sqrt(rank) instead of alpha / rank.

    >>> effective_alpha(16, 64, rslora=True)
    128.0
    """
    return alpha * math.sqrt(rank) if rslora else alpha
