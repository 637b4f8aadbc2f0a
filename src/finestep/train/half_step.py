"""The gradients and the loss of a step that is half done, as a checkpoint keeps them; rows of adapters only."""

from __future__ import annotations

import torch

from finestep.train.adapters import AdapterRows
from finestep.train.trial_rows import Values

LOSS = "loss"
"""Beside the names of gradients: the loss of the step in the making."""


def half_step(rows: AdapterRows, key: int) -> dict[str, torch.Tensor]:
    """Copies of a trial's gradients by PEFT's names, in its own rank, and the loss so far."""
    loss = rows.buffers.loss()[rows.keys.index(key)]
    return rows.gradients(key) | {LOSS: loss.cpu().clone()}


def load_half_step(rows: AdapterRows, key: int, half: Values) -> None:
    """Write what `half_step` gave."""
    place = rows.keys.index(key)
    rows.buffers.rows("grad")[place] = rows.buffers.packed({name: half[name] for name in half if name != LOSS})
    rows.buffers.loss()[place] = half[LOSS]
