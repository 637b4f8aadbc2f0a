"""Stand-ins with the memory layout of bitsandbytes, for predictions where it is not installed; their numbers mean nothing.

Layouts from bitsandbytes 0.45: NF4 packs two weights in a byte, with a scale for every 64 (itself in 8 bits, with a float32 for every
256 of them); 8-bit AdamW keeps two bytes a weight and two float32 for every 256, and float32 moments for tensors under 4,096 elements.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from transformers import PreTrainedModel

BLOCK_4_BIT, BLOCK_NESTED, BLOCK_8_BIT, LEAST_8_BIT = 64, 256, 256, 4096


class FourBitLinear(torch.nn.Linear):
    """A frozen linear layer in 4 bits: every pass unpacks the whole weight for a moment."""

    def __init__(self, layer: torch.nn.Linear, compute_dtype: torch.dtype):
        super().__init__(layer.in_features, layer.out_features, bias=False, device="meta")
        self.compute_dtype, self.bias = compute_dtype, layer.bias
        count = layer.in_features * layer.out_features
        blocks = math.ceil(count / BLOCK_4_BIT)
        packed = torch.empty(count // 2, 1, dtype=torch.uint8, device="meta")
        self.weight = torch.nn.Parameter(packed, requires_grad=False)
        self.register_buffer("scales", torch.empty(blocks, dtype=torch.uint8, device="meta"))
        self.register_buffer("scales_of_scales", torch.empty(math.ceil(blocks / BLOCK_NESTED), device="meta"))
        self.register_buffer("codes", torch.empty(16 + 256, device="meta"))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shape = (self.out_features, self.in_features)
        y = _FourBitProduct.apply(x.to(self.compute_dtype), self.weight, shape)  # type: ignore[no-untyped-call]
        out: torch.Tensor = y if self.bias is None else y + self.bias
        return out


class Kept(Protocol):
    """What autograd keeps from the forward pass for the backward pass."""

    shape: tuple[int, int]
    saved_tensors: tuple[torch.Tensor, ...]

    def save_for_backward(self, *tensors: torch.Tensor) -> None: ...


class _FourBitProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Kept, x: torch.Tensor, packed: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
        ctx.shape = shape
        ctx.save_for_backward(packed)
        return F.linear(x, packed.new_empty(shape, dtype=x.dtype))

    @staticmethod
    def backward(ctx: Kept, *grads: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (packed,) = ctx.saved_tensors
        return grads[0] @ packed.new_empty(ctx.shape, dtype=grads[0].dtype), None, None


class EightBitAdamW:
    """What 8-bit AdamW keeps; a step works in place."""

    def __init__(self, parameters: Iterable[torch.Tensor]):
        self._parameters = list(parameters)
        self.state: dict[torch.Tensor, dict[str, torch.Tensor]] = {}

    def step(self) -> None:
        """Make the state at the first call."""
        for value in self._parameters:
            if value not in self.state:
                self.state[value] = _eight_bit_state(value) if value.numel() >= LEAST_8_BIT else _whole_state(value)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop the gradients."""
        for value in self._parameters:
            value.grad = None


def _eight_bit_state(value: torch.Tensor) -> dict[str, torch.Tensor]:
    blocks = math.ceil(value.numel() / BLOCK_8_BIT)
    moments = {f"state{i}": torch.zeros_like(value, dtype=torch.uint8) for i in (1, 2)}
    return moments | {f"absmax{i}": value.new_zeros(blocks, dtype=torch.float32) for i in (1, 2)}


def _whole_state(value: torch.Tensor) -> dict[str, torch.Tensor]:
    return {f"state{i}": torch.zeros_like(value, dtype=torch.float32) for i in (1, 2)}


def quantise(model: PreTrainedModel, compute_dtype: torch.dtype) -> None:
    """Put `FourBitLinear` in the place of every linear layer but the output head, as transformers does."""
    head = model.get_output_embeddings()
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child) is torch.nn.Linear and child is not head:
                setattr(module, name, FourBitLinear(child, compute_dtype))
