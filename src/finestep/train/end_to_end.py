"""Rows laid end to end, without padding between them: which models compute them exactly. Found by trying, never by a name.

A model that is told the position of each token and the text that it belongs to answers every text as if it stood alone. Some models
cannot be told: those that count positions by themselves, or carry a state from token to token (state-space layers, convolutions).
"""

from __future__ import annotations

import inspect

import numpy as np
import torch

from finestep.train.batch import collate, collate_end_to_end
from finestep.train.loss import TokenLoss
from finestep.train.memory import is_out_of_memory
from finestep.train.tokens import TrainingData

SAME_FLOAT32, SAME_BFLOAT16 = 1e-5, 1e-2
NUM_TRIED = 3
Failure = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


def why_padded(model: torch.nn.Module, token_loss: TokenLoss, data: TrainingData) -> str | None:
    """Why rows of this model and data must be padded, in a clause; None where laying them end to end changes nothing."""
    if data.label_names:
        return "a label is read at the end of its row"
    if "position_ids" not in inspect.signature(model.forward).parameters:
        return "the model takes no positions, and would count on from one text to the next"
    try:
        apart = _apart(model, token_loss, data)
    except Failure as error:
        if is_out_of_memory(error):
            raise
        first_line = " ".join(str(error).split())[:80]
        return f"the model cannot be told where a text begins ({type(error).__name__}: {first_line})"
    if not apart <= (SAME_FLOAT32 if token_loss.placement.is_exact else SAME_BFLOAT16):
        return f"the text before a row changes its loss by up to {apart:.1g} nats a token"
    return None


@torch.no_grad()
def _apart(model: torch.nn.Module, token_loss: TokenLoss, data: TrainingData) -> float:
    """Largest difference of a token's loss between padded rows and the same rows end to end, over a typical loss."""
    rows, device = data.train, token_loss.placement.device
    by_length = np.argsort(rows.lengths, kind="stable")
    # A long text before a short one: what is carried over has much to carry, and shows on most of the short text.
    chosen = by_length[np.unique(np.linspace(0, len(by_length) - 1, min(NUM_TRIED, len(by_length))).astype(int))][::-1]
    # One by one, so that the comparison does not lean on padding either.
    alone = torch.cat(
        [token_loss.each(model, collate(rows, [row], pad_id=data.pad_id, device=device)) for row in chosen]
    )
    batch, _ = collate_end_to_end(rows, [chosen], pad_id=data.pad_id, device=device)
    together = token_loss.each(model, batch)
    return float((together - alone).abs().max() / (1 + alone.abs().mean()))
