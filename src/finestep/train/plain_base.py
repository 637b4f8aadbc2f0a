"""The base as a plain model: as it was loaded, with one adapter of PEFT, or whole in training; and the way back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from finestep.recipe import Recipe
from finestep.train.targets import Targets, attach, detach, structure_of
from finestep.train.whole_model import load_trained, trained

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


class PlainBase:
    """One base in one of these states.

    Args:
        outside: parts that text never reaches, which stay frozen.

    Attributes:
        model: what trains now: the base, or PEFT's model around it.
    """

    def __init__(self, base: PreTrainedModel, outside: Sequence[str]):
        self._base = base
        self.model: PreTrainedModel | PeftModel = base
        self._outside = outside
        self._structure = structure_of(base)
        self._untouched: dict[str, torch.Tensor] = {}

    def whole(self) -> PreTrainedModel:
        """The base with everything in training that text can reach."""
        self._unfreeze()
        # Full fine-tuning changes the base, so that its first weights must be kept to begin the next trial.
        self._untouched = self._untouched or copies(self._base)
        return self._base

    def adapted(self, recipe: Recipe, targets: Targets, *, is_classifier: bool) -> PeftModel:
        """The base with a new adapter."""
        self.model = adapted = attach(self._base, recipe, targets, is_classifier=is_classifier)
        return adapted

    def put_back(self) -> None:
        """The base as it was loaded."""
        # PEFT's own `unload` leaves trained heads behind; the structure that was noted at the start tells all of them.
        if self.model is not self._base:
            detach(self._base, self._structure)
            self.model = self._base
        if self._untouched:
            self._unfreeze()
            load_trained(self._base, self._untouched)
            self._base.zero_grad(set_to_none=True)

    def _unfreeze(self) -> None:
        self._base.requires_grad_(True)
        for name in self._outside:
            self._base.get_submodule(name).requires_grad_(False)


def copies(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The trained tensors of a model, copied to the host."""
    return {name: value.detach().to("cpu", copy=True) for name, value in trained(model).items()}
