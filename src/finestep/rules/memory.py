"""How much memory a run needs, from shapes alone: an estimate, to be replaced by a measurement on the machine.

Bytes a token and layer (16-bit base, attention without its square): full 22 h + 8 i; LoRA 30 h + 12 i (its inputs are
cast to float32);
checkpointing leaves 2 h. Logits: 12 bytes an entry of the vocabulary; with
checkpointing the one recomputed layer is only held when they are not. Fitted to Llama-3.1-8B (evidence
`activation-memory`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from finestep.facts import HardwareFacts, ModelFacts
from finestep.recipe import Method
from finestep.rules.adapter import adapter_parameters

GIB = 2**30
Checkpointing = Literal["off", "on"]
WEIGHT_BYTES = {"full": 4.0, "lora": 2.0, "qlora": 0.58}
"""Full keeps float32 weights under 16-bit arithmetic; QLoRA's NF4 takes 4.5 bits plus 16-bit embeddings, about 0.58
in all."""
TRAINED_BYTES_FULL, TRAINED_BYTES_ADAPTER = 12.0, 16.0
LAYER_BYTES = {"full": (22.0, 8.0), "lora": (30.0, 12.0), "qlora": (30.0, 12.0)}
CHECKPOINT_BYTES, LOGIT_BYTES = 2.0, 12.0
RESERVED_BYTES, USABLE_SHARE = int(0.7 * GIB), 0.95
LOW_FACTOR, HIGH_FACTOR = 0.8, 1.25


@dataclass(frozen=True, slots=True)
class MemoryNeed:
    """Peak bytes on one device, by what they hold. `weights` includes the frozen base."""

    weights: int
    optimizer: int
    activations: int
    logits: int

    @property
    def total(self) -> int:
        """All of it, without what the driver keeps."""
        return self.weights + self.optimizer + self.activations + self.logits


@dataclass(frozen=True, slots=True)
class Load:
    """What runs on one device: rows per forward pass, tokens per row, adapter rank, and whether activations are
    recomputed."""

    method: Method
    micro_batch: int
    length: int
    rank: int = 16
    checkpointing: Checkpointing = "off"


def memory_need(model: ModelFacts, load: Load) -> MemoryNeed:
    """Peak memory of training `model` under `load`."""
    params = model.num_parameters or 0
    trained = 0 if load.method == "full" else adapter_parameters(model, load.rank)
    optimizer = params * TRAINED_BYTES_FULL if load.method == "full" else trained * TRAINED_BYTES_ADAPTER
    tokens = load.micro_batch * load.length
    logits = tokens * LOGIT_BYTES * _vocabulary(model)
    kept, layer = _activation_bytes(model, load)
    spare = max(tokens * layer - logits, 0.0) if load.checkpointing == "on" else 0.0
    return MemoryNeed(
        weights=int(params * WEIGHT_BYTES[load.method]),
        optimizer=int(optimizer),
        activations=int(tokens * kept + spare),
        logits=int(logits),
    )


def _activation_bytes(model: ModelFacts, load: Load) -> tuple[float, float]:
    """(bytes a token that all layers keep for the backward pass, bytes of one whole layer)."""
    hidden, inner, layers = shape(model)
    per_hidden, per_inner = LAYER_BYTES[load.method]
    layer = per_hidden * hidden + per_inner * inner
    return (layer if load.checkpointing == "off" else CHECKPOINT_BYTES * hidden) * layers, layer


def _vocabulary(model: ModelFacts) -> int:
    return 0 if model.is_encoder else model.shape.vocabulary_size or 128_000


def shape(model: ModelFacts) -> tuple[int, int, int]:
    """(hidden, intermediate, layers), guessed from the parameters when unknown: layers near hidden / 128, 12 h^2 a
    layer."""
    if model.shape.hidden_size and model.shape.num_layers:
        return (
            model.shape.hidden_size,
            model.shape.intermediate_size or 4 * model.shape.hidden_size,
            model.shape.num_layers,
        )
    hidden = max(64, round(((model.num_parameters or 0) * 128 / 12) ** (1 / 3)))
    return hidden, round(3.5 * hidden), max(1, round(hidden / 128))


def usable_bytes(hardware: HardwareFacts) -> int | None:
    """What training may take of one device; None when its memory is unknown."""
    if hardware.memory_bytes is None:
        return None
    reserved = RESERVED_BYTES if hardware.device == "cuda" else 2 * GIB
    return int((hardware.memory_bytes - reserved) * USABLE_SHARE)


def largest_micro_batch(model: ModelFacts, load: Load, *, budget: int, most: int) -> int:
    """The largest power of two, at most `most`, that fits into `budget` bytes; 0 when not even one row does."""
    fits, size = 0, 1
    while size <= most:
        trial = Load(load.method, size, load.length, load.rank, load.checkpointing)
        if memory_need(model, trial).total > budget:
            break
        fits, size = size, size * 2
    return fits
