"""The optimizer step that a trial is making: its rows, cut into micro-batches, one after the other. It touches no weights."""

from __future__ import annotations

import numpy as np
from pydantic import BaseModel

from finestep.train.devices import ALONE, Devices
from finestep.train.order import Order
from finestep.train.token_rows import TokenRows


class HalfStep(BaseModel):
    """How far a step is; with the gradients so far, this is all that going on in its middle needs."""

    cut: tuple[int, int | None]
    """Rows of a micro-batch, and rows within which they are sorted by length."""
    num_micro_batches: int


class CurrentStep:
    """Hands out the micro-batches of one step and knows when its effective batch is complete.

    Attributes:
        rows: all rows of the step, of all devices.
        num_units: what its loss is divided by.
    """

    def __init__(self, data: TokenRows, order: Order, *, devices: Devices = ALONE):
        self._data, self.order, self._devices = data, order, devices
        self._queue: list[np.ndarray] = []
        self._cut: tuple[int, int | None] = (1, None)
        self.rows: np.ndarray = np.empty(0, dtype=np.int64)
        self.num_units = 1
        self.num_micro_batches = 0

    def next_rows(self, step: int, *, micro_batch_size: int, window: int | None) -> np.ndarray:
        """Rows of the next micro-batch of step `step`; the first of a step fixes how the step is cut.

        Several devices make a micro-batch each at the same time; of the last rows of a step one may get none.
        """
        # How a step is cut stays fixed until it is complete: a pack that changes meanwhile must not repeat or skip rows.
        if not self._queue:
            self._begin(step, micro_batch_size, window)
        return self._queue[0]

    def _begin(self, step: int, micro_batch_size: int, window: int | None) -> None:
        self._cut = (micro_batch_size, window)
        self.rows = self.order.rows_of_step(step)
        self.num_units = max(self._data.num_loss_units(self.rows), 1)
        # Cut as one device with more memory would, and dealt out: the order of rows knows nothing of devices.
        together = self.order.micro_batches(self.rows, micro_batch_size * self._devices.world, window=window)
        self._queue = [self._devices.mine(rows) for rows in together]
        self.num_micro_batches = 0

    def add(self) -> bool:
        """Count a micro-batch whose gradients are in; True when the effective batch is complete."""
        self.num_micro_batches += 1
        del self._queue[0]
        return not self._queue

    @property
    def is_half_done(self) -> bool:
        """True when some of its micro-batches are in the gradients and others are not."""
        return bool(self._queue) and self.num_micro_batches > 0

    def state(self) -> HalfStep:
        """How far it is."""
        return HalfStep(cut=self._cut, num_micro_batches=self.num_micro_batches)

    def seed_place(self) -> int:
        """Which micro-batch of the step this is among those of all devices, for draws that no two of them share."""
        return self.num_micro_batches * self._devices.world + self._devices.rank

    def restore(self, step: int, half: HalfStep) -> None:
        """Go on in the middle of step `step`."""
        self._begin(step, *half.cut)
        self.num_micro_batches = half.num_micro_batches
        del self._queue[: self.num_micro_batches]

    def rewind(self) -> None:
        """Forget what is half done; its gradients are the caller's to clear."""
        self._queue, self.num_micro_batches = [], 0
