"""The rivals of the live scoreboard. Each spends its runs on a task and answers with a recipe, or with the model that it trained."""

from __future__ import annotations

import math
import shutil
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.live import derived, rate_free
from benchmarks.live.tasks import NUM_EPOCHS
from benchmarks.live.trainings import FRESH_SEEDS, Trainings
from benchmarks.scoreboard.rules import ABOUT, UPWARD, USUAL_BATCH
from finestep.api.tuning import tune
from finestep.recipe import Recipe
from finestep.search.sweep import BASELINE_RATES

BUDGETS = (1, 2, 3, 4)
GRIDS = ("usual default, then its multiples", "recommend, then its multiples")


@dataclass(frozen=True)
class Answer:
    """What a rival answered for a task with one budget and one seed of the search.

    Args:
        cost: full runs spent.
        loss: of the answer, on fresh rows in the mean over fresh seeds.
        told: the answer in a few words.
    """

    rival: str
    budget: int
    task: str
    seed: int
    cost: float
    loss: float
    told: str


def answers(
    trainings: Trainings, *, seeds: Sequence[int], budgets: Sequence[int], folder: Path, only_tune: bool = False
) -> Iterator[Answer]:
    """All answers for a task; each is made once and written down.

    Args:
        seeds: of the searches.
        folder: for the studies of `tune` while they run.
        only_tune: leave the rivals out.
    """
    for budget in budgets:
        for seed in seeds:
            yield _tuned(trainings, budget, seed, folder=folder)
    if only_tune:
        return
    for name in GRIDS:
        for budget in budgets:
            for seed in seeds:
                yield _grid(trainings, name, budget, seed)
    advised = trainings.task.advice.recipe.effective_batch_size
    for optimizer in rate_free.OPTIMIZERS:
        for batch, words in ((USUAL_BATCH, "batch 16"), (advised, "recommend's batch")):
            yield _trained(
                trainings,
                f"{optimizer}, {words}",
                lambda seed, optimizer=optimizer, batch=batch: rate_free.train(trainings, optimizer, batch, seed),
            )
    yield _trained(trainings, derived.NAME, lambda seed: derived.train(trainings, seed))


def _tuned(trainings: Trainings, budget: int, seed: int, *, folder: Path) -> Answer:
    def make() -> dict[str, object]:
        task, out = trainings.task, folder / f"{trainings.task.name}-{budget}-{seed}"
        study = tune(
            str(task.model),
            task.train_path,
            out=out,
            method=task.method,
            budget=budget,
            epochs=NUM_EPOCHS,
            settings={"seed": seed},
            device="cpu",
            threads=1,
            check_saved=False,
            progress=False,
            eval_path=task.rows_for("choice"),
            max_length=task.max_length,
        )
        trials = study.result.trials
        full_tokens = max(trial.num_train_tokens or 0 for trial in trials)
        spent = sum(trial.num_train_tokens or 0 for trial in trials) / full_tokens
        recipe = study.best.recipe.model_dump(mode="json")
        tried = [[one.learning_rate, one.effective_batch_size, one.fidelity, one.eval_loss] for one in trials]
        shutil.rmtree(out)
        return {"recipe": recipe, "cost": spent, "tried": tried}

    found = trainings.kept(f"tune {budget} {seed}", make)
    return _judged(trainings, "tune", budget, seed, found["cost"], Recipe.model_validate(found["recipe"]))


def _grid(trainings: Trainings, name: str, budget: int, seed: int) -> Answer:
    """Full runs at multiples of a rate at one batch size, and the best of them on the rows to choose on."""
    task = trainings.task
    advised = task.advice.recipe
    if name == GRIDS[0]:
        plain = advised.changed(optimizer={"head_lr_multiplier": 1.0}, effective_batch_size=USUAL_BATCH)
        rate, factors = BASELINE_RATES[task.method], UPWARD[budget]
    else:
        plain, rate, factors = advised, advised.learning_rate, ABOUT[budget]
    recipes = [plain.changed(learning_rate=rate * factor) for factor in factors]
    best = recipes[0]
    if len(recipes) > 1:
        best = min(recipes, key=lambda recipe: trainings.choice_loss(recipe, seed=seed))
    return _judged(trainings, name, budget, seed, len(recipes), best)


def _judged(trainings: Trainings, name: str, budget: int, seed: int, cost: float, recipe: Recipe) -> Answer:
    told = f"{recipe.learning_rate:.2g} x {recipe.effective_batch_size}"
    return Answer(name, budget, trainings.task.name, seed, cost, trainings.fresh_loss(recipe), told)


def _trained(trainings: Trainings, name: str, train: Callable[[int], dict[str, float]]) -> Answer:
    """A rival that answers with a model: its loss on fresh rows in the mean over the fresh seeds."""
    found = [trainings.kept(f"{name} {seed}", lambda seed=seed: train(seed)) for seed in FRESH_SEEDS]
    losses = [one["loss"] if one["loss"] is not None else math.inf for one in found]
    cost = statistics.fmean(one["cost"] for one in found)
    told = "; ".join(str(one["told"]) for one in found)
    return Answer(name, max(1, math.ceil(cost - 0.05)), trainings.task.name, 0, cost, statistics.fmean(losses), told)
