"""A trial that trains alone: its values are the model's own parameters, of a whole model or of an adapter that PEFT put into it.

It gives what `trial_rows.TrialRows` asks for, as `adapters.AdapterRows` does: the training loop need not know which of the two it serves.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch

from finestep.errors import BadInput
from finestep.train.devices import ALONE, Devices
from finestep.train.memory import unless_out_of_memory
from finestep.train.optimizer import ParameterRow, Slice, norms_from_moments, parameter_table
from finestep.train.sharding import fitted, forget_gathered, is_part, part_of
from finestep.train.trial_rows import Values
from finestep.train.update import StepFigures, UpdatePlan, apply_adamw, decide, norms_of, read_figures


class WholeModel:
    """The row of a trial that trains alone: the parameters of `model` that need gradients, which may be all or those of a PEFT adapter.

    Over several devices each has all of them, and gradients are added up; or each has a part of every one (`sharding.py`), and what
    PyTorch leaves in the gradients is this part of the sum.
    """

    def __init__(self, model: torch.nn.Module, *, devices: Devices = ALONE):
        self.model, self._devices = model, devices
        self._in_parts = devices.is_sharded and any(map(is_part, trained(model).values()))
        self.keys: list[int] = []
        self._moments: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
        self._table: list[ParameterRow] = []
        self._loss: torch.Tensor | None = None

    def join(self, key: int, values: Values, *, scale: float, moments: Values | None = None) -> None:
        """Take the one trial in: its values are in the model already when they are the initial ones."""
        self.keys = [key]
        self._moments, self._table = {}, []
        self.load(key, values)
        if moments:
            self.load_moments(key, moments)

    def leave(self, key: int) -> None:
        """Forget the trial."""
        self.keys, self._moments, self._loss = [], {}, None
        self.model.zero_grad(set_to_none=True)

    def values(self, key: int) -> dict[str, torch.Tensor]:
        """The trained parameters by name (not copies)."""
        return trained(self.model)

    def load(self, key: int, values: Values) -> None:
        """Write the trained parameters in place."""
        load_trained(self.model, values)

    def moments(self, key: int) -> dict[str, torch.Tensor]:
        """Adam's moments by `name.exp_avg` and `name.exp_avg_sq`."""
        out = {}
        for name, (first, second) in self._moments.items():
            out[f"{name}.exp_avg"], out[f"{name}.exp_avg_sq"] = first, second
        return out

    def load_moments(self, key: int, moments: Values) -> None:
        """Write Adam's moments; without any, Adam begins anew."""
        self._moments = {}
        for name, value in trained(self.model).items():
            if f"{name}.exp_avg" in moments:
                self._moments[name] = tuple(  # type: ignore[assignment]
                    fitted(
                        moments[f"{name}.{kind}"], torch.empty_like(value, dtype=moments[f"{name}.{kind}"].dtype)
                    ).clone()
                    for kind in ("exp_avg", "exp_avg_sq")
                )

    def num_values(self, key: int) -> int:
        """Trained numbers of the trial."""
        return sum(value.numel() for value in trained(self.model).values())

    def after_pass(self) -> None:
        """Nothing: autograd has put the gradients where they belong."""

    def notice_changes(self) -> None:
        """Nothing: the model's own parameters are what a pass sees."""

    def add_losses(self, losses: torch.Tensor) -> None:
        """Add the loss of a pass to that of the step in the making, [1]."""
        self._loss = losses if self._loss is None else self._loss + losses

    @torch.no_grad()
    def make_room(self, plan: UpdatePlan) -> None:
        """Adam's moments."""
        self.slices(plan)

    @torch.no_grad()
    def update(self, plans: Mapping[int, UpdatePlan]) -> dict[int, StepFigures]:
        """One optimizer step; the first one makes room for Adam's moments, before it touches anything."""
        ((key, plan),) = plans.items()
        # Adam's moments are made here, before anything is changed: when memory is too short for them, the same step can be made again.
        assert self._loss is not None
        share_gradients(trained(self.model), self._loss, self._devices)
        slices = self.slices(plan)
        norm = self._in_all(norms_of([[piece.grad for piece in slices]]))
        decision = decide(self._loss, norm, [plan])
        before = [piece.value.clone() for piece in slices] if plan.wants_descent else None
        apply_adamw(slices, plan, decision, 0)
        found: dict[str, torch.Tensor] = {}
        if before is not None:
            falls = [((old - piece.value) * piece.grad).sum() for old, piece in zip(before, slices, strict=True)]
            found["descent"] = torch.stack(falls).sum()[None]
            self._devices.add_up([found["descent"]]) if self._in_parts else None
        if plan.wants_norms:
            found |= self._norms(slices, plan)
        (figures,) = read_figures(decision, **found)
        if figures.update_norm is not None and math.isnan(figures.update_norm):
            figures = replace(figures, update_norm=None, weight_norm=None)
        self.zero_grad(key)
        return {key: figures}

    def _norms(self, slices: Sequence[Slice], plan: UpdatePlan) -> dict[str, torch.Tensor]:
        """Norms of update and weights. They are only told: where they do not fit into memory, the step counts without them."""
        norms = unless_out_of_memory(norms_from_moments, slices, plan.settings, plan.learning_rate, plan.num_steps)
        if norms is None and not self._in_parts:
            return {}
        # Of parts all devices must speak, also one whose memory was too short: what it adds is no number, and neither is the sum.
        parts = norms or (torch.tensor(math.nan, device=slices[0].value.device),) * 2
        return {
            name: self._in_all(part[None]) for name, part in zip(("update_norm", "weight_norm"), parts, strict=True)
        }

    def _in_all(self, parts: torch.Tensor) -> torch.Tensor:
        """Norms over all devices."""
        return self._devices.norm(parts) if self._in_parts else parts

    def slices(self, plan: UpdatePlan) -> list[Slice]:
        """One slice a parameter that has a gradient: this device's part of it."""
        parameters = trained(self.model)
        self._table = self._table or parameter_table(parameters, plan.settings, list(plan.new_names))
        out = []
        for row in self._table:
            value = parameters[row.name]
            if value.grad is None:
                continue
            if row.name not in self._moments:
                self._moments[row.name] = (torch.zeros_like(value), torch.zeros_like(value))
            first, second = map(part_of, self._moments[row.name])
            values, grad = part_of(value.detach()), part_of(value.grad)
            out.append(Slice(values, grad, first, second, row.lr_factor, row.weight_decay))
        return out

    def zero_grad(self, key: int) -> None:
        """Drop the gradients, and the loss of the step in the making."""
        self.model.zero_grad(set_to_none=True)
        self._loss = None

    @contextmanager
    def only(self, key: int) -> Iterator[None]:
        """There is only one."""
        yield

    def uninstall(self) -> None:
        """Nothing was put into the model."""


def share_gradients(parameters: Mapping[str, torch.Tensor], loss: torch.Tensor, devices: Devices) -> None:
    """Sums over the devices, in place; those of parts are sums already."""
    if devices.world == 1:
        return
    whole = [value for value in parameters.values() if not is_part(value)]
    # A parameter that no row of one device has reached (an expert of a mixture) may have a gradient on another.
    reached = devices.total(np.array([value.grad is not None for value in whole], dtype=np.float64))
    grads = []
    for value, count in zip(whole, reached, strict=True):
        if count and value.grad is None:
            value.grad = torch.zeros_like(value)
        grads += [value.grad] if value.grad is not None else []
    devices.add_up([*grads, loss])


def trained(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The parameters that training changes, by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


@torch.no_grad()
def load_trained(model: torch.nn.Module, values: Values) -> None:
    """Copy `values` into the trained parameters in place.

    Raises:
        BadInput: names or shapes do not fit (a checkpoint of another recipe).
    """
    parameters = trained(model)
    if parameters.keys() != values.keys():
        odd = sorted(parameters.keys() ^ values.keys())[:3]
        raise BadInput("the saved weights must fit the recipe's method and adapter", value=odd)
    for name, parameter in parameters.items():
        if parameter is not values[name]:
            parameter.copy_(fitted(values[name], parameter))
    if any(map(is_part, parameters.values())):
        forget_gathered(model)
