"""A trial that trains alone: its values are the model's own parameters, of a whole model or of an adapter that PEFT put into it.

It gives what `trial_rows.TrialRows` asks for, as `adapters.AdapterRows` does: the training loop need not know which of the two it serves.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from finestep.errors import BadInput
from finestep.recipe import OptimizerGroup
from finestep.train.optimizer import ParameterRow, Slice, parameter_table
from finestep.train.trial_rows import Values


class WholeModel:
    """The row of a trial that trains alone: the parameters of `model` that need gradients, which may be all or those of a PEFT adapter."""

    def __init__(self, model: Any):
        self.model = model
        self.keys: list[int] = []
        self._moments: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
        self._table: list[ParameterRow] = []

    def join(self, key: int, values: Values, *, scale: float, moments: Values | None = None) -> None:
        """Take the one trial in: its values are in the model already when they are the initial ones."""
        self.keys = [key]
        self._moments, self._table = {}, []
        self.load(key, values)
        if moments:
            self.load_moments(key, moments)

    def leave(self, key: int) -> None:
        """Forget the trial."""
        self.keys, self._moments = [], {}
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
                    moments[f"{name}.{kind}"].to(value.device, copy=True) for kind in ("exp_avg", "exp_avg_sq")
                )

    def slices(self, key: int, settings: OptimizerGroup, new_names: list[str]) -> list[Slice]:
        """One slice a parameter that has a gradient."""
        parameters = trained(self.model)
        self._table = self._table or parameter_table(parameters, settings, new_names)
        out = []
        for row in self._table:
            value = parameters[row.name]
            if value.grad is None:
                continue
            if row.name not in self._moments:
                self._moments[row.name] = (torch.zeros_like(value), torch.zeros_like(value))
            out.append(Slice(value.detach(), value.grad, *self._moments[row.name], row.lr_factor, row.weight_decay))
        return out

    def zero_grad(self, key: int) -> None:
        """Drop the gradients."""
        self.model.zero_grad(set_to_none=True)

    @contextmanager
    def only(self, key: int) -> Iterator[None]:
        """There is only one."""
        yield

    def uninstall(self) -> None:
        """Nothing was put into the model."""


def trained(model: Any) -> dict[str, torch.Tensor]:
    """The parameters that training changes, by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


@torch.no_grad()
def load_trained(model: Any, values: Values) -> None:
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
            parameter.copy_(values[name].to(parameter.device, parameter.dtype))
