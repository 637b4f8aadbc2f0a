"""What the best learning rate of a fine-tune depends on, as the features of a law that is linear in log10 of the rate.

It holds no number that was measured: those are in `knowledge/data/rate_law.json`, fitted by `rate_fit.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Group = Literal["lora", "full", "encoder full", "encoder lora"]
REFERENCE_STEPS, REFERENCE_BATCH, REFERENCE_RANK, REFERENCE_ALPHA = 500, 32, 32, 32
FLAT_ABOVE, SMALL, TINY = 20.0, 1.0, 0.1
"""Billions of parameters. LoRA's rate is flat above the first (the sweep), and has a slope of its own from the second down to
the third and below that, where nothing but a toy was measured."""
REFERENCE_ENCODER = 0.11
LABELS = 2
CALM_VARIANTS = frozenset({"dora", "milora", "init-ab"})
"""Variants whose adapter adds nothing, or next to nothing, at the start, as plain LoRA's, so that their rate strays less from it.
The others (bold) start from the model's main directions, or with faster steps, and want lower rates."""


@dataclass(frozen=True, slots=True)
class RateSetting:
    """One fine-tune as the law sees it. `size` in billions of dense-equivalent parameters; `family` of the model, None = unknown;
    `constant_rate`: the schedule does not decay."""

    group: Group
    size: float
    batch: float
    steps: float
    rank: int = 16
    alpha: float = 32.0
    variant: str = "lora"
    family: str | None = None
    num_labels: int = LABELS
    constant_rate: bool = False

    @property
    def kind(self) -> str:
        """Whose steps, batch and spread between data sets hold: `lora`, `full` or `encoder`."""
        return "encoder" if self.group.startswith("encoder") else self.group


def features(setting: RateSetting) -> dict[str, float]:
    """Name of a coefficient -> what it is multiplied with. log10 throughout, but labels count in doublings.

    >>> features(RateSetting("full", size=1.0, batch=32, steps=5000))["full steps"]
    1.0
    """
    kind = setting.kind
    out = _encoder(setting) if kind == "encoder" else _decoder(setting)
    if setting.group.endswith("lora"):
        out["rank"] = math.log10(setting.rank / REFERENCE_RANK)
        out["alpha"] = math.log10(setting.alpha / REFERENCE_ALPHA)
        if setting.variant != "lora" and setting.variant not in CALM_VARIANTS:
            out["bold variant"] = 1.0
    if setting.constant_rate:
        out["constant rate"] = 1.0
    steps, batch = slopes(setting)
    return out | {f"{kind} steps": steps, f"{kind} batch": batch}


def slopes(setting: RateSetting) -> tuple[float, float]:
    """Steps and batch against the reference, in factors of ten."""
    return math.log10(setting.steps / REFERENCE_STEPS), math.log10(setting.batch / REFERENCE_BATCH)


def _decoder(setting: RateSetting) -> dict[str, float]:
    size, tiny = setting.size, min(math.log10(setting.size / TINY), 0.0)
    if setting.group == "full":
        return {"full": 1.0, "full size": math.log10(max(size, TINY)), "size below 0.1B": tiny}
    return {
        "lora": 1.0,
        "lora size above 1B": min(math.log10(max(size, SMALL) / FLAT_ABOVE), 0.0),
        "lora size below 1B": min(math.log10(max(size, TINY) / SMALL), 0.0),
        "size below 0.1B": tiny,
    }


def _encoder(setting: RateSetting) -> dict[str, float]:
    out = {
        "encoder": 1.0,
        "encoder size": math.log10(setting.size / REFERENCE_ENCODER),
        "labels": math.log2(max(setting.num_labels, LABELS) / LABELS),
    }
    return out | ({"encoder lora": 1.0} if setting.group == "encoder lora" else {})


def dense_equivalent(total: float, active: float | None) -> float:
    """Billions of parameters of the dense model that a mixture of experts behaves like.

    >>> dense_equivalent(8e9, None)
    8.0
    """
    return math.sqrt(total * (active or total)) / 1e9
