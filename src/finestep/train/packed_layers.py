"""Layers that serve several trials in one pass: adapters beside a frozen linear layer, and new heads.

They are bound to the rows of `adapters.py` and own no values. Adapters need no node of autograd each: the layer writes their gradients
straight into the rows, which saves two operations an adapter, and all casts.

Shapes: K trials, T tokens of one trial in a forward pass, I inputs, O outputs, R rank of the pack.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F

from finestep.errors import BadInput


@dataclass(frozen=True)
class Bound:
    """One trained tensor of a layer for all trials of a pack.

    Attributes:
        parameter: its float32 values [K, ...], which alias the rows; what the optimizer changes.
        low: the same in the precision in which the pass computes, with the scale folded into `A`; in float32 the values themselves.
        grad: where the gradient of `low` is added; in float32 `total`.
        total: the float32 gradients of the step in the making.
    """

    parameter: torch.nn.Parameter
    low: torch.Tensor
    grad: torch.Tensor
    total: torch.Tensor

    def renew_gradient(self) -> None:
        """Begin anew where somebody has dropped the parameter's gradient, as PyTorch's optimizers do, or take up another's."""
        if self.parameter.grad is None:
            self.total.zero_()
        elif self.parameter.grad.data_ptr() != self.total.data_ptr():
            self.total.copy_(self.parameter.grad)
        self.parameter.grad = self.total


class BoundRows(Protocol):
    """What a layer needs to know about the rows of its pack."""

    dropout: float

    @property
    def factors(self) -> torch.Tensor | None:
        """What the output of each trial's adapter is multiplied by, [K]; None: folded into `A` already."""

    def shown(self, stacked: torch.Tensor) -> torch.Tensor:
        """The part of a stacked tensor that the pass at hand serves."""


class PackedLinear(torch.nn.Module):
    """y = base(x) + scale_k (x A_k^T) B_k for the rows of trial k: one large product for all trials, two batched small ones."""

    A: torch.nn.Parameter
    B: torch.nn.Parameter

    def __init__(self, base: torch.nn.Module, rows: BoundRows):
        super().__init__()
        self.base = base
        self._rows = [rows]
        self.bound: list[Bound] = []

    @property
    def weight(self) -> torch.Tensor | torch.nn.Module:
        """The base's weight, for models that look at it (its dtype, its shape) without calling the layer."""
        return self.base.weight

    @property
    def bias(self) -> torch.Tensor | torch.nn.Module | None:
        """The base's bias, or None."""
        return getattr(self.base, "bias", None)

    def bind(self, pieces: Mapping[str, Bound]) -> None:
        """Take the adapters [K, R, I] and [K, R, O], which alias the rows."""
        self.A, self.B = pieces["A"].parameter, pieces["B"].parameter
        self.bound = [pieces["A"], pieces["B"]]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = self._rows[0]
        A, B = (rows.shown(one.low) for one in self.bound)
        grad_A, grad_B = (rows.shown(one.grad) for one in self.bound)
        factors = None if rows.factors is None else rows.shown(rows.factors)
        x_KTI = x.reshape(A.shape[0], -1, x.shape[-1])
        adapter = (self.A, self.B, A, B, factors, grad_A, grad_B)
        if self.training and rows.dropout:
            y_KTO = self.base(x_KTI)
            y_KTO = _LowRankTerm.apply(y_KTO, F.dropout(x_KTI.to(A.dtype), rows.dropout), *adapter)  # type: ignore[no-untyped-call]
        elif type(self.base) is torch.nn.Linear and self.base.weight.dtype == A.dtype:
            y_KTO = _LowRankLinear.apply(x_KTI.to(A.dtype), self.base.weight, self.base.bias, *adapter)  # type: ignore[no-untyped-call]
        else:
            # Its own forward pass is called once for all trials: weights in 4 bits are unpacked once.
            y_KTO = self.base(x_KTI)
            y_KTO = _LowRankTerm.apply(y_KTO, x_KTI.to(A.dtype), *adapter)  # type: ignore[no-untyped-call]
        result: torch.Tensor = y_KTO.view(*x.shape[:-1], -1)
        return result


def _down(x: torch.Tensor, A: torch.Tensor, factors: torch.Tensor | None) -> torch.Tensor:
    """h = scale_k x A_k^T, [K, T, R]."""
    h = torch.bmm(x, A.transpose(1, 2))
    return h if factors is None else h.mul_(factors[:, None, None])


class _Kept(Protocol):
    """What autograd keeps from the forward pass for the backward pass."""

    factors: torch.Tensor | None
    grads: tuple[torch.Tensor, torch.Tensor]
    needs_input_grad: tuple[bool, ...]
    saved_tensors: tuple[torch.Tensor, ...]

    def save_for_backward(self, *tensors: torch.Tensor) -> None: ...


class _LowRankLinear(torch.autograd.Function):
    """y = x W^T + b + scale_k (x A_k^T) B_k with W and b frozen.

    The same products as autograd's, but sums are made inside them: no copies of y and of its gradient, no separate addition
    where the two paths meet, and the adapters' gradients go straight into their rows. The parameters themselves are inputs only so
    that autograd calls `backward` even where `x` needs no gradient (the first layer of a frozen base).
    Shapes: x [K, T, I], W [O, I], A [K, R, I], B [K, R, O], factors [K].
    """

    @staticmethod
    def forward(
        ctx: _Kept,
        x: torch.Tensor,
        W: torch.Tensor,
        bias: torch.Tensor | None,
        _: torch.Tensor,
        __: torch.Tensor,
        A: torch.Tensor,
        B: torch.Tensor,
        factors: torch.Tensor | None,
        grad_A: torch.Tensor,
        grad_B: torch.Tensor,
    ) -> torch.Tensor:
        h = _down(x, A, factors)
        ctx.save_for_backward(x, W, A, B, h)
        ctx.factors, ctx.grads = factors, (grad_A, grad_B)
        return F.linear(x, W, bias).baddbmm_(h, B)

    @staticmethod
    def backward(ctx: _Kept, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, W, A, B, h = ctx.saved_tensors
        (grad,) = grads
        grad_h = _up(grad, B, ctx.factors)
        grad_x = torch.matmul(grad, W).baddbmm_(grad_h, A) if ctx.needs_input_grad[0] else None
        _add_to_rows(ctx.grads, grad_h, x, h, grad)
        return (grad_x, *(None,) * 9)


class _LowRankTerm(torch.autograd.Function):
    """y + scale_k (x A_k^T) B_k, for a base that computes in a way of its own (weights in 4 bits, transposed weights)."""

    @staticmethod
    def forward(
        ctx: _Kept,
        y: torch.Tensor,
        x: torch.Tensor,
        _: torch.Tensor,
        __: torch.Tensor,
        A: torch.Tensor,
        B: torch.Tensor,
        factors: torch.Tensor | None,
        grad_A: torch.Tensor,
        grad_B: torch.Tensor,
    ) -> torch.Tensor:
        h = _down(x, A, factors)
        ctx.save_for_backward(x, A, B, h)
        ctx.factors, ctx.grads = factors, (grad_A, grad_B)
        return torch.baddbmm(y, h, B) if y.dtype == h.dtype else y + torch.bmm(h, B)

    @staticmethod
    def backward(ctx: _Kept, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, A, B, h = ctx.saved_tensors
        (grad_y,) = grads
        grad = grad_y.to(B.dtype)
        grad_h = _up(grad, B, ctx.factors)
        grad_x = torch.bmm(grad_h, A) if ctx.needs_input_grad[1] else None
        _add_to_rows(ctx.grads, grad_h, x, h, grad)
        return (grad_y, grad_x, *(None,) * 7)


def _up(grad: torch.Tensor, B: torch.Tensor, factors: torch.Tensor | None) -> torch.Tensor:
    """The gradient of h, [K, T, R]."""
    grad_h = torch.bmm(grad, B.transpose(1, 2))
    return grad_h if factors is None else grad_h.mul_(factors[:, None, None])


def _add_to_rows(
    rows: tuple[torch.Tensor, torch.Tensor],
    grad_h: torch.Tensor,
    x: torch.Tensor,
    h: torch.Tensor,
    grad: torch.Tensor,
) -> None:
    """Add the gradients of A and B to those of earlier micro-batches, inside the products."""
    grad_A, grad_B = rows
    grad_A.baddbmm_(grad_h.transpose(1, 2), x)
    grad_B.baddbmm_(h.transpose(1, 2), grad)


class PackedHead(torch.nn.Module):
    """A new linear head, one a trial: y = x W_k^T + b_k, in float32: a head is small, and its loss is sensitive."""

    weight: torch.nn.Parameter
    bias: torch.nn.Parameter | None

    def __init__(self, base: torch.nn.Linear, rows: BoundRows):
        super().__init__()
        self.out_features, self.in_features = base.out_features, base.in_features
        self._rows = [rows]
        self.bound: list[Bound] = []

    def bind(self, pieces: Mapping[str, Bound]) -> None:
        """Take the weights [K, O, I] and, if there are any, the biases [K, O]."""
        self.weight = pieces["weight"].parameter
        self.bias = pieces["bias"].parameter if "bias" in pieces else None
        self.bound = list(pieces.values())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = self._rows[0]
        W = rows.shown(self.weight)
        x_KTI = x.reshape(W.shape[0], -1, x.shape[-1]).to(W.dtype)
        y_KTO = torch.bmm(x_KTI, W.transpose(1, 2))
        if self.bias is not None:
            y_KTO = y_KTO + rows.shown(self.bias)[:, None, :]
        return y_KTO.reshape(*x.shape[:-1], -1)


def check_linear(base: torch.nn.Module, path: str) -> None:
    """Raise BadInput for a layer that cannot carry adapters in rows."""
    module = base.get_submodule(path)
    plain = isinstance(module, torch.nn.Linear | PackedLinear | PackedHead) or type(module).__name__ == "Conv1D"
    if not plain:
        raise BadInput(
            "adapters are for linear layers",
            value=f"{path} ({type(module).__name__})",
            next_step="name the linear layers with --set lora.target_modules=q_proj,v_proj",
        )
