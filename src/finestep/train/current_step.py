"""The optimizer step that a trial is making: its rows, cut into micro-batches, one after the other. It touches no weights."""

from __future__ import annotations

import numpy as np

from finestep.train.order import Order
from finestep.train.token_rows import TokenRows


class CurrentStep:
    """Hands out the micro-batches of one step and knows when its effective batch is complete.

    Attributes:
        rows: all rows of the step.
        num_units: what its loss is divided by.
    """

    def __init__(self, data: TokenRows, order: Order):
        self._data, self.order = data, order
        self._queue: list[np.ndarray] = []
        self.rows: np.ndarray = np.empty(0, dtype=np.int64)
        self.num_units = 1
        self.num_micro_batches = 0

    def next_rows(self, step: int, *, micro_batch_size: int, window: int | None) -> np.ndarray:
        """Rows of the next micro-batch of step `step`; the first of a step fixes how the step is cut."""
        if not self._queue:
            self.rows = self.order.rows_of_step(step)
            self.num_units = max(self._data.num_loss_units(self.rows), 1)
            self._queue = self.order.micro_batches(self.rows, micro_batch_size, window=window)
            self.num_micro_batches = 0
        return self._queue[0]

    def add(self) -> bool:
        """Count a micro-batch whose gradients are in; True when the effective batch is complete."""
        self.num_micro_batches += 1
        del self._queue[0]
        return not self._queue

    def rewind(self) -> None:
        """Forget what is half done; its gradients are the caller's to clear."""
        self._queue, self.num_micro_batches = [], 0
