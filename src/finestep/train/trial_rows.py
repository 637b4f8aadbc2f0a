"""What the training loop asks of the place where trained tensors live: `adapters.AdapterRows` and `whole_model.WholeModel` give it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Protocol

import torch

from finestep.train.update import StepFigures, UpdatePlan

Values = Mapping[str, torch.Tensor]
"""Trained tensors by their names in a saved adapter or model."""


class TrialRows(Protocol):
    """The trained tensors of some trials, each trial under its number."""

    keys: list[int]

    def join(self, key: int, values: Values, *, scale: float, moments: Values | None = None) -> None:
        """Take a trial in, with its tensors and Adam's moments (None: Adam begins)."""

    def leave(self, key: int) -> None:
        """Give up a trial."""

    def values(self, key: int) -> dict[str, torch.Tensor]:
        """A trial's tensors by name."""

    def load(self, key: int, values: Values) -> None:
        """Write a trial's tensors."""

    def moments(self, key: int) -> dict[str, torch.Tensor]:
        """Adam's moments by `name.exp_avg` and `name.exp_avg_sq`."""

    def load_moments(self, key: int, moments: Values) -> None:
        """Write Adam's moments."""

    def num_values(self, key: int) -> int:
        """Trained numbers of a trial."""

    def after_pass(self) -> None:
        """Take up the gradients of a backward pass."""

    def notice_changes(self) -> None:
        """Take up what an optimizer of PyTorch has done to the parameters: changed values, dropped gradients."""

    def add_losses(self, losses: torch.Tensor) -> None:
        """Add the losses of a pass to those of the steps in the making, one a trial."""

    def make_room(self, plan: UpdatePlan) -> None:
        """Allocate what an optimizer step will hold, and touch nothing else."""

    def update(self, plans: Mapping[int, UpdatePlan]) -> dict[int, StepFigures]:
        """One optimizer step of the planned trials; clears their gradients and losses."""

    def zero_grad(self, key: int) -> None:
        """Clear a trial's gradients, and the loss of its step in the making."""

    def only(self, key: int) -> AbstractContextManager[None]:
        """Inside, a forward pass serves this trial alone."""

    def uninstall(self) -> None:
        """Put the base back as it was."""
