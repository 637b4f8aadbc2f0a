"""One optimizer step of one or several trials, decided on the device: the host reads every figure of the step in one go.

Clipping, and the decision whether a step may touch the weights at all, need the gradient norm. To read it first would make the host
wait in the middle of the step. So both are tensors: AdamW's fused kernel takes a factor for the gradients and a mark that it must
change nothing (made for the gradient scaler of fp16), one of each a trial, and what came of it is read afterwards.

Shapes: L trials that step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.optim.adamw import adamw

from finestep.recipe import OptimizerGroup
from finestep.train.optimizer import CLIP_EPSILON, Slice, alike, rates_for

FUSED_DEVICES = frozenset({"cpu", "cuda"})


@dataclass(frozen=True)
class UpdatePlan:
    """What one trial's optimizer shall do.

    Attributes:
        num_steps: updates including this one.
        highest_loss: a step with a larger loss leaves the weights alone.
        wants_norms: also tell the norms of the update and of the weights.
        wants_descent: also tell by how much the loss should fall.
    """

    settings: OptimizerGroup
    new_names: tuple[str, ...]
    num_steps: int
    learning_rate: float
    highest_loss: float = math.inf
    wants_norms: bool = True
    wants_descent: bool = False


@dataclass(frozen=True)
class StepFigures:
    """What came of one trial's step.

    Attributes:
        grad_norm: before clipping.
        descent: the fall of the loss that gradient and update predict, times the factor of clipping.
    """

    loss: float
    grad_norm: float
    was_updated: bool
    was_clipped: bool
    update_norm: float | None = None
    weight_norm: float | None = None
    descent: float | None = None


@dataclass(frozen=True)
class Decision:
    """Whether each trial's step goes, and how much its gradients are clipped; all [L], on the device."""

    loss: torch.Tensor
    norm: torch.Tensor
    held: torch.Tensor
    """1 where the weights must not be touched, else 0."""
    divisor: torch.Tensor
    """What gradients are divided by: more than 1 where they are clipped."""
    clock: torch.Tensor
    """The updates of each trial, this one included; the kernel wants them where the weights are."""

    def figures(self) -> list[torch.Tensor]:
        """The rows that `read_figures` wants first."""
        return [self.loss, self.norm, self.held, self.divisor]


def decide(loss_L: torch.Tensor, norm_L: torch.Tensor, plans: Sequence[UpdatePlan]) -> Decision:
    """Hold a step whose loss or norm is no number, or whose loss is larger than its plan allows."""
    limits = [math.inf if (limit := plan.settings.max_grad_norm) is None else limit for plan in plans]
    table = torch.tensor([limits, [plan.highest_loss for plan in plans], [float(plan.num_steps) for plan in plans]])
    if loss_L.device.type == "cuda":
        table = table.pin_memory()
    limit_L, highest_L, clock_L = table.to(loss_L.device, non_blocking=True).unbind()
    # A value that is no number compares as false with everything, and infinity is not below itself: one comparison sees both.
    is_fine_L = torch.logical_and((norm_L + loss_L.abs()) < math.inf, loss_L <= highest_L)
    # `where`, never a product: 0 times a value that is no number is no number again.
    held_L = torch.where(is_fine_L, 0.0, 1.0)
    divisor_L = torch.where(norm_L > limit_L, (norm_L + CLIP_EPSILON) / limit_L, 1.0)
    return Decision(loss_L, norm_L, held_L, divisor_L, clock_L)


def norms_of(trials: Sequence[Sequence[torch.Tensor]]) -> torch.Tensor:
    """The norm over all tensors of each trial, [L]."""
    # Each tensor by itself: a norm over rows [K, P] may be summed in another order when K changes, and a trial's steps must not
    # depend on its neighbours, not even in the last bit.
    flat = torch._foreach_norm([tensor for tensors in trials for tensor in tensors])
    if all(len(tensors) == 1 for tensors in trials):
        return torch.stack(flat)
    counts, parts = [len(tensors) for tensors in trials], list(flat)
    return torch.stack(
        [torch.linalg.vector_norm(torch.stack([parts.pop(0).float() for _ in range(count)])) for count in counts]
    )


def apply_adamw(slices: Sequence[Slice], plan: UpdatePlan, decision: Decision, place: int) -> None:
    """AdamW of the trial at this place of the decision, in place; its gradients are clipped where the decision says so."""
    held, divisor, clock = decision.held[place], decision.divisor[place], decision.clock[place]
    for (factor, decay), group in alike(slices).items():
        rate, epsilon, decay = rates_for(plan.settings, plan.learning_rate * factor, decay, plan.num_steps)
        values, grads = [piece.value for piece in group], [piece.grad for piece in group]
        first, second = [piece.first for piece in group], [piece.second for piece in group]
        device = group[0].value.device
        if device.type not in FUSED_DEVICES:
            _plain_adamw(values, grads, first, second, plan, (rate, epsilon, decay), held=held, divisor=divisor)
            continue
        torch._fused_adamw_(
            values,
            grads,
            first,
            second,
            [],
            [clock] * len(group),
            amsgrad=False,
            lr=rate,
            beta1=plan.settings.beta1,
            beta2=plan.settings.beta2,
            weight_decay=decay,
            eps=epsilon,
            maximize=False,
            grad_scale=divisor,
            found_inf=held,
        )


def _plain_adamw(
    values: list[torch.Tensor],
    grads: list[torch.Tensor],
    first: list[torch.Tensor],
    second: list[torch.Tensor],
    plan: UpdatePlan,
    rates: tuple[float, float, float],
    *,
    held: torch.Tensor,
    divisor: torch.Tensor,
) -> None:
    """The same on a device whose kernel takes no decision (MPS): the host reads it first."""
    if float(held):
        return
    torch._foreach_div_(grads, divisor)
    rate, epsilon, decay = rates
    adamw(
        values,
        grads,
        first,
        second,
        [],
        [torch.full((), float(plan.num_steps - 1)) for _ in values],
        foreach=False,
        amsgrad=False,
        beta1=plan.settings.beta1,
        beta2=plan.settings.beta2,
        lr=rate,
        weight_decay=decay,
        eps=epsilon,
        maximize=False,
    )


def read_figures(
    decision: Decision,
    *,
    update_norm: torch.Tensor | None = None,
    weight_norm: torch.Tensor | None = None,
    descent: torch.Tensor | None = None,
) -> list[StepFigures]:
    """All figures of the step, in one transfer from the device: the only moment at which the host waits."""
    rows = decision.figures()
    further = {"update_norm": update_norm, "weight_norm": weight_norm, "descent": descent}
    rows += [values for values in further.values() if values is not None]
    loss, norm, held, divisor, *found = torch.stack([values.float() for values in rows]).tolist()
    told = dict(zip((name for name, values in further.items() if values is not None), found, strict=True))
    return [
        StepFigures(
            loss[place],
            norm[place],
            was_updated=not held[place],
            was_clipped=not held[place] and divisor[place] > 1,
            **{name: values[place] for name, values in told.items()},
        )
        for place in range(len(loss))
    ]
