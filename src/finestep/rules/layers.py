"""Learning rates inside the model: decay toward the input for encoders on little data, and the factor of a new head."""

from __future__ import annotations

from finestep.estimate import Estimate

FEW_ROWS = 5_000
ELECTRA_BASE, ELECTRA_LARGE, ELECTRA_LARGE_LAYERS, FEW_SAMPLE = 0.8, 0.9, 24, 0.95
HEAD_RATE, HEAD_MOST_LORA, HEAD_FULL_DECODER = 1e-3, 10.0, 5.0


def layerwise_decay(*, is_encoder: bool, lineage: str | None, num_layers: int | None, num_rows: int | None) -> Estimate:
    """Factor per layer toward the input; 1 = off. Its benefit is small once training is long enough (evidence
    `bert-stability`)."""
    value, why = 1.0, "rarely helps here"
    if is_encoder and lineage == "electra":
        value = ELECTRA_LARGE if (num_layers or 0) >= ELECTRA_LARGE_LAYERS else ELECTRA_BASE
        why = "as ELECTRA was published"
    elif is_encoder and num_rows is not None and num_rows < FEW_ROWS:
        value, why = FEW_SAMPLE, "few rows: keep the lower layers"
    source = "electra-llrd" if lineage == "electra" else "bert-stability"
    return Estimate(value=value, low=min(value, 0.8), high=1.0, unit="per layer", source=source, why=why)


def head_multiplier(*, method: str, is_encoder: bool, learning_rate: float) -> Estimate:
    """Factor on the rate of a new classification head.

    LoRA: the head is trained near 1e-3 (evidence `encoder-practice`). Full encoders: published grids use one rate for
    all.
    """
    if method == "full":
        value = 1.0 if is_encoder else HEAD_FULL_DECODER
        why = "published encoder grids use one rate" if is_encoder else "a new head starts from nothing"
    else:
        value = min(max(HEAD_RATE / learning_rate, 1.0), HEAD_MOST_LORA)
        why = f"puts the head near {HEAD_RATE:g}"
    return Estimate(
        value=round(value, 1),
        low=1.0,
        high=10.0,
        unit="x",
        source="encoder-practice" if is_encoder else "lp-ft",
        why=why,
    )
