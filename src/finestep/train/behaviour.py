"""How a model behaves, found by trying it on a few tokens and never by its name: lists of names miss the next model.

Does a forward pass work at all, do later tokens change earlier answers, does a pass in training mode draw random numbers,
and which parts does text never reach?
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

import torch

from finestep.errors import BadInput
from finestep.train.memory import is_out_of_memory

if TYPE_CHECKING:
    from transformers import PreTrainedModel


Computing = Callable[[], AbstractContextManager[object]]
"""The precision that a pass is computed in, as a context."""
NUM_TOKENS = 12
FIRST_ID = 5
"""Ids below are often special tokens, which some models treat in their own way."""
LEAST_VOCABULARY = 128
"""Ids that are safe where a model does not say how many it knows."""
VISIBLE = 1e-3
"""A change of a logit that is larger than this share of the logits' spread is no rounding, also in bfloat16."""


@contextmanager
def in_words(model: PreTrainedModel) -> Iterator[None]:
    """Inside, what the model's own code raises becomes one sentence.

    Raises:
        BadInput: the forward pass failed, with the first line of its reason.
    """
    try:
        yield
    except (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        if is_out_of_memory(error):
            raise
        reason = str(error).strip().splitlines()
        raise BadInput(
            "the model must answer plain rows of tokens",
            value=f"{type(error).__name__}: {reason[0][:160] if reason else ''}",
            place=type(model).__name__,
            next_step="it needs other inputs than rows of text like these; finestep cannot train it",
        ) from None


def check_forward(model: PreTrainedModel, *, computing: Computing) -> None:
    """Raise BadInput where the model cannot answer a plain row of tokens.

    Raises:
        BadInput: the model's own forward pass fails.
    """
    with in_words(model):
        _answers(model, _tokens(model), computing)


def looks_ahead(model: PreTrainedModel, *, computing: Computing) -> bool:
    """True when a later token changes the answers at earlier places: then a loss on next tokens means nothing."""
    ids_NS = _tokens(model)
    changed_NS = ids_NS.clone()
    changed_NS[:, -1] = FIRST_ID if int(ids_NS[0, -1]) != FIRST_ID else FIRST_ID + 1
    logits_SV, changed_SV = (_answers(model, ids, computing)[0, :-1].float() for ids in (ids_NS, changed_NS))
    return bool((logits_SV - changed_SV).abs().max() > VISIBLE * logits_SV.std())


def draws_random_numbers(model: PreTrainedModel, *, computing: Computing) -> tuple[bool, str]:
    """(do two passes in training mode differ by the random numbers that they draw, why such a pass fails; empty: it works).

    Dropout may be a module, a call inside attention, or the jitter of a router, so that only two passes tell for sure.
    """
    was_training = model.training
    model.train()
    try:
        answers = []
        for seed in (1, 2):
            torch.manual_seed(seed)
            answers.append(_answers(model, _tokens(model), computing).float())
    except (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        if is_out_of_memory(error):
            raise
        return False, " ".join(str(error).split())[:120]
    finally:
        model.train(was_training)
    modules = any(isinstance(module, torch.nn.Dropout) and module.p > 0 for module in model.modules())
    return modules or not torch.equal(*answers), ""


def outside_of_text(model: PreTrainedModel, *, computing: Computing) -> list[str]:
    """Modules of a multimodal model that a row of text never passes (a vision tower, its projector), by full names.

    Only the widest of them are named, and none inside the language model: experts that were not chosen belong to the text.
    """
    if model.config.get_text_config() is model.config:
        return []
    called: set[str] = set()
    hooks = [
        module.register_forward_hook(lambda *_, name=name: called.add(name)) for name, module in model.named_modules()
    ]
    try:
        _answers(model, _tokens(model), computing)
    finally:
        for hook in hooks:
            hook.remove()
    decoder = model.get_decoder()
    language = next((name for name, module in model.named_modules() if module is decoder), "")
    reached = {name[:end] for name in called for end in range(len(name) + 1) if name[end : end + 1] in ("", ".")}
    idle = [name for name, _ in model.named_modules() if name and name not in reached]
    if language:
        idle = [name for name in idle if name != language and not name.startswith(f"{language}.")]
    return [name for name in idle if not any(name.startswith(f"{other}.") for other in idle)]


def _tokens(model: PreTrainedModel) -> torch.Tensor:
    """One row of different ordinary ids, [1, NUM_TOKENS]."""
    size = vocabulary_size(model) or LEAST_VOCABULARY
    ids = FIRST_ID + (torch.arange(NUM_TOKENS) * 7) % max(size - FIRST_ID - 1, 1)
    return ids.unsqueeze(0).to(next(model.parameters()).device)


def vocabulary_size(model: PreTrainedModel) -> int | None:
    """Ids that have an embedding; None for a model without a table of them (CANINE hashes characters)."""
    try:
        table = model.get_input_embeddings()
    except NotImplementedError:
        return None
    weight = getattr(table, "weight", None)
    return None if weight is None else int(weight.shape[0])


@torch.no_grad()
def _answers(model: PreTrainedModel, ids_NS: torch.Tensor, computing: Computing) -> torch.Tensor:
    with computing():
        logits: torch.Tensor = model(input_ids=ids_NS, attention_mask=torch.ones_like(ids_NS)).logits
        return logits
