"""How far a model has moved from its base on general text."""

from __future__ import annotations

from finestep.diagnosis.catalogue import found
from finestep.finding import Finding

FORGETTING_BUDGET = 0.1
"""KL divergence from the base model in nats per token that is usually tolerated. Source: science notes 8
(judgement)."""


def forgetting_findings(kl_nats: float, *, budget: float = FORGETTING_BUDGET) -> list[Finding]:
    """Too far from the base model on general text."""
    if not kl_nats > budget:
        return []
    return [
        found(
            "forgetting",
            f"On general text the model has moved {kl_nats:.3g} nats per token away from its base (budget {budget:g}).",
            advice="lower the learning rate by 2, train less, or use LoRA; expect 2-5 times for full fine-tuning",
            confidence=0.7,
            kl_nats=kl_nats,
            budget=budget,
        )
    ]
