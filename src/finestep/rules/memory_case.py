"""What a step consists of on a device, as far as memory is concerned: dtypes as `train/model.py` chooses them, and the loss's chunks."""

from __future__ import annotations

from finestep.facts import HardwareFacts, ModelFacts
from finestep.probe import Lever, MemoryCase, OptimizerName
from finestep.recipe import Recipe

CHUNK_BYTES = 128 * 2**20
LEAST_CHUNK, LARGEST_CHUNK = 64, 4096


def memory_case(
    recipe: Recipe, hardware: HardwareFacts, *, num_labels: int | None = None, optimizer: OptimizerName = "adamw"
) -> MemoryCase:
    """float32 on CPU and MPS; on CUDA bfloat16 arithmetic, with float32 weights for method `full` only."""
    on_bf16 = hardware.device == "cuda" and hardware.supports_bf16
    return MemoryCase(
        method=recipe.method,
        rank=recipe.lora.rank,
        target_modules=recipe.lora.target_modules,
        optimizer=optimizer,
        weights_dtype="bfloat16" if on_bf16 and recipe.method != "full" else "float32",
        autocast=on_bf16,
        num_labels=num_labels,
    )


def chunk_tokens(vocabulary_size: int | None) -> int:
    """Tokens per piece of a chunked cross entropy: a power of two whose float32 logits take at most 128 MiB.

    >>> chunk_tokens(128_256), chunk_tokens(32_000), chunk_tokens(4_096)
    (256, 1024, 4096)
    """
    tokens = CHUNK_BYTES // (4 * (vocabulary_size or 128_000))
    return max(LEAST_CHUNK, min(LARGEST_CHUNK, 1 << (tokens.bit_length() - 1)))


def levers(model: ModelFacts, *, is_causal: bool) -> tuple[Lever, ...]:
    """The settings that are compared, from none to both; a classifier has no logits worth cutting."""
    chunks = [None, chunk_tokens(model.shape.vocabulary_size)] if is_causal else [None]
    return tuple(Lever(checkpointing=on, chunk_tokens=chunk) for on in (False, True) for chunk in chunks)
