"""Learning rates of prompt, prefix and p-tuning, IA3, BitFit and head-only training; published ranges, never swept
densely.

All carry an sd of 0.5 dex (evidence `ptuning-practice`, `peft-examples`, `bitfit-readme`).
"""

from __future__ import annotations

import math

from finestep.rules.terms import Term

PROMPT_SD = 0.5
SMALL_CAUSAL = 4e9
RATES: dict[str, tuple[float, str]] = {
    "prompt": (5e-3, "peft-examples"),
    "ia3": (3e-3, "peft-examples"),
    "bitfit": (1e-3, "bitfit-readme"),
    "head": (1e-3, "bitfit-readme"),
}
PREFIX_ENCODER, PREFIX_CAUSAL, PREFIX_SMALL_CAUSAL = 7e-3, 1.5e-2, 5e-3
"""Small decoders: 5e-3 scored twice what 1e-3 did on Llama-3.2-3B (evidence `peft-comparison`)."""


def prompt_term(method: str, *, params: float, is_encoder: bool) -> Term:
    """The usual rate of a method that trains few or no weights inside the layers.

    >>> round(10 ** prompt_term("p-tuning", params=6e9, is_encoder=False).dex, 4)
    0.015
    """
    if method in ("prefix", "p-tuning"):
        rate = PREFIX_ENCODER if is_encoder else PREFIX_SMALL_CAUSAL if params < SMALL_CAUSAL else PREFIX_CAUSAL
        return Term("method", math.log10(rate), PROMPT_SD, "ptuning-practice", f"published {method} runs")
    rate, source = RATES[method]
    return Term("method", math.log10(rate), PROMPT_SD, source, f"published {method} runs")
