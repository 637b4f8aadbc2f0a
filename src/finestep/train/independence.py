"""Whether rows of a batch are independent: a row must have the same loss alone, beside a longer row, and in a pack."""

from __future__ import annotations

import numpy as np
import torch

from finestep.train.batch import collate
from finestep.train.loss import TokenLoss
from finestep.train.tokens import TrainingData

SAME_FLOAT32, SAME_BFLOAT16 = 1e-4, 1e-2


def short_and_long(lengths: np.ndarray) -> tuple[int, int]:
    """A short row and a clearly longer one: the shortest, and one at nine tenths."""
    by_length = np.argsort(lengths, kind="stable")
    return int(by_length[0]), int(by_length[len(by_length) * 9 // 10])


@torch.no_grad()
def padding_changes_loss(model: torch.nn.Module, token_loss: TokenLoss, data: TrainingData) -> bool:
    """True when the loss of a short row differs once padding stands behind it."""
    short, long = short_and_long(data.train.lengths)
    device = token_loss.placement.device

    def loss_of(rows: list[int]) -> float:
        units = data.train.num_loss_units(rows[:1])
        return float(token_loss.each(model, collate(data.train, rows, pad_id=data.pad_id, device=device))[:units].sum())

    tolerance = SAME_FLOAT32 if token_loss.placement.is_exact else SAME_BFLOAT16
    # A row alone has no padding; beside a longer one it has.
    alone, padded = loss_of([short]), loss_of([short, long])
    return not abs(padded - alone) <= tolerance * (1 + abs(alone))
