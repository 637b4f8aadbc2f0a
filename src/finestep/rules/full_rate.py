"""The learning rate of full fine-tuning, from three views pooled by precision; none of them is a dense measurement.

1. Measured ratio: LoRA's best over full's is 10 (evidence `lora-without-regret`; 15 near 100 steps) to 33
(`oneill-sft-science`).
2. Pre-training: published fine-tuning rates are about 1/15 of the peak of pre-training, sd 0.4 dex
(`pretraining-ratios`).
3. Practice: published rates against size (`practice-fits`).
"""

from __future__ import annotations

import math
from typing import Any

from finestep.knowledge.packaged import table
from finestep.rules.terms import LogNormal, Term

RATIO_DEX, RATIO_SD = -1.15, 0.25
PRETRAINING_RATIO, PRETRAINING_SD = 1 / 15, 0.4
REFERENCE_BATCH = {"causal": 64.0, "encoder": 32.0}
BATCH_EXPONENT = 0.2
MEDIAN_ONLY_SLOPE_SD = 0.3


def ratio_term() -> Term:
    """Full over LoRA."""
    return Term("full over LoRA", RATIO_DEX, RATIO_SD, "lora-without-regret", "measured ratios 10 and 33; 14 is used")


def pretraining_view(pretraining_rate: float | None) -> LogNormal | None:
    """log10 rate from the peak rate of pre-training, or None when it is not published.

    >>> round(pretraining_view(3e-4).value, 6)
    2e-05
    """
    return LogNormal(math.log10(pretraining_rate * PRETRAINING_RATIO), PRETRAINING_SD) if pretraining_rate else None


def practice_fit_view(group: str, *, params: float, batch: float) -> LogNormal:
    """log10 rate by the fit of published rates against size, moved from the usual batch to `batch`."""
    fit: dict[str, Any] = table("practice.json")[group]
    steep = fit["slope_sd"] > MEDIAN_ONLY_SLOPE_SD
    mean = math.log10(fit["median_rate"]) if steep else fit["intercept"] + fit["slope"] * math.log10(params)
    usual = REFERENCE_BATCH["encoder" if "encoder" in group else "causal"]
    return LogNormal(mean + BATCH_EXPONENT * math.log10(batch / usual), fit["sd"])
