"""Recommendation: a starting recipe with the interval, source and derivation of each number; plain values, no rules."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

from finestep.estimate import Estimate
from finestep.facts import DataFacts, HardwareFacts, ModelFacts
from finestep.recipe import Recipe

if TYPE_CHECKING:
    from IPython.lib.pretty import RepresentationPrinter


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class DerivationStep(_Value):
    """One step of how a number came about. `factor` multiplies, `doubt` is the factor of one standard deviation."""

    name: str
    factor: float
    doubt: float
    source: str
    why: str


class NearRecipe(_Value):
    """A public recipe that is similar, as published, and its rate moved to this setting's rank, alpha and batch."""

    id: str
    model: str
    method: str
    task: str
    learning_rate: float
    moved_learning_rate: float
    effective_batch_size: int | None
    similarity: float = Field(ge=0, le=1)
    measured: bool = Field(description="The best of a sweep, not only what somebody used.")
    source_url: str


class WhatIf(_Value):
    """One thing that would change the answer: what to do, and the learning rate or the width that would follow."""

    action: str
    effect: str
    importance: float = Field(description="Size of the change in dex; the list is sorted by it.")


class Recommendation(_Value):
    """What to start from, and why. `recipe` is None for methods that finestep does not train (p-tuning and the
    like)."""

    method: str = Field(description="full, lora, qlora, a LoRA variant, or a prompt method.")
    recipe: Recipe | None
    model: ModelFacts
    data: DataFacts | None
    hardware: HardwareFacts | None
    estimates: dict[str, Estimate] = Field(description="By dotted field name of the recipe, and a few more.")
    log10_center: float = Field(
        description="Centre of the learning rate's interval, log10; the aim may lie left of it."
    )
    log10_sd: float = Field(description="Standard deviation of log10 of the best learning rate.")
    neighbours: tuple[NearRecipe, ...] = ()
    derivation: tuple[DerivationStep, ...] = ()
    what_ifs: tuple[WhatIf, ...] = ()
    assumptions: tuple[str, ...] = Field((), description="What was not known and what was taken instead.")
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        """The numbers that matter most, each with its interval."""
        lines = [f"method: {self.method}"]
        for name in ("learning_rate", "effective_batch_size", "num_epochs"):
            if (one := self.estimates.get(name)) is not None:
                lines.append(f"{name.replace('_', ' ')}: {one.value:.3g} (between {one.low:.3g} and {one.high:.3g})")
        return "\n".join([*lines, *self.assumptions, *self.notes])

    def _repr_pretty_(self, printer: RepresentationPrinter, cycle: bool) -> None:
        """What a notebook shows."""
        printer.text(str(self))
