"""Gradient checkpointing: keep only the input of each layer and compute the layer again in the backward pass; the gradients are the same.

It switches layers of transformers (`GradientCheckpointingLayer`) and works in training and in evaluation mode: our loop trains models
without dropout in evaluation mode, where transformers' own switch does nothing.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.utils.checkpoint import checkpoint

from finestep.errors import BadInput

_CHECKPOINT: Callable[..., object] = checkpoint
"""It takes its own options and those of the layer in one list."""


def checkpoint_layers(model: torch.nn.Module) -> int:
    """Switch checkpointing on, in place; how many layers will be computed twice. Twice is the same as once.

    Raises:
        BadInput: the model has no layers that can be checkpointed.
    """
    layers = checkpointable_layers(model)
    if not layers:
        raise BadInput(
            "gradient checkpointing needs layers that transformers can checkpoint",
            value=type(model).__name__,
            next_step="use a smaller micro-batch or shorter rows",
        )
    for layer in layers:
        if not is_checkpointed(layer):
            layer.forward = _Recomputed(layer.forward)
    return len(layers)


def keep_activations(model: torch.nn.Module) -> None:
    """Switch checkpointing off again."""
    for layer in checkpointable_layers(model):
        if is_checkpointed(layer):
            del layer.forward


def is_checkpointed(layer: torch.nn.Module) -> bool:
    """Is this layer computed again in the backward pass?"""
    return isinstance(vars(layer).get("forward"), _Recomputed)


class _Recomputed:
    """A layer's forward under `torch.utils.checkpoint`; the state of the random generators is kept, so dropout repeats."""

    def __init__(self, forward: Callable[..., object]):
        self._forward = forward

    def __call__(self, *args: object, **kwargs: object) -> object:
        if not torch.is_grad_enabled():
            return self._forward(*args, **kwargs)
        return _CHECKPOINT(self._forward, *args, use_reentrant=False, **kwargs)


def checkpointable_layers(model: torch.nn.Module) -> list[torch.nn.Module]:
    """The layers that can be computed twice, from the input to the output."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    return [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
