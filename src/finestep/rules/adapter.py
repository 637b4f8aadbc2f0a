"""Rank and alpha of LoRA: alpha 32 always, rank by how much there is to learn; it knows no learning rate.

alpha and the learning rate are interchangeable to first order, so only one is tuned (evidence `rate-law`: about
alpha^-0.6). An adapter should have about as many parameters as loss-bearing tokens
(`capacity`).
"""

from __future__ import annotations

from finestep.estimate import Estimate
from finestep.facts import ModelFacts

DEFAULT_RANK, ALPHA = 16, 32.0
RANKS = (16, 32, 64, 128)


def lora_rank(model: ModelFacts, *, num_trained_tokens: int | None) -> Estimate:
    """Rank: 16, or the smallest of 32, 64, 128 whose adapter holds the trained tokens."""
    fits = [r for r in RANKS if num_trained_tokens is None or adapter_parameters(model, r) >= num_trained_tokens]
    value = float(fits[0] if fits else RANKS[-1])
    why = "enough for most sets; more data want more"
    if num_trained_tokens is not None and value > DEFAULT_RANK:
        why = f"{num_trained_tokens:,} trained tokens want about as many adapter parameters"
    return Estimate(value=value, low=8, high=max(64.0, value), unit="", source="capacity", why=why)


def lora_alpha() -> Estimate:
    """alpha = 32 whatever the rank."""
    return Estimate(
        value=ALPHA,
        low=16,
        high=64,
        unit="",
        source="tinker-sweep",
        why="that of the largest sweep; the rate is for it",
    )


def adapter_parameters(model: ModelFacts, rank: int) -> int:
    """Trainable parameters of LoRA on all linear layers, from the shape; 0.3 % x rank / 16 of the model when it is
    unknown."""
    h, i, layers = model.shape.hidden_size, model.shape.intermediate_size, model.shape.num_layers
    if not (h and i and layers):
        return int((model.num_parameters or 0) * 0.003 * rank / DEFAULT_RANK)
    heads = model.shape.num_attention_heads or 1
    kv = h * (model.shape.num_key_value_heads or heads) // heads
    mlp = 2 * (h + i) if model.is_encoder else 3 * (h + i)
    return rank * layers * (2 * (h + h) + 2 * (h + kv) + mlp)
