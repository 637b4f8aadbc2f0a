"""Norms of the gradients of micro-batches, for the noise scale: plain, and in the metric in which Adam is plain descent."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch

from finestep.rules.noise_scale import StepNoise, step_noise

Metric = Sequence[torch.Tensor] | None


@torch.no_grad()
def adam_metric(
    parameters: Sequence[torch.Tensor],
    state: Mapping[torch.Tensor, Mapping[str, torch.Tensor]],
    *,
    beta2: float,
    epsilon: float,
) -> Metric:
    """1 / (sqrt(v_hat) + epsilon) of every parameter from Adam's state before the step; None before the first one.

    With it |g|^2 becomes the sum of g^2 / (sqrt(v_hat) + epsilon), as AdaptDL (Pollux, arXiv 2008.12260) uses it.
    """
    if any(value not in state for value in parameters):
        return None
    out = []
    for value in parameters:
        steps = float(state[value]["step"])
        root = (state[value]["exp_avg_sq"] / (1 - beta2**steps)).sqrt_()
        out.append(root.add_(epsilon).reciprocal_())
    return out


def accumulate_with_noise(
    parameters: Sequence[torch.Tensor], micro_batches: Iterable[tuple[float, Callable[[], None]]], metric: Metric = None
) -> tuple[StepNoise, StepNoise | None]:
    """Accumulate a step and look at each micro-batch's own gradient: (plain noise, noise in `metric`).

    Each micro-batch is (its units, a function that adds the gradient of its *mean* loss). Afterwards `.grad` holds the weighted mean of
    all of them. Costs one more copy of the gradients. The micro-batches must be drawn at random: sorted by length they are no sample.
    """
    total = [torch.zeros_like(value, dtype=torch.float32) for value in parameters]
    sizes, plain, scaled = [], [], []
    for size, backward in micro_batches:
        for value in parameters:
            value.grad = None
        backward()
        grads = [_gradient(value) for value in parameters]
        sizes.append(size)
        plain.append(_square(grads, None))
        if metric is not None:
            scaled.append(_square(grads, metric))
        torch._foreach_add_(total, grads, alpha=size)
    torch._foreach_div_(total, sum(sizes))
    for value, mean in zip(parameters, total, strict=True):
        value.grad = mean.to(value.dtype)
    in_metric = None if metric is None else step_noise(sizes, scaled, _square(total, metric))
    return step_noise(sizes, plain, _square(total, None)), in_metric


def _gradient(value: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(value, dtype=torch.float32) if value.grad is None else value.grad.float()


@torch.no_grad()
def _square(grads: Sequence[torch.Tensor], metric: Metric) -> float:
    """Squared norm, summed in float64."""
    if metric is None:
        parts = [grad.double().pow_(2).sum() for grad in grads]
    else:
        parts = [(grad.double().pow_(2) * scale).sum() for grad, scale in zip(grads, metric, strict=True)]
    return float(torch.stack(parts).sum())
