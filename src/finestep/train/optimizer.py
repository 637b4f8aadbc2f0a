"""AdamW over one visible table of parameters: who learns how fast, and who decays."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from finestep.recipe import OptimizerGroup

LAYER_NUMBER = re.compile(r"(?:^|\.)(?:layers?|h|blocks?)\.(\d+)\.")
HEAD_NAMES = re.compile(r"(?:^|\.)(?:score|classifier|classification_head|out_proj_head)(?:\.|$)")
EMBEDDING_NAMES = re.compile(r"embed|wte|wpe")


@dataclass(frozen=True)
class ParameterRow:
    """One trained parameter and how it is treated."""

    name: str
    num_elements: int
    lr_factor: float
    weight_decay: float


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


class Optimizer:
    """torch's fused AdamW, its clipping, its norms, and its state by parameter name."""

    def __init__(self, parameters: Mapping[str, torch.Tensor], settings: OptimizerGroup, new_names: list[str]):
        self.settings = settings
        self.table = parameter_table(parameters, settings, new_names)
        self._parameters = dict(parameters)
        self._values = list(parameters.values())
        self.num_steps = 0
        device = self._values[0].device.type
        self._adamw = torch.optim.AdamW(
            _groups(self.table, parameters),
            lr=1.0,
            betas=(settings.beta1, settings.beta2),
            eps=settings.epsilon,
            fused=device in {"cpu", "cuda"},
        )

    def clip(self) -> tuple[float, bool]:
        """(global gradient norm before clipping, was it clipped)."""
        limit = self.settings.max_grad_norm
        norm = torch.nn.utils.clip_grad_norm_(self._values, math.inf if limit is None else limit).item()
        return norm, limit is not None and norm > limit

    def step(self, learning_rate: float) -> None:
        """One update at `learning_rate` (times each group's factor); clears the gradients."""
        self.num_steps += 1
        for group in self._adamw.param_groups:
            group["lr"], group["eps"], group["weight_decay"] = self._rates(
                learning_rate * group["lr_factor"], group["decay"]
            )
        self._adamw.step()
        self._adamw.zero_grad(set_to_none=True)

    def _rates(self, rate: float, decay: float) -> tuple[float, float, float]:
        """(lr, eps, weight decay) for torch's AdamW; without bias correction, those that cancel its correction exactly."""
        settings = self.settings
        if settings.bias_correction:
            return rate, settings.epsilon, decay
        root = math.sqrt(1.0 - settings.beta2**self.num_steps)
        scale = (1.0 - settings.beta1**self.num_steps) / root
        return rate * scale, settings.epsilon / root, decay / scale

    @torch.no_grad()
    def update_norms(self) -> tuple[float, float]:
        """(norm of the last update, norm of the trained weights), from Adam's moments, without a copy of the weights."""
        update = weights = 0.0
        for group in self._adamw.param_groups:
            values = [value for value in group["params"] if value in self._adamw.state]
            if not values:
                continue
            update += _update_square(values, self._adamw.state, group)
            weights += sum(norm.item() ** 2 for norm in torch._foreach_norm(values))
        return math.sqrt(update), math.sqrt(weights)

    def state(self) -> dict[str, torch.Tensor]:
        """First and second moments by `name.exp_avg` and `name.exp_avg_sq`; the step count is `num_steps`."""
        return {
            f"{name}.{kind}": self._adamw.state[value][kind]
            for name, value in self._parameters.items()
            if value in self._adamw.state
            for kind in ("exp_avg", "exp_avg_sq")
        }

    def restore(self, state: Mapping[str, torch.Tensor], num_steps: int) -> None:
        """Take up what `state` gave."""
        self.num_steps = num_steps
        for name, value in self._parameters.items():
            if f"{name}.exp_avg" in state:
                self._adamw.state[value] = {
                    "step": torch.tensor(
                        float(num_steps), device=value.device if value.device.type == "cuda" else "cpu"
                    ),
                    **{kind: state[f"{name}.{kind}"].to(value.device, copy=True) for kind in ("exp_avg", "exp_avg_sq")},
                }


def _groups(table: list[ParameterRow], parameters: Mapping[str, torch.Tensor]) -> list[dict[str, Any]]:
    groups: dict[tuple[float, float], list[torch.Tensor]] = {}
    for row in table:
        groups.setdefault((row.lr_factor, row.weight_decay), []).append(parameters[row.name])
    return [{"params": values, "lr_factor": factor, "decay": decay} for (factor, decay), values in groups.items()]


def _update_square(values: list[torch.Tensor], state: Mapping[torch.Tensor, Any], group: Mapping[str, Any]) -> float:
    """Squared norm of lr * (m_hat / (sqrt(v_hat) + eps) + weight_decay * w) over one group."""
    beta1, beta2 = group["betas"]
    steps = float(state[values[0]]["step"])
    first = [state[value]["exp_avg"] for value in values]
    root = torch._foreach_sqrt([state[value]["exp_avg_sq"] for value in values])
    torch._foreach_div_(root, math.sqrt(1.0 - beta2**steps))
    torch._foreach_add_(root, group["eps"])
    update = torch._foreach_div(first, root)
    torch._foreach_mul_(update, group["lr"] / (1.0 - beta1**steps))
    if group["weight_decay"]:
        share = group["lr"] * group["weight_decay"]
        torch._foreach_add_(update, torch._foreach_add(values, update), alpha=share / (1.0 - share))
    return sum(norm.item() ** 2 for norm in torch._foreach_norm(update))
