"""What a trial asks of the devices that it spans, and `Alone`, the answer of one device. It never imports torch.distributed.

Every device runs the same loop on the same trials, and each decision comes out the same everywhere. They differ in two things: each
computes its own share of the rows, and only the first writes files and speaks. `ranks.py` has the devices of a real group.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import Protocol

import numpy as np
import torch


class Found(IntEnum):
    """How a pass went; of several devices the worst counts."""

    FINE = 0
    SHORT = 1
    """Memory was too short."""
    RAISED = 2


class AnotherRaised(RuntimeError):
    """A pass was fine here, and raised on another device of the same trial."""

    def __init__(self) -> None:
        super().__init__("another device of this trial raised; the worker's log says what")


class GroupLost(RuntimeError):
    """Another device of the trial is gone, or does not answer: only new processes help."""


class Devices(Protocol):
    """The devices of a trial, seen from one of them.

    Attributes:
        rank: which of them this is; the first (0) writes files and speaks.
        world: how many they are.
        is_sharded: each holds a part of the base only, so that a forward pass needs all of them.
    """

    rank: int
    world: int
    is_sharded: bool

    def meet(self, found: Found = Found.FINE) -> Found:
        """Wait for the others; the worst that any of them has found. What the first has heard meanwhile is told to all."""

    def now(self) -> float:
        """A clock that all devices read alike: what is due by time is due on all of them at once."""

    def mine(self, rows: np.ndarray) -> np.ndarray:
        """This device's share of some rows; it may be empty."""

    def add_up(self, tensors: Sequence[torch.Tensor]) -> None:
        """Replace each tensor by its sum over the devices, in place."""

    def total(self, values: np.ndarray) -> np.ndarray:
        """The sum over the devices."""

    def of_first(self, values: np.ndarray) -> np.ndarray:
        """The values of the first device, for figures that a decision hangs on."""

    def norm(self, parts: torch.Tensor) -> torch.Tensor:
        """Norms of whole tensors from the norms of the parts that the devices hold."""

    def whole(self, named: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
        """Whole tensors from the parts that the devices hold, on the first device; others get nothing of use."""


class Alone:
    """One device: it has all rows, and nobody to wait for."""

    rank, world, is_sharded = 0, 1, False

    def meet(self, found: Found = Found.FINE) -> Found:
        """Nobody else has found anything."""
        return found

    def now(self) -> float:
        """The clock of this process."""
        return time.monotonic()

    def mine(self, rows: np.ndarray) -> np.ndarray:
        """All rows."""
        return rows

    def add_up(self, tensors: Sequence[torch.Tensor]) -> None:
        """Each is its own sum."""

    def total(self, values: np.ndarray) -> np.ndarray:
        """Its own sum."""
        return values

    def of_first(self, values: np.ndarray) -> np.ndarray:
        """Its own."""
        return values

    def norm(self, parts: torch.Tensor) -> torch.Tensor:
        """Its parts are whole."""
        return parts

    def whole(self, named: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
        """They are whole."""
        return named


ALONE = Alone()
