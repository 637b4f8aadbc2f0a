"""AdamW over one visible table of parameters: who learns how fast, and who decays. It owns no tensors; `update.py` takes the step.

A trial's tensors are slices: a few pieces of its row in a pack, or the parameters of a whole model.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

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


def rates_for(settings: OptimizerGroup, rate: float, decay: float, num_steps: int) -> tuple[float, float, float]:
    """(lr, eps, weight decay) for torch's AdamW at its nth step (Loshchilov & Hutter 2019, arXiv 1711.05101).

    Without bias correction they are those that cancel its correction exactly.
    """
    if settings.bias_correction:
        return rate, settings.epsilon, decay
    root = math.sqrt(1.0 - settings.beta2**num_steps)
    scale = (1.0 - settings.beta1**num_steps) / root
    return rate * scale, settings.epsilon / root, decay / scale


@torch.no_grad()
def norms_from_moments(
    slices: Sequence[Slice], settings: OptimizerGroup, learning_rate: float, num_steps: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """(norm of the last update, norm of the trained weights) as scalars on the device, from Adam's moments.

    Slice by slice: the updates of a whole model at once would need as much memory as two thirds of its optimizer state.
    """
    squares = [_update_square(piece, settings, learning_rate * piece.lr_factor, num_steps) for piece in slices]
    weights = torch.linalg.vector_norm(torch.stack(torch._foreach_norm([piece.value for piece in slices])))
    return torch.stack(squares).sum().sqrt(), weights.float()


def _update_square(piece: Slice, settings: OptimizerGroup, rate: float, num_steps: int) -> torch.Tensor:
    """Squared norm of lr * (m_hat / (sqrt(v_hat) + eps) + weight_decay * w)."""
    rate, epsilon, decay = rates_for(settings, rate, piece.weight_decay, num_steps)
    root = piece.second.sqrt().div_(math.sqrt(1.0 - settings.beta2**num_steps)).add_(epsilon)
    update = torch.div(piece.first, root, out=root).mul_(rate / (1.0 - settings.beta1**num_steps))
    if decay:
        share = rate * decay
        update.mul_(1.0 + share / (1.0 - share)).add_(piece.value, alpha=share / (1.0 - share))
    return torch.square(torch.linalg.vector_norm(update).float())


def alike(slices: Sequence[Slice]) -> dict[tuple[float, float], list[Slice]]:
    """Slices by what they have in common: (learning-rate factor, weight decay)."""
    groups: dict[tuple[float, float], list[Slice]] = {}
    for piece in slices:
        groups.setdefault((piece.lr_factor, piece.weight_decay), []).append(piece)
    return groups
