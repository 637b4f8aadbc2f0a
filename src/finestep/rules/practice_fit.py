"""Published learning rates against model size: ln rate = a + b ln parameters, by method and architecture.

Framework templates are left out (they repeat one number for every size), and so are preference tuning, measured
optima and
Adafactor. The fit describes practice, not optima: published values also protect general ability and are copied.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from finestep.knowledge.recipes import PublicRecipe, public_recipes

GROUPS = {
    "full-causal": (("full",), "causal-lm"),
    "lora-causal": (("lora", "dora"), "causal-lm"),
    "qlora-causal": (("qlora",), "causal-lm"),
    "full-encoder": (("full",), "encoder"),
    "lora-encoder": (("lora", "dora"), "encoder"),
    "prompt-causal": (("prefix", "p-tuning"), "causal-lm"),
    "prompt-encoder": (("prefix", "p-tuning"), "encoder"),
    "full-encoder-decoder": (("full",), "encoder-decoder"),
}


def practice_table() -> dict[str, object]:
    """Group -> intercept, slope, residual sd (all in log10), number of rows, median rate and median size in
    parameters."""
    return {name: _fit(_chosen(methods, architecture)) for name, (methods, architecture) in GROUPS.items()}


def _chosen(methods: Sequence[str], architecture: str) -> list[PublicRecipe]:
    return [
        row
        for row in public_recipes()
        if is_practice(row) and row.method in methods and row.architecture == architecture
    ]


def is_practice(row: PublicRecipe) -> bool:
    """True for a published supervised recipe with a rate and a size that is no framework template."""
    usable = row.learning_rate is not None and row.params is not None
    adam = "adafactor" not in (row.training.optimizer or "").lower()
    return usable and adam and not row.origin.is_template and not row.origin.measured and row.task != "preference"


def _fit(rows: list[PublicRecipe]) -> dict[str, float | int]:
    x = [math.log10(row.params or 1) for row in rows]
    y = [math.log10(row.learning_rate or 1) for row in rows]
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    spread = sum((a - mean_x) ** 2 for a in x)
    slope = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / spread if spread > 0 else 0.0
    errors = [b - mean_y - slope * (a - mean_x) for a, b in zip(x, y, strict=True)]
    sd = math.sqrt(sum(e * e for e in errors) / max(len(rows) - 2, 1))
    return {
        "intercept": round(mean_y - slope * mean_x, 4),
        "slope": round(slope, 4),
        "slope_sd": round(sd / math.sqrt(spread), 4) if spread > 0 else 0.0,
        "sd": round(sd, 4),
        "rows": len(rows),
        "median_rate": sorted(row.learning_rate or 0.0 for row in rows)[len(rows) // 2],
        "mean_log_params": round(mean_x, 4),
    }
