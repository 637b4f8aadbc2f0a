"""Learning rates inside the model: decay toward the input for encoders on little data, and the factor of a new head."""

from __future__ import annotations

import math

from finestep.estimate import Estimate

FEW_ROWS = 5_000
ELECTRA_BASE, ELECTRA_LARGE, ELECTRA_LARGE_LAYERS, FEW_SAMPLE = 0.8, 0.9, 24, 0.95
HEAD_RATE, HEAD_MOST, HEAD_FULL_DECODER = 1e-3, 10.0, 5.0
HEAD_MOVE = 0.016
"""How far the weights of a new head have to come for each bit of label: 0.1 at 77 labels, where it was measured. Adam under
linear decay moves a weight by up to rate x steps / 2."""


def layerwise_decay(*, is_encoder: bool, lineage: str | None, num_layers: int | None, num_rows: int | None) -> Estimate:
    """Factor per layer toward the input; 1 = off. Its benefit is small once training is long enough (evidence
    `few-sample-bert`)."""
    value, why = 1.0, "rarely helps here"
    if is_encoder and lineage == "electra":
        value = ELECTRA_LARGE if (num_layers or 0) >= ELECTRA_LARGE_LAYERS else ELECTRA_BASE
        why = "as ELECTRA was published"
    elif is_encoder and num_rows is not None and num_rows < FEW_ROWS:
        value, why = FEW_SAMPLE, "few rows: keep the lower layers"
    source = "practice-counts" if lineage == "electra" else "few-sample-bert"
    return Estimate(value=value, low=min(value, 0.8), high=1.0, unit="per layer", source=source, why=why)


def head_multiplier(
    *, method: str, is_encoder: bool, learning_rate: float, num_steps: int, num_labels: int | None = None
) -> Estimate:
    """Factor on the rate of a new classification head.

    LoRA: the head is trained near 1e-3 (evidence `bitfit-readme`). Full encoders: published grids use one rate, for
    runs in which it has the steps to arrive; in a short run the head gets what it lacks (`small-encoder`).
    """
    source = "bitfit-readme" if method != "full" else "practice-fits"
    if method != "full":
        value = min(max(HEAD_RATE / learning_rate, 1.0), HEAD_MOST)
        why = f"puts the head near {HEAD_RATE:g}"
    elif is_encoder:
        wanted = HEAD_MOVE * math.log2(max(num_labels or 2, 2))
        value = min(max(wanted / (0.5 * learning_rate * num_steps), 1.0), HEAD_MOST)
        short = value > 1.05
        source = "small-encoder" if short else source
        why = (
            "a new head needs more in a run this short" if short else "long enough for one rate, as in published grids"
        )
    else:
        value, why = HEAD_FULL_DECODER, "a new head starts from nothing"
    return Estimate(value=round(value, 1), low=1.0, high=10.0, unit="x", source=source, why=why)
