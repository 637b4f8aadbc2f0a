"""Public recipes: what others used, with the page where it was read; finding the ones that are near is a rule's
work."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from finestep.knowledge.packaged import records


@dataclass(frozen=True, slots=True)
class PublicRecipe:
    """One published fine-tuning recipe. None = not stated. `params` is the nominal size in parameters."""

    id: str
    model: str
    family: str
    architecture: str
    method: str
    task: str
    source_url: str
    source_kind: str
    params: int | None = None
    dataset: str | None = None
    train_examples: int | None = None
    epochs: float | None = None
    max_steps: int | None = None
    learning_rate: float | None = None
    lr_schedule: str | None = None
    warmup_ratio: float | None = None
    warmup_steps: int | None = None
    effective_batch_size: int | None = None
    max_seq_len: int | None = None
    optimizer: str | None = None
    weight_decay: float | None = None
    grad_clip: float | None = None
    lora_rank: int | None = None
    lora_alpha: float | None = None
    llrd: float | None = None
    note: str = ""
    measured: bool = False

    @property
    def is_template(self) -> bool:
        """A framework's example file, which repeats one number for all models."""
        return self.source_kind == "framework-example"


@cache
def public_recipes() -> tuple[PublicRecipe, ...]:
    """All public recipes, in the order of collection."""
    return records("recipes.jsonl", PublicRecipe)
