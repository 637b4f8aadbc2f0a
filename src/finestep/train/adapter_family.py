"""Adapters that go on the same layers of one base, and the proof that rows of them compute what PEFT computes.

Where the proof fails (experts of a mixture, a layer that the packed form does not know), PEFT trains one trial at a time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from finestep.recipe import Recipe
from finestep.train.adapters import AdapterRows
from finestep.train.batch import Batch, collate
from finestep.train.loss import TokenLoss
from finestep.train.memory import is_out_of_memory
from finestep.train.new_weights import trained_whole
from finestep.train.targets import Targets, attach, can_share_a_pass, detach, find_targets, structure_of
from finestep.train.tokens import TrainingData
from finestep.train.whole_model import load_trained, trained

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SAME_FLOAT32, SAME_BFLOAT16 = 2e-3, 5e-2
"""Largest difference of two ways to compute a gradient, as a share of its largest entry."""
BFLOAT16_STEP, ROUNDINGS = 2.0**-9, 3
"""In bfloat16 a difference of so many roundings is none."""
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
    base: PreTrainedModel,
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
        expected = _computed(trial, model, values)
        again = expected if trial.is_exact else _computed(trial, model, _rounded_otherwise(values))
        scale = _scale_of(model)
    finally:
        detach(trial.base, structure)
    return _difference(trial, recipe, values, expected=expected, again=again, scale=scale)


@dataclass(frozen=True)
class _Computed:
    """Loss and gradients of PEFT's own computation."""

    loss: float
    gradients: Mapping[str, torch.Tensor]


def _computed(trial: _Trial, model: torch.nn.Module, values: Mapping[str, torch.Tensor]) -> _Computed:
    load_trained(model, values)
    model.zero_grad(set_to_none=True)
    loss = trial.backward()
    return _Computed(
        loss,
        {
            name: torch.zeros_like(value) if value.grad is None else value.grad.clone()
            for name, value in trained(model).items()
        },
    )


def _rounded_otherwise(values: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same adapters, changed by half a unit in the last place of bfloat16: what rounding alone does to a gradient.

    A fixed tolerance would not do: the rounding of a deep model adds up over its layers.
    """
    draw = torch.Generator().manual_seed(11)
    return {
        name: value * (1 + BFLOAT16_STEP * torch.randn(value.shape, generator=draw).to(value.device))
        for name, value in values.items()
    }


def _difference(
    trial: _Trial,
    recipe: Recipe,
    values: Mapping[str, torch.Tensor],
    *,
    expected: _Computed,
    again: _Computed,
    scale: float,
) -> str | None:
    """What rows of adapters compute otherwise than PEFT, beyond what rounding does to PEFT itself; None: nothing."""
    placement = trial.token_loss.placement
    rows = AdapterRows(trial.base, placement.device, dropout=recipe.lora.dropout, dtype=placement.rows_dtype)
    try:
        trial.token_loss.is_native = placement.native_rows
        rows.join(0, values, scale=scale)
        packed_loss = trial.backward()
        packed = rows.gradients(0)
    except (RuntimeError, ValueError, TypeError, AttributeError, NotImplementedError) as error:
        if is_out_of_memory(error):
            raise
        return f"rows of adapters cannot be computed in this model ({str(error).splitlines()[0][:80]})"
    finally:
        rows.uninstall()
        trial.token_loss.is_native = False
    if abs(packed_loss - expected.loss) > trial.tolerance * abs(expected.loss) + ROUNDINGS * abs(
        again.loss - expected.loss
    ):
        return "rows of adapters do not give PEFT's loss in this model"
    for name, wanted in expected.gradients.items():
        found = packed[name]
        wanted = wanted.to(found)
        rounding = (again.gradients[name].to(found) - wanted).abs().max()
        if (found - wanted).abs().max() > trial.tolerance * wanted.abs().max() + ROUNDINGS * rounding + 1e-7:
            return "rows of adapters do not give PEFT's gradients in this model"
    return None


class _Trial:
    """Loss and gradients of a model on a few rows of the data, in evaluation mode."""

    def __init__(self, base: PreTrainedModel, token_loss: TokenLoss, batch: Batch):
        self.base, self.token_loss, self._batch = base.eval(), token_loss, batch
        self.is_exact = token_loss.placement.is_exact
        self.tolerance = SAME_FLOAT32 if self.is_exact else SAME_BFLOAT16

    @torch.no_grad()
    def loss(self) -> float:
        """The loss of the rows, without gradients."""
        return float(self.token_loss.sum(self.base, self._batch))

    def backward(self) -> float:
        """The loss of the rows; gradients are added to what is trained."""
        loss = self.token_loss.sum(self.base, self._batch)
        loss.backward()
        return float(loss.detach())

    def fault_of(self, model: torch.nn.Module, untouched: float) -> str | None:
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


def _shaken(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(7)
    return {
        name: value.detach() + SHAKE * torch.randn(value.shape, generator=draw).to(value.device)
        for name, value in trained(model).items()
    }


def _scale_of(model: torch.nn.Module) -> float:
    """The factor of the adapters' output, which PEFT keeps in each layer."""
    from peft.tuners.lora.layer import LoraLayer

    return next(float(module.scaling["default"]) for module in model.modules() if isinstance(module, LoraLayer))
