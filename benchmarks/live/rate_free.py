"""Optimizers that promise to need no learning rate, in a plain loop over our data and our loss: one run, nothing chosen."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch

from benchmarks.live.trainings import Trainings
from finestep.recipe import Recipe
from finestep.train.batch import collate
from finestep.train.evaluate import evaluate
from finestep.train.order import Order
from finestep.train.resident import Resident
from finestep.train.whole_model import trained

SCHEDULE_FREE_RATE = 0.0025
"""The default of `schedulefree.AdamWScheduleFree`: it needs no schedule, but it has a rate."""


def _prodigy_plus(values: Iterable[torch.Tensor]) -> torch.optim.Optimizer:
    from prodigyplus import ProdigyPlusScheduleFree

    return ProdigyPlusScheduleFree(list(values), lr=1.0)


def _schedule_free(values: Iterable[torch.Tensor]) -> torch.optim.Optimizer:
    from schedulefree import AdamWScheduleFree

    return AdamWScheduleFree(list(values), lr=SCHEDULE_FREE_RATE)


OPTIMIZERS: dict[str, Callable[[Iterable[torch.Tensor]], torch.optim.Optimizer]] = {
    "ProdigyPlusScheduleFree": _prodigy_plus,
    "AdamWScheduleFree": _schedule_free,
}


def train(trainings: Trainings, optimizer: str, batch: int, seed: int) -> dict[str, float | str | None]:
    """One run with the settings that the authors recommend: no schedule, no clipping. The loss is of fresh rows."""
    resident = trainings.resident("fresh")
    recipe = recipe_of(trainings, batch=batch, seed=seed)
    model = resident.begin(recipe)
    stepper = OPTIMIZERS[optimizer](trained(model).values())
    order = Order(resident.data.train.lengths, recipe)
    model.train()
    stepper.train()
    for step in range(1, order.num_steps + 1):
        backward(model, resident, order.rows_of_step(step))
        stepper.step()
        stepper.zero_grad(set_to_none=True)
    stepper.eval()
    loss = fresh_loss(model, resident)
    return {"cost": 1.0, "loss": loss if math.isfinite(loss) else None, "told": f"batch {batch}"}


def backward(model: torch.nn.Module, resident: Resident, rows: Iterable[int]) -> None:
    """Gradients of the mean loss of these rows."""
    chosen = list(rows)
    data = resident.data
    batch = collate(data.train, chosen, pad_id=data.pad_id, device=torch.device("cpu"))
    loss = resident.token_loss.sum(model, batch) / data.train.num_loss_units(chosen)
    loss.backward()


def fresh_loss(model: torch.nn.Module, resident: Resident) -> float:
    """Loss on the evaluation rows."""
    return evaluate(model, resident.data, resident.token_loss)[0]


def recipe_of(trainings: Trainings, *, batch: int, seed: int) -> Recipe:
    """The advised recipe at another batch size."""
    return trainings.task.advice.recipe.changed(effective_batch_size=batch, seed=seed)
