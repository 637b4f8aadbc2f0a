"""What a user would do instead of `tune`, and `tune` itself, each played on a recorded task within a budget of full runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from benchmarks.scoreboard.bill import Bill
from benchmarks.search.recorded import Place, Recorded
from finestep.facts import DataFacts
from finestep.ready import DataCard
from finestep.recipe import Recipe
from finestep.rules.recommendation import Recommendation
from finestep.search.search import Search
from finestep.search.starting_point import start_of
from finestep.search.sweep import BASELINE_RATES
from finestep.studies.strategies import make_judge
from finestep.study import Budget, DataSpec, ModelSpec, StudySpec
from finestep.trial import Outcome, Trial

USUAL_BATCH = 16
SHORT_LENGTH = 0.125
BUDGETS = (1, 2, 3, 4, 6)
Advice = Recommendation
Play = Callable[[Bill, Advice], tuple[Place, float | None]]
"""From a bill to (the chosen recipe, the regret that the rival states of it, if it states one)."""


@dataclass(frozen=True)
class Rival:
    """One line of the scoreboard."""

    name: str
    budget: float
    """The most that it may spend, in full runs."""
    play: Play


def usual(bill: Bill, advice: Advice, *, factors: tuple[float, ...]) -> tuple[Place, None]:
    """Multiples of the usual rate of the method at batch 16."""
    base = BASELINE_RATES[bill.task.card["method"]]
    return bill.full_runs((base * factor, USUAL_BATCH) for factor in factors), None


def around_advice(bill: Bill, advice: Advice, *, factors: tuple[float, ...]) -> tuple[Place, None]:
    """Multiples of the recommended rate at the recommended batch size."""
    rate, batch = advised(advice)
    return bill.full_runs((rate * factor, batch) for factor in factors), None


def short_then_full(bill: Bill, advice: Advice, *, factors: tuple[float, ...]) -> tuple[Place, None]:
    """Short runs at multiples of the recommended rate; then full runs at the winner and an octave below it."""
    rate, batch = advised(advice)
    tried = {rate * factor: bill.run(rate * factor, batch, length=SHORT_LENGTH)[1] for factor in factors}
    winner = min(tried, key=lambda one: tried[one])
    return bill.full_runs([(winner, batch), (winner / 2, batch)]), None


def advised(advice: Advice) -> tuple[float, float]:
    """The rate and the batch size that `recommend` prints."""
    return advice.estimates["learning_rate"].value, advice.estimates["effective_batch_size"].value


def tune(bill: Bill, advice: Advice, *, budget: float, with_baseline: bool = True) -> tuple[Place, float | None]:
    """`finestep tune --budget N` with the prior that `recommend` gives, one trial at a time."""
    strategy = judge_of(bill.task, advice, budget=budget, with_baseline=with_baseline, seed=bill.seed)
    trials: list[Trial] = []
    places: dict[int, Place] = {}
    while proposals := strategy.propose(trials, remaining_runs=budget - bill.spent):
        wish = proposals[0]
        seed = int(str(wish.changes.get("seed", bill.seed)))
        length = min(bill.task.lengths, key=lambda one: abs(math.log(one / wish.fidelity)))
        place, _ = bill.run(wish.learning_rate, wish.effective_batch_size, length=length)
        number = len(trials)
        places[number] = place
        trials.append(trial_of(bill.task, place, length, seed=seed, number=number, stage=wish.stage))
    said = strategy.answer(trials)
    if said.trial is not None:
        return places[said.trial], said.expected_regret
    return bill.task.nearest(said.learning_rate or 1e-4, said.effective_batch_size or 1), said.expected_regret


def judge_of(task: Recorded, advice: Advice, *, budget: float, with_baseline: bool, seed: int) -> Search:
    """The strategy that `tune` would make for the task, on the rates, batch sizes and lengths that were measured."""
    start = start_of(advice)
    spec = StudySpec(
        name=task.name,
        model=ModelSpec(path="recorded"),
        data=DataSpec(path="recorded"),
        recipe=Recipe.model_validate(task.card["recipe"]).changed(seed=seed),
        strategy="auto",
        start=start,
        objective="accuracy" if task.by_accuracy else "eval_loss",
        goal="maximize" if task.by_accuracy else "minimize",
        with_baseline=with_baseline,
    )
    card = DataCard(facts=DataFacts(**task.card["data_facts"]))
    judge = make_judge(spec, card, budget=Budget(full_runs=budget))
    space = judge.space
    batches = sorted({round(2**value) for value in task.axis("log_batch")} & set(space.batch_sizes))
    measured = {
        "learning_rates": tuple(2**value for value in task.axis("log_rate")),
        "batch_sizes": tuple(batches) or space.batch_sizes,
        "fidelities": tuple(one for one in task.lengths if one >= 0.9 * space.fidelities[0]),
    }
    return Search.of_study(
        spec,
        space.model_copy(update=measured),
        judge.prior,
        num_eval_rows=judge.num_eval_rows,
        budget_runs=budget,
        is_short=judge.is_short,
    )


def trial_of(task: Recorded, place: Place, length: float, *, seed: int, number: int, stage: str) -> Trial:
    """A measured run as a trial of a study."""
    run = task.run(place, length=length, seed=seed)
    recipe = Recipe.model_validate(task.card["recipe"]).changed(
        learning_rate=place.rate, effective_batch_size=place.batch, seed=seed
    )
    state = "diverged" if run.loss is None else "completed"
    metrics: Mapping[str, float] = {} if run.accuracy is None or run.loss is None else {"accuracy": run.accuracy}
    outcome = Outcome(state=state, eval_loss=run.loss, metrics=dict(metrics))  # type: ignore[arg-type]
    return Trial(number=number, recipe=recipe, fidelity=length, stage=stage, state=outcome.state, outcome=outcome)


def known_best(bill: Bill, advice: Advice, *, batches: Callable[[Recorded, Advice], set[int]]) -> tuple[Place, None]:
    """A bound, not a rival: who knows the mean of all seeds takes the best recipe of these batch sizes, and pays nothing."""
    task, allowed = bill.task, batches(bill.task, advice)
    inside = [place for place in task.full if place.batch in allowed]
    return min(sorted(inside or task.full), key=task.mean), None


def advised_batch(task: Recorded, advice: Advice) -> set[int]:
    """The measured batch size nearest to the recommended one."""
    return {task.nearest(*advised(advice)).batch}


def searched_batches(task: Recorded, advice: Advice) -> set[int]:
    """The batch sizes that `tune` may try."""
    return set(judge_of(task, advice, budget=1, with_baseline=False, seed=0).space.batch_sizes)


RIVALS = (
    Rival("usual default, batch 16", 1, partial(usual, factors=(1,))),
    Rival("usual default x 1, 2, 4, 8, batch 16", 4, partial(usual, factors=(1, 2, 4, 8))),
    Rival("recommend, one run", 1, partial(around_advice, factors=(1,))),
    Rival("recommend x 1, 2", 2, partial(around_advice, factors=(1, 2))),
    Rival("recommend x 1/2, 1, 2", 3, partial(around_advice, factors=(0.5, 1, 2))),
    Rival("recommend x 1/2, 1, 2, 4", 4, partial(around_advice, factors=(0.5, 1, 2, 4))),
    Rival("4 short runs, winner and an octave below", 2.5, partial(short_then_full, factors=(0.5, 1, 2, 4))),
    *(Rival(f"tune {budget}", budget, partial(tune, budget=budget)) for budget in BUDGETS),
    *(
        Rival(f"tune {budget}, no baseline", budget, partial(tune, budget=budget, with_baseline=False))
        for budget in BUDGETS
        if budget >= 3
    ),
)
BOUNDS = (
    Rival("bound: best rate at the recommended batch", math.inf, partial(known_best, batches=advised_batch)),
    Rival("bound: best of the batches that tune may try", math.inf, partial(known_best, batches=searched_batches)),
)
