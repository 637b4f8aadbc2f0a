"""The two levers that trade time for memory, pulled one after the other; a trial's trajectory stays the same."""

from __future__ import annotations

from finestep.errors import BadInput
from finestep.rules.memory_case import chunk_tokens
from finestep.train.checkpointing import checkpoint_layers, checkpointable_layers, is_checkpointed
from finestep.train.resident import Resident


def relieve(resident: Resident, *, recompute: bool = True) -> str | None:
    """Pull the next lever, the one that costs no time first; what was done in words, or None when nothing is left to do.

    For a pack of at most one trial, between two steps.

    Args:
        recompute: also compute layers twice, which costs time.
    """
    for pull in (_cut_the_loss, _checkpoint) if recompute else (_cut_the_loss,):
        try:
            words = pull(resident)
        except BadInput:
            continue
        if words:
            return words
    return None


def _cut_the_loss(resident: Resident) -> str | None:
    loss = resident.token_loss
    if loss.chunk_tokens is not None or resident.data.label_names or resident.base.get_output_embeddings() is None:
        return None
    loss.cut_into_chunks(resident.base, chunk_tokens(resident.base.config.get_text_config().vocab_size))
    return f"cross entropy for {loss.chunk_tokens} tokens at a time from now on"


def _checkpoint(resident: Resident) -> str | None:
    if any(is_checkpointed(layer) for layer in checkpointable_layers(resident.base)):
        return None
    return f"gradient checkpointing of {checkpoint_layers(resident.base)} layers from now on, which costs about a third more time"
