"""A limit of forgetting decides the choice in every strategy: trials over it never lead, and teach that rates must be smaller."""

from __future__ import annotations

import math

import pytest
from tests.flows.studies import CARD, spec

from finestep.search.forgetting import forgetting_sentence, second_best
from finestep.search.leader import leader, worth_keeping
from finestep.search.strategy import apply_proposal
from finestep.search.sweep import best_trial
from finestep.studies.choose import chosen_trial
from finestep.studies.spent import runs_spent
from finestep.studies.strategies import make_judge, make_strategy
from finestep.study import Budget, RetentionSpec, StartingPoint, StudySpec
from finestep.trial import Cost, Forgetting, Outcome, Trial

LIMIT = 0.1
BEST_RATE = 1e-3


def study(strategy: str, seed: int = 0) -> StudySpec:
    start = StartingPoint(learning_rate=BEST_RATE, learning_rate_sd=1.0, batch_size=16, batch_size_sd=1.0)
    retention = RetentionSpec(text_path="text", max_forgetting=LIMIT)
    made = spec(strategy=strategy, retention=retention, start=start, with_baseline=False)
    return made.model_copy(update={"recipe": made.recipe.changed(seed=seed)})


def ended(trial: Trial, *, allowed_rate: float, keeps_a_state: bool) -> Trial:
    """KL grows with the square of the rate and reaches the limit at `allowed_rate`; the loss alone is best at BEST_RATE."""
    recipe, share = trial.recipe, trial.fidelity
    kl = LIMIT * (recipe.learning_rate / allowed_rate) ** 2 * share**1.2
    x = math.log10(recipe.learning_rate / BEST_RATE)
    loss = 1 + 0.05 * x * x + 0.01 * abs(math.log2(recipe.effective_batch_size / 16)) + 0.05 * (1 - share)
    over = kl > LIMIT
    outcome = Outcome(
        state="completed",
        eval_loss=None if over and not keeps_a_state else loss,
        forgetting=Forgetting(kl_at_end=kl, kl_limit=LIMIT),
        cost=Cost(num_train_tokens=int(1e6 * share), elapsed_s=10.0),
    )
    return trial.model_copy(update={"state": "completed", "outcome": outcome})


def run(
    strategy: str, *, allowed_rate: float, keeps_a_state: bool = True, budget: float = 8, seed: int = 0
) -> list[Trial]:
    asked = study(strategy, seed)
    proposer = make_strategy(asked, CARD, budget=Budget(full_runs=budget))
    trials: list[Trial] = []
    while len(trials) < 60:
        wanted = proposer.propose(trials, remaining_runs=budget - runs_spent(trials))
        if not wanted:
            break
        recipe = apply_proposal(asked.recipe, wanted[0])
        trial = Trial(number=len(trials), recipe=recipe, fidelity=wanted[0].fidelity, stage=wanted[0].stage)
        trials.append(ended(trial, allowed_rate=allowed_rate, keeps_a_state=keeps_a_state))
    return trials


def chosen(strategy: str, trials: list[Trial]) -> Trial | None:
    asked = study(strategy)
    return chosen_trial(asked, trials, None if strategy == "sweep" else make_judge(asked, CARD).answer(trials))


@pytest.mark.parametrize("keeps_a_state", [True, False])
@pytest.mark.parametrize("strategy", ["auto", "sweep", "random", "tpe"])
def test_the_choice_keeps_the_limit_in_every_strategy(strategy, keeps_a_state):
    trials = run(strategy, allowed_rate=BEST_RATE / 6, keeps_a_state=keeps_a_state, budget=16)
    assert any(trial.outcome.forgets_too_much for trial in trials)
    best = chosen(strategy, trials)
    assert best is not None
    assert best.outcome.forgetting.kl_at_end <= LIMIT
    assert leader(study(strategy), trials).is_choosable
    assert best_trial(trials).outcome.forgetting.kl_at_end <= LIMIT
    assert best.number in worth_keeping(study(strategy), trials)


@pytest.mark.parametrize("factor", [3, 10, 30])
def test_the_search_is_driven_below_the_rates_that_forget(factor):
    trials = run("auto", allowed_rate=BEST_RATE / factor)
    best = chosen("auto", trials)
    assert best is not None
    assert BEST_RATE / factor / 4 < best.recipe.learning_rate <= BEST_RATE / factor


def test_an_optuna_sampler_is_driven_down_too():
    """One sampler with one seed is a matter of luck: ten late trials of each of six."""
    studies = [run("tpe", allowed_rate=BEST_RATE / 8, keeps_a_state=False, budget=30, seed=seed) for seed in range(6)]
    early = [trial.outcome.forgets_too_much for trials in studies for trial in trials[:10]]
    late = [trial.outcome.forgets_too_much for trials in studies for trial in trials[20:]]
    assert sum(late) < 0.5 * len(late)
    assert sum(late) < 0.7 * sum(early)


def test_when_none_keeps_the_limit_it_is_said_which_came_closest():
    trials = run("auto", allowed_rate=BEST_RATE / 1e4)
    nearest = min(trials, key=lambda trial: trial.outcome.forgetting.kl_at_end)
    said = forgetting_sentence(trials, LIMIT)
    assert f"trial {nearest.number} came closest" in said
    assert f"{nearest.recipe.learning_rate:.2g}" in said
    assert leader(study("auto"), trials) is None
    fallback = second_best(trials)
    if fallback is not None:
        assert chosen("auto", trials) == fallback
        assert worth_keeping(study("auto"), trials) == {fallback.number}
    without = run("auto", allowed_rate=BEST_RATE / 1e4, keeps_a_state=False)
    assert chosen("auto", without) is None
    assert forgetting_sentence(without, LIMIT)


def test_nothing_is_said_while_one_trial_keeps_the_limit():
    assert forgetting_sentence(run("auto", allowed_rate=BEST_RATE / 3), LIMIT) == ""
