"""Cross entropy without the logits: output head and loss for some tokens at a time, with exact gradients.

The gradient of a token's loss with respect to its hidden state does not depend on any other token, so it is computed at once, while the
chunk's logits exist, and kept: K x D numbers instead of several K x V (Liger's fused linear cross entropy, arXiv 2410.10989, does the
same in Triton). No product is computed twice. Shapes: K tokens that carry loss, D hidden width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
import torch.nn.functional as F

Logits = Callable[[torch.Tensor], torch.Tensor]


def chunked_nll(
    hidden_KD: torch.Tensor, labels_K: torch.Tensor, logits_of: Logits, trained: Sequence[torch.Tensor], *, chunk: int
) -> torch.Tensor:
    """Negative log-likelihood of every token in nats, [K], fp32.

    Args:
        logits_of: from hidden states [k, D] to logits [k, V]: the output head and what the model does after it.
        trained: parameters of the head that get a gradient. With any, all tokens must weigh the same in what is made of the answer.
        chunk: tokens at a time.
    """
    parts = [slice(start, start + chunk) for start in range(0, len(hidden_KD), chunk)]
    if not torch.is_grad_enabled():
        return torch.cat([_nll(logits_of, hidden_KD[part], labels_K[part]) for part in parts])
    nll_K: torch.Tensor = _ChunkedNLL.apply(hidden_KD, labels_K, logits_of, parts, *trained)  # type: ignore[no-untyped-call]
    return nll_K


def _nll(logits_of: Logits, hidden_KD: torch.Tensor, labels_K: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(logits_of(hidden_KD).float(), labels_K, reduction="none")


class Kept(Protocol):
    """What autograd keeps from the forward pass for the backward pass."""

    needs_input_grad: tuple[bool, ...]
    saved_tensors: tuple[torch.Tensor | None, ...]

    def save_for_backward(self, *tensors: torch.Tensor | None) -> None: ...


class _ChunkedNLL(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Kept,
        hidden_KD: torch.Tensor,
        labels_K: torch.Tensor,
        logits_of: Logits,
        parts: list[slice],
        *trained: torch.Tensor,
    ) -> torch.Tensor:
        needs_hidden, needs_head = ctx.needs_input_grad[0], any(ctx.needs_input_grad[4:])
        nll_K = hidden_KD.new_empty(len(hidden_KD), dtype=torch.float32)
        grad_KD = torch.empty_like(hidden_KD) if needs_hidden else None
        head_grads: list[torch.Tensor] = []
        for place in parts:
            part = hidden_KD[place].detach().requires_grad_(needs_hidden)
            with torch.set_grad_enabled(needs_hidden or needs_head):
                part_nll = _nll(logits_of, part, labels_K[place])
            nll_K[place] = part_nll.detach()
            wanted = ([part] if needs_hidden else []) + (list(trained) if needs_head else [])
            if wanted:
                grads = list(torch.autograd.grad(part_nll, wanted, torch.ones_like(part_nll)))
                if grad_KD is not None:
                    grad_KD[place] = grads.pop(0)
                head_grads = (
                    [old.add_(new) for old, new in zip(head_grads, grads, strict=True)] if head_grads else grads
                )
                del grads
            del part_nll
        ctx.save_for_backward(grad_KD, *head_grads)
        return nll_K

    @staticmethod
    def backward(ctx: Kept, *weights: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (weights_K,) = weights
        grad_KD, *head_grads = ctx.saved_tensors
        hidden = None if grad_KD is None else grad_KD * weights_K.to(grad_KD.dtype)[:, None]
        return (
            hidden,
            None,
            None,
            None,
            *[grad * weights_K[0].to(grad.dtype) for grad in head_grads if grad is not None],
        )
