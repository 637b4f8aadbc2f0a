"""What the training loop asks of the place where trained tensors live: `adapters.AdapterRows` and `whole_model.WholeModel` give it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Protocol

import torch

from finestep.recipe import OptimizerGroup
from finestep.train.optimizer import Slice

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

    def slices(self, key: int, settings: OptimizerGroup, new_names: list[str]) -> list[Slice]:
        """A trial's tensors cut where they are treated differently by the optimizer."""

    def zero_grad(self, key: int) -> None:
        """Clear a trial's gradients."""

    def only(self, key: int) -> AbstractContextManager[None]:
        """Inside, a forward pass serves this trial alone."""

    def uninstall(self) -> None:
        """Put the base back as it was."""
