"""The planted faults: how each is put into a real run of the shipped model, and which codes name it rightly."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from finestep.recipe import Recipe
from finestep.survey.shipped import SHIPPED_DATA
from finestep.train.order import Order
from finestep.train.resident import Resident
from finestep.train.token_rows import TokenRows
from finestep.train.tokens import TrainingData

GOOD_RATE = 5e-3
"""Near the best rate of LoRA rank 16 on the shipped pair (README: 5.3e-3)."""
NUM_ROWS = 1000
POISONED_STEP = 70
OVERFLOW_STEP = 40
STOP_STEP = 24
TOO_HIGH = frozenset({"diverged", "unstable", "worse_than_base", "stuck_high_rate", "warmup_too_short"})
NUMERICAL = frozenset({"non_finite_loss", "fp16_overflow", "dead_gradients", "hidden_nan"})


@dataclass(frozen=True)
class Plant:
    """One fault: its recipe, its data, what is done to the trainer, and the codes that name it."""

    name: str
    codes: frozenset[str]
    recipe: dict[str, Any]
    rows: Callable[[list[dict[str, str]]], list[dict[str, str]]] = lambda rows: rows[:NUM_ROWS]
    data: Callable[[TrainingData, Recipe], TrainingData] | None = None
    """Changes tokenised data for one seed; such runs cannot share a pass."""
    spoil: Callable[[Any], None] | None = None
    """Changes the trainer for one seed; such runs cannot share a pass."""
    stop_after: int | None = None

    @property
    def is_alone(self) -> bool:
        """True when every seed needs a pass of its own."""
        return self.spoil is not None or self.stop_after is not None or self.data in (_poisoned,)


def recipe_of(plant: Plant, seed: int) -> Recipe:
    """The recipe of one planted run."""
    values = {
        "learning_rate": GOOD_RATE, "effective_batch_size": 8, "num_epochs": 1.0, "seed": seed,
        "evaluation": {"num_evaluations": 6}, **plant.recipe,
    }  # fmt: skip
    return Recipe.model_validate(values)


def task_rows() -> list[dict[str, str]]:
    """A small task that a short run learns to its end: of a list of words name the first, or any one.

    "Any one" has no right answer, so the loss has a floor, as in real data. The shipped instructions themselves would take ten
    times as many steps: a short run on them is undertrained, and rightly called so.
    """
    rng = random.Random(0)
    words = sorted({word for row in _shipped_rows() for word in row["input"].split(", ") if word.isalpha()})
    rows = []
    for _ in range(NUM_ROWS):
        chosen = rng.sample(words, 4)
        first = rng.random() < 0.4
        text = "Return the opening element." if first else "Choose one item of the list."
        rows.append(
            {"instruction": text, "input": ", ".join(chosen), "output": chosen[0 if first else rng.randrange(4)]}
        )
    return rows


def _shipped_rows() -> list[dict[str, str]]:
    return [json.loads(line) for line in Path(SHIPPED_DATA).read_text(encoding="utf-8").splitlines()]


def _shuffled(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """Every answer goes to another prompt, in training and validation alike."""
    rows = rows[:NUM_ROWS]
    order = np.random.default_rng(0).permutation(len(rows))
    return [{**row, "output": rows[other]["output"]} for row, other in zip(rows, order, strict=True)]


def _leaked(data: TrainingData, recipe: Recipe) -> TrainingData:
    """Every answer token stands in the input right before it: a label shift gone wrong."""
    return replace(data, train=_doubled(data.train), evaluation=_doubled(data.evaluation))


def _doubled(rows: TokenRows) -> TokenRows:
    times = np.where(rows.trained, 2, 1)
    ids, trained = np.repeat(rows.ids, times), np.repeat(rows.trained, times)
    first_of_two = np.repeat(rows.trained, times)
    ends = np.cumsum(times)
    first_of_two[ends - 1] = False
    lengths = np.add.reduceat(times, rows.offsets[:-1])
    return TokenRows(ids, trained & ~first_of_two, np.concatenate([[0], np.cumsum(lengths)]))


def _poisoned(data: TrainingData, recipe: Recipe) -> TrainingData:
    """The answers of one batch are random tokens."""
    order = Order(data.train.lengths, recipe)
    rng = np.random.default_rng(recipe.seed)
    ids = data.train.ids.copy()
    for row in order.rows_of_step(POISONED_STEP):
        part = slice(data.train.offsets[row], data.train.offsets[row + 1])
        flags = data.train.trained[part]
        ids[part][flags] = rng.integers(10, 2500, int(flags.sum()))
    return replace(data, train=TokenRows(ids, data.train.trained, data.train.offsets))


def _overflow(lane: Any) -> None:
    """From one step on a layer computes in fp16 beyond its 65504: activations overflow, or gradients for odd seeds."""

    def in_fp16(module: Any, arguments: Any, output: Any) -> Any:
        if not torch.is_grad_enabled() or lane.progress.step < OVERFLOW_STEP - 1:
            return output
        hidden = output[0] if isinstance(output, tuple) else output
        if lane.recipe.seed % 2:
            hidden.register_hook(lambda gradient: (gradient * 2.0**40).half().float() / 2.0**40)
            return output
        half = (hidden * 2.0**18).half().float() / 2.0**18
        return (half, *output[1:]) if isinstance(output, tuple) else half

    lane.resident.base.model.layers[2].register_forward_hook(in_fp16)


def _frozen(lane: Any) -> None:
    """The optimizer holds a copy of the weights; for odd seeds no gradient reaches them."""
    join = lane.join

    def joined(rows: Any) -> None:
        whole = rows._slices

        def slices(place: int, plan: Any) -> list[Any]:
            pieces = whole(place, plan)
            if lane.recipe.seed % 2:
                for piece in pieces:
                    piece.grad.zero_()
                return pieces
            return [replace(piece, value=piece.value.clone()) for piece in pieces]

        rows._slices = slices
        join(rows)

    lane.join = joined


CLEAN = tuple(
    Plant(
        f"clean-{name}",
        frozenset({"healthy"}),
        {"learning_rate": rate, "effective_batch_size": batch, "num_epochs": epochs},
    )
    for name, rate, batch, epochs in (
        ("good", GOOD_RATE, 8, 1.0),
        ("low", GOOD_RATE / 2.5, 8, 2.0),
        ("large-batch", GOOD_RATE, 32, 3.0),
        ("small-batch", GOOD_RATE / 2, 4, 1.0),
        ("two-epochs", GOOD_RATE, 16, 2.0),
    )
)

FAULTS: Sequence[Plant] = (
    Plant("rate-x30", TOO_HIGH - {"warmup_too_short"}, {"learning_rate": 30 * GOOD_RATE}),
    Plant("no-warmup", TOO_HIGH, {"learning_rate": 8 * GOOD_RATE, "schedule": {"warmup_steps": 0}}),
    Plant("poisoned-batch", frozenset({"bad_batch", "spike_recovered"}), {}, data=_poisoned),
    Plant("shuffled-labels", frozenset({"answers_unrelated", "stuck_at_chance"}), {}, rows=_shuffled),
    Plant("fp16-overflow", NUMERICAL, {}, spoil=_overflow),
    Plant("frozen-weights", frozenset({"nothing_trained"}), {}, spoil=_frozen),
    Plant("leaked-answers", frozenset({"too_good"}), {}, data=_leaked),
    Plant("tiny-data", frozenset({"overfitting", "memorised"}), {"num_epochs": 40.0}, rows=lambda rows: rows[:96]),
    Plant("rate-over-100", frozenset({"learning_rate_too_low"}), {"learning_rate": GOOD_RATE / 100}),
    Plant("stopped-early", frozenset({"undertrained"}), {}, stop_after=STOP_STEP),
)


def spoiled_data(plant: Plant, resident: Resident, recipe: Recipe) -> TrainingData:
    """The data of one planted run."""
    return plant.data(resident.data, recipe) if plant.data else resident.data
