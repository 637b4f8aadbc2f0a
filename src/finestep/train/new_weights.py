"""Weights that the checkpoint does not hold: a new head and whatever leads to it. They are trained whole, and saved."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import torch

from finestep.errors import BadInput

if TYPE_CHECKING:
    from transformers import PreTrainedModel


ALWAYS_SAVED = ("classifier", "score")
"""PEFT saves modules whose names end so, whatever is asked (`PeftModelForSequenceClassification`)."""


def modules_of(names: Iterable[str]) -> list[str]:
    """The modules that hold these parameters, in order.

    >>> modules_of(["pooler.dense.weight", "pooler.dense.bias", "classifier.weight"])
    ['classifier', 'pooler.dense']
    """
    return sorted({name.rpartition(".")[0] for name in names})


def trained_whole(model: PreTrainedModel, new_names: Sequence[str], *, is_classifier: bool) -> list[str]:
    """Modules that are trained and saved whole beside an adapter, by their full names; no adapter may sit inside them.

    All that hold new weights, and in a classifier its head. PEFT finds modules by the end of their names, so a head
    `classifier` also takes in `pre_classifier`.

    Raises:
        BadInput: a new parameter belongs to the model itself, so that an adapter's file has no place for it.
    """
    wanted = modules_of(new_names)
    if "" in wanted:
        raise BadInput(
            "every new parameter must be part of a module, to be saved beside an adapter",
            value=next(name for name in new_names if "." not in name),
            place=type(model).__name__,
            next_step="use --method full",
        )
    ends = (*wanted, *(ALWAYS_SAVED if is_classifier else ()))
    found = [name for name, _ in model.named_modules() if name.endswith(ends)]
    return [name for name in found if not any(name.startswith(f"{other}.") for other in found)]


@torch.no_grad()
def reset_new(model: PreTrainedModel, names: Sequence[str], *, seed: int) -> None:
    """Initialise the new weights again from `seed`, as loading did."""
    torch.manual_seed(seed)
    for module_name in modules_of(names):
        module = model.get_submodule(module_name)
        for holder in (module, *module.parameters()):
            if hasattr(holder, "_is_hf_initialized"):
                delattr(holder, "_is_hf_initialized")
        model._init_weights(module)
