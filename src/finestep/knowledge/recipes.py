"""Public recipes: what others used, with the page where it was read; finding the ones that are near is a rule's
work."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from finestep.knowledge.packaged import records


@dataclass(frozen=True, slots=True)
class PublicOrigin:
    """Where a recipe was read. `measured`: its rate is the best of some that were tried."""

    source_url: str
    source_kind: str
    note: str = ""
    measured: bool = False

    @property
    def is_template(self) -> bool:
        """A framework's example file, which repeats one number for all models."""
        return self.source_kind == "framework-example"


@dataclass(frozen=True, slots=True)
class PublicData:
    """What was trained on, and for how long. None = not stated."""

    dataset: str | None = None
    train_examples: int | None = None
    epochs: float | None = None
    max_steps: int | None = None
    max_seq_len: int | None = None


@dataclass(frozen=True, slots=True)
class PublicTraining:
    """How the weights were moved, rate and batch aside. None = not stated. `llrd`: factor on the rate from layer to layer."""

    optimizer: str | None = None
    lr_schedule: str | None = None
    warmup_ratio: float | None = None
    warmup_steps: int | None = None
    weight_decay: float | None = None
    grad_clip: float | None = None
    llrd: float | None = None


@dataclass(frozen=True, slots=True)
class PublicRecipe:
    """One published fine-tuning recipe. None = not stated. `params` is the nominal size in parameters."""

    id: str
    model: str
    family: str
    architecture: str
    method: str
    task: str
    origin: PublicOrigin
    params: int | None = None
    learning_rate: float | None = None
    effective_batch_size: int | None = None
    lora_rank: int | None = None
    lora_alpha: float | None = None
    data: PublicData = PublicData()
    training: PublicTraining = PublicTraining()


@cache
def public_recipes() -> tuple[PublicRecipe, ...]:
    """All public recipes, in the order of collection."""
    return records("recipes.jsonl", PublicRecipe)
