"""`finestep tune` on a recorded task: the search that `tune` would make, on the rates, batch sizes and lengths that were measured."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from benchmarks.scoreboard.bill import Bill
from benchmarks.search.recorded import Place, Recorded
from finestep.facts import DataFacts
from finestep.ready import DataCard
from finestep.recipe import Recipe
from finestep.rules.recommendation import Recommendation
from finestep.search.search import Search
from finestep.search.starting_point import start_of
from finestep.search.strategy import Proposal, Strategy
from finestep.studies.strategies import make_judge
from finestep.study import Budget, DataSpec, ModelSpec, SearchSpec, StudySpec
from finestep.trial import Outcome, Trial

LONG_STUDY = 12.0
"""Full runs that a study may take to come within the noise of the best."""


@dataclass(frozen=True)
class Stated:
    """What a rival says of its own answer.

    Args:
        regret: per cent of the loss, where it says one.
        rates: its 80 % interval for the best rate at the chosen batch size.
    """

    regret: float | None
    rates: tuple[float, float] | None


def tune(
    bill: Bill, advice: Recommendation | None, budget: float, *, with_baseline: bool = True
) -> tuple[Place, Stated]:
    """`finestep tune --budget N`, one trial at a time: (the chosen recipe, what is stated of it)."""
    strategy = judge_of(bill.task, advice, budget=budget, with_baseline=with_baseline, seed=bill.seed)
    trials, places = follow(bill, strategy)
    said = strategy.answer(trials)
    stated = Stated(said.expected_regret, None if said.rate is None else (said.rate.low, said.rate.high))
    if said.trial is not None:
        return places[said.trial], stated
    return bill.task.nearest(said.learning_rate or 1e-4, said.effective_batch_size or 1), stated


def follow(bill: Bill, strategy: Strategy) -> tuple[list[Trial], list[Place]]:
    """Run what a strategy proposes until it ends or the budget is spent: (its trials, the measured cell of each)."""
    trials: list[Trial] = []
    places: list[Place] = []
    while proposals := strategy.propose(trials, remaining_runs=bill.budget - bill.spent):
        wish = proposals[0]
        seed = int(str(wish.changes.get("seed", bill.seed)))
        length = bill.task.nearest_length(wish.fidelity)
        if not bill.affords(length):
            break
        place, _ = bill.run(wish.learning_rate, wish.effective_batch_size, length=length)
        places.append(place)
        trials.append(trial_of(bill.task, place, length, seed=seed, number=len(trials), wish=wish))
    return trials, places


def judge_of(
    task: Recorded, advice: Recommendation | None, *, budget: float, with_baseline: bool = False, seed: int = 0
) -> Search:
    """The search that `tune` would make for the task; without advice it knows no more than the method."""
    spec = StudySpec(
        name=task.name,
        model=ModelSpec(path="recorded"),
        data=DataSpec(path="recorded"),
        recipe=Recipe.model_validate(task.card["recipe"]).changed(seed=seed),
        search=SearchSpec(strategy="auto", start=start_of(advice) if advice else None, with_baseline=with_baseline),
        objective="accuracy" if task.by_accuracy else "eval_loss",
        goal="maximize" if task.by_accuracy else "minimize",
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
        opening=judge.opening,
    )


def trial_of(task: Recorded, place: Place, length: float, *, seed: int, number: int, wish: Proposal) -> Trial:
    """A measured run as a trial of a study."""
    run = task.run(place, length=length, seed=seed)
    recipe = Recipe.model_validate(task.card["recipe"]).changed(
        learning_rate=place.rate, effective_batch_size=place.batch, seed=seed
    )
    state = "diverged" if run.loss is None else "completed"
    metrics: Mapping[str, float] = {} if run.accuracy is None or run.loss is None else {"accuracy": run.accuracy}
    outcome = Outcome(state=state, eval_loss=run.loss, metrics=dict(metrics))
    return Trial(
        number=number,
        recipe=recipe,
        fidelity=length,
        stage=wish.stage,
        is_baseline=wish.is_baseline,
        state=outcome.state,
        outcome=outcome,
    )


def cost_to_noise(task: Recorded, advice: Recommendation | None, *, seed: int) -> float:
    """Full runs that a long study needs until the best recipe so far lies within one noise width of the best of the task.

    The usual default is not run: it only shows what the study gains. Nor does the study end by itself, so that its stopping rule
    is not judged here. A recipe is judged by all its seeds. Infinite: not reached.
    """
    width = task.noise_percent()
    if width is None:
        return math.nan
    bill = Bill(task, seed, LONG_STUDY)
    follow(bill, replace(judge_of(task, advice, budget=LONG_STUDY, seed=seed), stop_below=0.0))
    return next((cost for cost, place in bill.leaders if task.regret(task.mean(place)) <= width), math.inf)
