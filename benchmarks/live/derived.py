"""`pichak`, the tool with our promise: its quick plan's grid of rates and its race, over our data and our loss.

Its `derive` sizes the batch on a CUDA card and refuses a CPU, so it is given the batch that `recommend` names; the rest is its own:
alpha1 along Adam's first update, eight rates below it, and a race of them within the run.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from benchmarks.live.rate_free import backward, fresh_loss, recipe_of
from benchmarks.live.trainings import Trainings
from finestep.train.evaluate import evaluate_rows
from finestep.train.order import Order
from finestep.train.whole_model import trained

NAME = "pichak, its race at recommend's batch"
NUM_GRADIENT_BATCHES = 8
"""Batches whose mean gradient gives Adam's first update; its noise probe takes eight at the least."""


def train(trainings: Trainings, seed: int) -> dict[str, float | str | None]:
    """One race; the loss is of fresh rows, the rows that the race looks at are those to choose on."""
    from pichak.tune import QUICK_SPAN, measure_first_step, race

    resident = trainings.resident("fresh")
    choice_rows = trainings.resident("choice").data.evaluation
    recipe = recipe_of(trainings, batch=trainings.task.advice.recipe.effective_batch_size, seed=seed)
    model = resident.begin(recipe)
    values = list(trained(model).values())
    order = Order(resident.data.train.lengths, recipe)

    def row_losses() -> np.ndarray:
        sums = evaluate_rows(model, resident.data, resident.token_loss, rows=choice_rows).row_sums
        return sums / np.array([choice_rows.num_loss_units([row]) for row in range(len(choice_rows))])

    def train_step(index: int) -> None:
        model.train()
        backward(model, resident, order.rows_of_step(index + 1))

    optimizer = torch.optim.AdamW(values, lr=1e-3, weight_decay=0.0)
    for index in range(NUM_GRADIENT_BATCHES):
        train_step(index)
    first = measure_first_step(
        values, [value.grad for value in values], lambda: float(row_losses().mean()), optimizer=optimizer
    )
    optimizer.zero_grad(set_to_none=True)
    if first.alpha is None:
        return {"cost": 0.1, "loss": None, "told": "no step along Adam's first update lowered the loss"}
    low, high = QUICK_SPAN
    rates = [first.alpha * 2 ** (low + 0.5 * place) for place in range(round((high - low) / 0.5) + 1)]
    try:
        found = race(
            values,
            optimizer,
            train_step,
            lambda: row_losses().tolist(),
            rates,
            total_steps=order.num_steps,
            alpha1=first.alpha,
        )
    except ValueError as error:
        return {"cost": 4.0, "loss": None, "told": str(error)[:100]}
    loss = fresh_loss(model, resident)
    cost = found.runs + NUM_GRADIENT_BATCHES / order.num_steps
    told = f"{found.lr:.2g} x {recipe.effective_batch_size}, {found.ending}"
    return {"cost": cost, "loss": loss if math.isfinite(loss) else None, "told": told}
