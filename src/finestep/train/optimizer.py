"""AdamW over one visible table of parameters: who learns how fast, and who decays. It owns no tensor but its step counts.

A trial's tensors are slices: a few pieces of its row in a pack, or the parameters of a whole model.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch.optim.adamw import adamw

from finestep.recipe import OptimizerGroup

LAYER_NUMBER = re.compile(r"(?:^|\.)(?:layers?|h|blocks?)\.(\d+)\.")
HEAD_NAMES = re.compile(r"(?:^|\.)(?:score|classifier|classification_head|out_proj_head)(?:\.|$)")
EMBEDDING_NAMES = re.compile(r"embed|wte|wpe")
CLIP_EPSILON = 1e-6


@dataclass(frozen=True)
class ParameterRow:
    """One trained parameter and how it is treated."""

    name: str
    num_elements: int
    lr_factor: float
    weight_decay: float


@dataclass(frozen=True)
class Slice:
    """Tensors of equal shape that are updated alike: values, gradients, Adam's moments."""

    value: torch.Tensor
    grad: torch.Tensor
    first: torch.Tensor
    second: torch.Tensor
    lr_factor: float = 1.0
    weight_decay: float = 0.0


def parameter_table(
    parameters: Mapping[str, torch.Tensor], settings: OptimizerGroup, new_names: list[str]
) -> list[ParameterRow]:
    """How each parameter is treated: no decay on norms and biases, slower toward the input, faster in a new head.

    Depth counts from the embeddings (0) over the layers to the head; the factor of depth d is
    `layerwise_decay ** (depth of the head - d)` (Howard & Ruder 2018, arXiv 1801.06146).
    """
    depths = {name: _depth(name) for name in parameters}
    top = max((depth for depth in depths.values() if math.isfinite(depth)), default=0) + 1
    rows = []
    for name, parameter in parameters.items():
        below_head = top - min(depths[name], top)
        factor = settings.layerwise_decay**below_head
        if HEAD_NAMES.search(name) or any(name.endswith(new) for new in new_names):
            factor *= settings.head_lr_multiplier
        decay = settings.weight_decay if parameter.ndim > 1 else 0.0
        rows.append(ParameterRow(name, parameter.numel(), factor, decay))
    return rows


def _depth(name: str) -> float:
    layer = LAYER_NUMBER.search(name)
    if layer:
        return int(layer.group(1)) + 1
    return 0 if EMBEDDING_NAMES.search(name) else math.inf


@torch.no_grad()
def gradient_norms(trials: Sequence[Sequence[Slice]]) -> list[float]:
    """Global gradient norm of each trial; one transfer from the device for all."""
    norms = [
        torch.linalg.vector_norm(torch.stack(torch._foreach_norm([piece.grad for piece in pieces])))
        for pieces in trials
    ]
    return torch.stack(norms).tolist()


class Optimizer:
    """The AdamW of one trial: its clock, its clipping, its norms (Loshchilov & Hutter 2019, arXiv 1711.05101)."""

    def __init__(self, settings: OptimizerGroup):
        self.settings = settings
        self.num_steps = 0

    @torch.no_grad()
    def clip(self, slices: Sequence[Slice], norm: float) -> bool:
        """Scale the gradients down to `max_grad_norm` when their global norm is larger; was it?"""
        limit = self.settings.max_grad_norm
        if limit is None or not norm > limit:
            return False
        torch._foreach_mul_([piece.grad for piece in slices], limit / (norm + CLIP_EPSILON))
        return True

    @torch.no_grad()
    def step(self, slices: Sequence[Slice], learning_rate: float) -> None:
        """One update at `learning_rate` (times each slice's factor)."""
        self.num_steps += 1
        for (factor, decay), group in _alike(slices).items():
            rate, epsilon, decay = self._rates(learning_rate * factor, decay)
            device = group[0].value.device
            adamw(
                [piece.value for piece in group],
                [piece.grad for piece in group],
                [piece.first for piece in group],
                [piece.second for piece in group],
                [],
                self._clocks(len(group), device),
                fused=device.type in {"cpu", "cuda"},
                foreach=False,
                amsgrad=False,
                beta1=self.settings.beta1,
                beta2=self.settings.beta2,
                lr=rate,
                weight_decay=decay,
                eps=epsilon,
                maximize=False,
            )

    def _clocks(self, count: int, device: torch.device) -> list[torch.Tensor]:
        """The steps made before this one, for each tensor where AdamW wants them; filled there, because a copy would wait for a GPU."""
        steps = torch.full((count,), float(self.num_steps - 1), device=device if device.type == "cuda" else "cpu")
        return list(steps.unbind())

    def _rates(self, rate: float, decay: float) -> tuple[float, float, float]:
        """(lr, eps, weight decay) for torch's AdamW; without bias correction, those that cancel its correction exactly."""
        settings = self.settings
        if settings.bias_correction:
            return rate, settings.epsilon, decay
        root = math.sqrt(1.0 - settings.beta2**self.num_steps)
        scale = (1.0 - settings.beta1**self.num_steps) / root
        return rate * scale, settings.epsilon / root, decay / scale

    @torch.no_grad()
    def update_norms(self, slices: Sequence[Slice], learning_rate: float) -> tuple[float, float]:
        """(norm of the last update, norm of the trained weights), from Adam's moments.

        Slice by slice: the updates of a whole model at once would need as much memory as two thirds of its optimizer state.
        """
        squares = [self._update_square(piece, learning_rate * piece.lr_factor) for piece in slices]
        weights = torch.linalg.vector_norm(torch.stack(torch._foreach_norm([piece.value for piece in slices])))
        update, norm = torch.stack([torch.stack(squares).sum().sqrt(), weights.float()]).tolist()
        return update, norm

    def _update_square(self, piece: Slice, rate: float) -> torch.Tensor:
        """Squared norm of lr * (m_hat / (sqrt(v_hat) + eps) + weight_decay * w)."""
        rate, epsilon, decay = self._rates(rate, piece.weight_decay)
        root = piece.second.sqrt().div_(math.sqrt(1.0 - self.settings.beta2**self.num_steps)).add_(epsilon)
        update = torch.div(piece.first, root, out=root).mul_(rate / (1.0 - self.settings.beta1**self.num_steps))
        if decay:
            share = rate * decay
            update.mul_(1.0 + share / (1.0 - share)).add_(piece.value, alpha=share / (1.0 - share))
        return torch.linalg.vector_norm(update).float().square()


def _alike(slices: Sequence[Slice]) -> dict[tuple[float, float], list[Slice]]:
    groups: dict[tuple[float, float], list[Slice]] = {}
    for piece in slices:
        groups.setdefault((piece.lr_factor, piece.weight_decay), []).append(piece)
    return groups
