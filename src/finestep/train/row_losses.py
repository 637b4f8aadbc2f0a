"""Losses of single rows, as one trial of a pack is now: for the step probe, the replay after trouble, and exchanged answers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from finestep.train.batch import collate
from finestep.train.evaluate import EVAL_BATCH_SIZE
from finestep.train.memory import in_parts_that_fit
from finestep.train.resident import Resident
from finestep.train.token_rows import TokenRows
from finestep.train.trial_rows import TrialRows


@dataclass(frozen=True)
class RowLosses:
    """Forward passes of one trial alone, without gradients and without dropout."""

    resident: Resident
    rows: TrialRows
    trial: int

    @torch.no_grad()
    def of(self, chosen: np.ndarray, data: TokenRows | None = None) -> np.ndarray:
        """Mean loss a token of each row, shape [len(chosen)], of the training rows or of `data`, in one pass where memory allows."""
        data, model = data or self.resident.data.train, self.resident.base
        was_training = model.training
        model.eval()
        devices = self.resident.devices
        try:
            with self.rows.only(self.trial):
                parts = in_parts_that_fit(
                    lambda part: self._of_part(part, data), [np.asarray(chosen)], self.resident.placement.device
                )
                # All compute the same few rows; what is decided by them must not hang on a last digit.
                return devices.of_first(np.concatenate([losses for _, losses in parts]))
        finally:
            model.train(was_training)

    def in_batches(self, chosen: np.ndarray, data: TokenRows) -> np.ndarray:
        """The same for many rows, a batch of an evaluation at a time."""
        parts = [chosen[at : at + EVAL_BATCH_SIZE] for at in range(0, len(chosen), EVAL_BATCH_SIZE)]
        return np.concatenate([self.of(part, data) for part in parts])

    def _of_part(self, rows: np.ndarray, data: TokenRows) -> np.ndarray:
        resident = self.resident
        batch = collate(data, rows, pad_id=resident.data.pad_id, device=resident.placement.device)
        each = resident.token_loss.each(resident.base, batch)
        if data.classes is not None:
            return each.cpu().numpy()
        units = [data.num_loss_units([row]) for row in rows]
        return np.array([float(part.mean()) if len(part) else 0.0 for part in torch.split(each, units)])
