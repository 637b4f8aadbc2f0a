"""Adapters that go on the same layers of one base, and the proof that rows of them compute what PEFT computes.

Where the proof fails (experts of a mixture, a layer that the packed form does not know), PEFT trains one trial at a time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from finestep.recipe import Recipe
from finestep.train.adapters import AdapterRows
from finestep.train.loss import TokenLoss
from finestep.train.memory import is_out_of_memory
from finestep.train.new_weights import trained_whole
from finestep.train.targets import Targets, attach, can_share_a_pass, detach, find_targets, structure_of
from finestep.train.tokens import Batch, TrainingData, collate
from finestep.train.whole_model import load_trained, trained

SAME_FLOAT32, SAME_BFLOAT16 = 2e-3, 5e-2
"""Largest difference of two ways to compute a gradient, as a share of its largest entry."""
SHAKE = 0.02
"""Noise on the adapters during the proof: a fresh adapter adds nothing, so that a fault could not be seen."""


@dataclass(frozen=True)
class AdapterFamily:
    """Where the adapters go, and why a trial of them must train alone (None: several can share a pass)."""

    targets: Targets
    why_alone: str | None

    @property
    def shares_a_pass(self) -> bool:
        """True when the adapters can be rows on one base (`adapters.AdapterRows`)."""
        return self.why_alone is None


def find_family(
    base: Any,
    recipe: Recipe,
    *,
    data: TrainingData,
    token_loss: TokenLoss,
    new_names: list[str],
    outside: list[str],
    adapter: Path | None = None,
) -> AdapterFamily:
    """Choose the layers for adapters like that of `recipe`, and try whether rows of adapters compute them.

    It leaves the base without an adapter.

    Args:
        adapter: folder of an adapter that goes on; its layers are chosen already.

    Raises:
        BadInput: no adapter can be attached.
    """
    is_classifier = bool(data.label_names)
    trial = _Trial(base, token_loss, _two_rows(data, token_loss.placement.device))
    if adapter is not None:
        targets = Targets("all-linear", None, (), continues=str(adapter))
        return AdapterFamily(targets, _why_alone(trial, recipe, targets, is_classifier=is_classifier))
    untouched = trial.loss()
    targets = find_targets(
        base,
        recipe,
        saved=trained_whole(base, new_names, is_classifier=is_classifier),
        outside=outside,
        is_classifier=is_classifier,
        works=lambda model: trial.fault_of(model, untouched),
    )
    return AdapterFamily(targets, _why_alone(trial, recipe, targets, is_classifier=is_classifier))


def _why_alone(trial: _Trial, recipe: Recipe, targets: Targets, *, is_classifier: bool) -> str | None:
    """Why rows of adapters cannot stand for PEFT's own computation, or None when losses and gradients agree."""
    structure = structure_of(trial.base)
    model = attach(trial.base, recipe, targets, is_classifier=is_classifier)
    try:
        if not can_share_a_pass(model):
            return "PEFT computes adapters on experts, embeddings or other layers for one trial at a time"
        values = _shaken(model)
        load_trained(model, values)
        loss = trial.backward()
        gradients = {name: value.grad for name, value in trained(model).items()}
        scale = _scale_of(model)
    finally:
        detach(trial.base, structure)
    return _difference(trial, recipe, values, loss=loss, gradients=gradients, scale=scale)


def _difference(
    trial: _Trial,
    recipe: Recipe,
    values: Mapping[str, torch.Tensor],
    *,
    loss: float,
    gradients: Mapping[str, torch.Tensor | None],
    scale: float,
) -> str | None:
    rows = AdapterRows(trial.base, trial.token_loss.placement.device, dropout=recipe.lora.dropout)
    try:
        rows.join(0, values, scale=scale)
        packed_loss = trial.backward()
        packed = rows.gradients(0)
    except (RuntimeError, ValueError, TypeError, AttributeError, NotImplementedError) as error:
        if is_out_of_memory(error):
            raise
        return f"rows of adapters cannot be computed in this model ({str(error).splitlines()[0][:80]})"
    finally:
        rows.uninstall()
    if not math.isclose(packed_loss, loss, rel_tol=trial.tolerance):
        return "rows of adapters do not give PEFT's loss in this model"
    for name, wanted in gradients.items():
        found = packed[name]
        wanted = torch.zeros_like(found) if wanted is None else wanted.to(found)
        if (found - wanted).abs().max() > trial.tolerance * wanted.abs().max() + 1e-7:
            return "rows of adapters do not give PEFT's gradients in this model"
    return None


class _Trial:
    """Loss and gradients of a model on a few rows of the data, in evaluation mode."""

    def __init__(self, base: Any, token_loss: TokenLoss, batch: Batch):
        self.base, self.token_loss, self._batch = base.eval(), token_loss, batch
        self.tolerance = SAME_FLOAT32 if token_loss.placement.is_exact else SAME_BFLOAT16

    @torch.no_grad()
    def loss(self) -> float:
        """The loss of the rows, without gradients."""
        return float(self.token_loss.sum(self.base, self._batch))

    def backward(self) -> float:
        """The loss of the rows; gradients are added to what is trained."""
        loss = self.token_loss.sum(self.base, self._batch)
        loss.backward()
        return float(loss.detach())

    def fault_of(self, model: Any, untouched: float) -> str | None:
        """What is wrong with a fresh adapter: it must change nothing yet, and gradients must reach it."""
        loss = self.backward()
        reached = [value.grad is not None for name, value in trained(model).items() if ".lora_B" in name]
        model.zero_grad(set_to_none=True)
        if not math.isclose(loss, untouched, rel_tol=self.tolerance):
            return "a fresh adapter on them changes the loss"
        return None if any(reached) else "no gradient reaches an adapter on them"


def _two_rows(data: TrainingData, device: torch.device) -> Batch:
    """The shortest row and one of about median length."""
    by_length = np.argsort(data.train.lengths, kind="stable")
    return collate(data.train, by_length[[0, len(by_length) // 2]], pad_id=data.pad_id, device=device)


def _shaken(model: Any) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(7)
    return {
        name: value.detach() + SHAKE * torch.randn(value.shape, generator=draw).to(value.device)
        for name, value in trained(model).items()
    }


def _scale_of(model: Any) -> float:
    """The factor of the adapters' output, which PEFT keeps in each layer."""
    from peft.tuners.lora.layer import LoraLayer

    return next(float(module.scaling["default"]) for module in model.modules() if isinstance(module, LoraLayer))
