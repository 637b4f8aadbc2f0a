"""LoRA variants: which can be asked for. Their best rates are in the law; LoRA+ trains B at 16 times A's rate, which is the rate given."""

from __future__ import annotations

import math

LORA_PLUS_RATIO = 16.0
VARIANTS = ("lora", "rslora", "dora", "init-ab", "milora", "pissa", "lora-ga", "olora", "lora+")
"""All that can be asked for."""
LAW_VARIANTS = frozenset(VARIANTS) - {"lora", "rslora"}
"""Those whose own best rate the law holds; rsLoRA is plain LoRA with a larger alpha."""


def effective_alpha(alpha: float, rank: int, *, rslora: bool) -> float:
    """The alpha of plain LoRA with the same scale: rsLoRA multiplies by alpha / sqrt(rank) instead of alpha / rank.

    >>> effective_alpha(16, 64, rslora=True)
    128.0
    """
    return alpha * math.sqrt(rank) if rslora else alpha
