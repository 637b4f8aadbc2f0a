"""What others would use on the same cells: constants, a width formula, and the defaults of the frameworks."""

from __future__ import annotations

import math
from collections.abc import Callable

from finestep.knowledge.models import known_model
from finestep.knowledge.sweep import SweepCell

CONSTANTS = {"constant 1e-4": 1e-4, "constant 2e-4": 2e-4, "constant 3e-4": 3e-4}
FRAMEWORK_DEFAULTS = {
    "TRL default": 2e-5,
    "Hugging Face Trainer default": 5e-5,
    "LLaMA-Factory LoRA example": 1e-4,
    "ms-swift LoRA default": 1e-4,
    "Axolotl LoRA example": 2e-4,
    "Unsloth default": 2e-4,
    "litgpt LoRA config": 2e-4,
    "torchtune LoRA config": 3e-4,
}
WIDTH_EXPONENTS = {"llama": 0.781, "qwen3": 0.0775, "qwen3.5": 0.0775}
Baseline = Callable[[SweepCell], float | None]


def width_formula(cell: SweepCell) -> float | None:
    """tinker-cookbook: 5e-5 x 10 x (2000 / hidden)^P, defined for Llama (P = 0.781) and Qwen (0.0775) only."""
    exponent, facts = WIDTH_EXPONENTS.get(cell.lineage), known_model(cell.model)
    if exponent is None or facts is None or facts.shape.hidden_size is None:
        return None
    return math.log10(5e-5 * 10 * (2000 / facts.shape.hidden_size) ** exponent)


def baselines() -> dict[str, Baseline]:
    """Name -> cell -> log10 rate, or None where the baseline says nothing."""
    fixed = {**CONSTANTS, **FRAMEWORK_DEFAULTS}
    out: dict[str, Baseline] = {name: (lambda cell, rate=rate: math.log10(rate)) for name, rate in fixed.items()}
    return {**out, "width formula (Llama and Qwen cells only)": width_formula}
