"""The public recipes nearest to a setting, with their rates moved to it: shown beside the answer, they do not move it.

Similarity: exp(-distance), distance = (difference of log10 parameters / 0.4)^2 + 0.5 for another family + 0.3 for
another task
+ 1.0 for a framework's template - 0.3 for a measured optimum - 0.5 for the very model. Only recipes of the same
method group and architecture
count.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

from finestep.knowledge.packaged import practice
from finestep.knowledge.recipes import PublicRecipe, public_recipes

METHOD_GROUPS = {
    "full": ("full",),
    "lora": ("lora", "dora", "qlora"),
    "prompt": ("prefix", "p-tuning"),
}
"""LoRA and QLoRA are one group: a 4-bit base does not move the best rate."""
SIZE_SCALE_DEX, OTHER_FAMILY, OTHER_TASK, TEMPLATE, MEASURED, SAME_MODEL = 0.4, 0.5, 0.3, 1.0, -0.3, -0.5
RANK_EXPONENT, ALPHA_EXPONENT, BATCH_EXPONENT = 0.2, -0.6, 0.3
"""What the law says of LoRA, rounded: enough to move a recipe to another adapter and batch (evidence `rate-law`)."""


@dataclass(frozen=True, slots=True)
class Target:
    """The setting for which recipes are sought. `task` is a word of the public recipes or None."""

    group: str
    architecture: str
    params: float
    family: str | None
    task: str | None
    batch: float
    rank: int | None = None
    alpha: float | None = None
    model: str | None = None


@dataclass(frozen=True, slots=True)
class Neighbour:
    """One public recipe, how similar it is (1 = like a twin; measured optima reach above), and its learning rate
    moved to the target's rank, alpha and
    batch."""

    recipe: PublicRecipe
    similarity: float
    moved_learning_rate: float


def nearest(target: Target, *, exclude_families: Sequence[str] = ()) -> list[Neighbour]:
    """All comparable public recipes, the most similar first; of copies (same model, rate and batch) only the first."""
    return list(_nearest(target, tuple(exclude_families)))


@lru_cache(maxsize=256)
def _nearest(target: Target, exclude_families: tuple[str, ...]) -> tuple[Neighbour, ...]:
    """Several questions about one setting ask for the same neighbours."""
    found = [_neighbour(row, target) for row in _comparable(target, exclude_families)]
    found.sort(key=lambda n: -n.similarity)
    return tuple(_without_copies(found))


def _comparable(target: Target, exclude_families: Sequence[str]) -> Iterable[PublicRecipe]:
    return (row for row in _of_group(target.group, target.architecture) if row.family not in exclude_families)


@cache
def _of_group(group: str, architecture: str) -> tuple[PublicRecipe, ...]:
    methods = METHOD_GROUPS[group]
    rows = (row for row in public_recipes() if row.method in methods and row.architecture == architecture)
    return tuple(row for row in rows if _usable(row))


def _usable(row: PublicRecipe) -> bool:
    adam = "adafactor" not in (row.training.optimizer or "").lower()
    plain = not any(word in row.origin.note for word in ("PiSSA", "MiLoRA"))
    return row.learning_rate is not None and row.params is not None and adam and plain and row.task != "preference"


def _neighbour(row: PublicRecipe, target: Target) -> Neighbour:
    distance = (math.log10((row.params or 1) / target.params) / SIZE_SCALE_DEX) ** 2
    distance += OTHER_FAMILY * (row.family != target.family)
    distance += OTHER_TASK * (target.task is not None and row.task != target.task)
    distance += TEMPLATE * row.origin.is_template + MEASURED * row.origin.measured
    same = target.model is not None and row.model.split("/")[-1].lower() == target.model.split("/")[-1].lower()
    distance += SAME_MODEL * same
    return Neighbour(row, math.exp(-distance), _moved(row, target))


def _moved(row: PublicRecipe, target: Target) -> float:
    rate = row.learning_rate or 0.0
    if target.group == "prompt":
        return rate
    if target.architecture == "encoder" and row.params:
        rate *= (target.params / row.params) ** practice()[f"{target.group}-encoder"]["slope"]
    if row.effective_batch_size:
        rate *= (target.batch / row.effective_batch_size) ** BATCH_EXPONENT
    if target.rank and row.lora_rank:
        rate *= (target.rank / row.lora_rank) ** RANK_EXPONENT
    if target.alpha and row.lora_alpha:
        rate *= (target.alpha / row.lora_alpha) ** ALPHA_EXPONENT
    return rate


def _without_copies(found: list[Neighbour]) -> list[Neighbour]:
    seen: set[tuple[object, ...]] = set()
    out: list[Neighbour] = []
    for neighbour in found:
        row = neighbour.recipe
        key = (row.model.lower(), row.method, row.learning_rate, row.effective_batch_size)
        if key not in seen:
            seen.add(key)
            out.append(neighbour)
    return out
