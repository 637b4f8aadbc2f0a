"""Layers that serve several trials in one pass: adapters beside a frozen linear layer, and new heads.

They are bound to the rows of `adapters.py` and own no values.

Shapes: K trials, T tokens of one trial in a forward pass, I inputs, O outputs, R rank of the pack.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
import torch.nn.functional as F

from finestep.errors import BadInput


class BoundRows(Protocol):
    """What a layer needs to know about the rows of its pack."""

    scales: torch.Tensor
    dropout: float

    def shown(self, stacked: torch.Tensor) -> torch.Tensor:
        """The part of a stacked tensor that the pass at hand serves."""


class PackedLinear(torch.nn.Module):
    """y = base(x) + scale_k (x A_k^T) B_k for the rows of trial k: one large product for all trials, two batched small ones."""

    def __init__(self, base: torch.nn.Module, rows: BoundRows):
        super().__init__()
        self.base = base
        self._rows = [rows]

    @property
    def weight(self) -> Any:
        """The base's weight, for models that look at it (its dtype, its shape) without calling the layer."""
        return self.base.weight

    @property
    def bias(self) -> Any:
        """The base's bias, or None."""
        return getattr(self.base, "bias", None)

    def bind(self, pieces: Mapping[str, torch.nn.Parameter]) -> None:
        """Take the adapters [K, R, I] and [K, R, O], which alias the rows."""
        self.A, self.B = pieces["A"], pieces["B"]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = self._rows[0]
        A, B, scale = rows.shown(self.A), rows.shown(self.B), rows.shown(rows.scales)
        x_KTI = x.reshape(A.shape[0], -1, x.shape[-1])
        dropped = self.training and rows.dropout
        if not dropped and _is_plain(self.base, x, A):
            y_KTO = _LowRankLinear.apply(x_KTI, self.base.weight, self.base.bias, A, B, scale)  # type: ignore[no-untyped-call]
            return y_KTO.view(*x.shape[:-1], -1)
        y_KTO = self.base(x_KTI)
        h_KTR = (
            torch.bmm(F.dropout(x_KTI, rows.dropout) if dropped else x_KTI, A.transpose(1, 2)) * scale[:, None, None]
        )
        return torch.baddbmm(y_KTO, h_KTR.to(y_KTO.dtype), B.to(y_KTO.dtype)).view(*x.shape[:-1], -1)


def _is_plain(base: torch.nn.Module, x: torch.Tensor, A: torch.Tensor) -> bool:
    """True for a frozen linear layer that computes in the adapters' own precision."""
    same = type(base) is torch.nn.Linear and x.dtype == base.weight.dtype == A.dtype
    return same and not torch.is_autocast_enabled(x.device.type)


class _LowRankLinear(torch.autograd.Function):
    """y = x W^T + b + scale_k (x A_k^T) B_k with W and b frozen.

    The same products as autograd's, but sums are made inside them: no copies of y and of its gradient, no separate addition
    where the two paths meet. Shapes: x [K, T, I], W [O, I], A [K, R, I], B [K, R, O], scale [K].
    """

    @staticmethod
    def forward(ctx: Any, x: Any, W: Any, bias: Any, A: Any, B: Any, scale: Any) -> Any:
        h = torch.bmm(x, A.transpose(1, 2)).mul_(scale[:, None, None])
        ctx.save_for_backward(x, W, A, B, scale, h)
        return F.linear(x, W, bias).baddbmm_(h, B)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        x, W, A, B, scale, h = ctx.saved_tensors
        (grad,) = grads
        grad_h = torch.bmm(grad, B.transpose(1, 2)).mul_(scale[:, None, None])
        grad_x = torch.matmul(grad, W).baddbmm_(grad_h, A) if ctx.needs_input_grad[0] else None
        grad_A, grad_B = torch.bmm(grad_h.transpose(1, 2), x), torch.bmm(h.transpose(1, 2), grad)
        return grad_x, None, None, grad_A, grad_B, None


class PackedHead(torch.nn.Module):
    """A new linear head, one a trial: y = x W_k^T + b_k."""

    def __init__(self, base: torch.nn.Linear, rows: BoundRows):
        super().__init__()
        self.out_features, self.in_features = base.out_features, base.in_features
        self._rows = [rows]

    def bind(self, pieces: Mapping[str, torch.nn.Parameter]) -> None:
        """Take the weights [K, O, I] and, if there are any, the biases [K, O]."""
        self.weight, self.bias = pieces["weight"], pieces.get("bias")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = self._rows[0]
        W = rows.shown(self.weight)
        x_KTI = x.reshape(W.shape[0], -1, x.shape[-1])
        y_KTO = torch.bmm(x_KTI, W.transpose(1, 2))
        if self.bias is not None:
            y_KTO = y_KTO + rows.shown(self.bias)[:, None, :]
        return y_KTO.view(*x.shape[:-1], -1)


def check_linear(base: Any, path: str) -> None:
    module = base.get_submodule(path)
    plain = isinstance(module, torch.nn.Linear | PackedLinear | PackedHead) or type(module).__name__ == "Conv1D"
    if not plain:
        raise BadInput(
            "adapters are for linear layers",
            value=f"{path} ({type(module).__name__})",
            next_step="name the linear layers with --set lora.target_modules=q_proj,v_proj",
        )
