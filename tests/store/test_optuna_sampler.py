"""Optuna's own samplers as strategies."""

import math

import pytest

from finestep.errors import BadInput
from finestep.search.ask_tell import ended, recipe_of
from finestep.search.observations import Objective
from finestep.search.space import Dimension, SearchSpace
from finestep.store.optuna_sampler import OptunaSearch, is_sampler, sampler_names
from finestep.trial import Trial

SPACE = SearchSpace.between(
    (1e-5, 1e-2), (8, 64), extras=(Dimension(name="lora.rank", values=(8, 16), default=16, scale="log"),)
)


def play(search, count, function):
    trials = []
    for number in range(count):
        proposal = search.propose(trials, remaining_runs=9)[0]
        trials.append(ended(Trial(number=number, recipe=recipe_of(proposal)), function(proposal.learning_rate)))
    return trials


def test_tpe_comes_to_the_good_rates():
    trials = play(OptunaSearch("tpe", SPACE, Objective()), 30, lambda rate: 1 + abs(math.log10(rate / 1e-4)))
    late = [abs(math.log10(t.recipe.learning_rate / 1e-4)) for t in trials[-10:]]
    early = [abs(math.log10(t.recipe.learning_rate / 1e-4)) for t in trials[:10]]
    assert sum(late) < sum(early)
    assert min(late) < 0.2
    assert {t.recipe.lora.rank for t in trials} <= {8, 16}


def test_the_same_trials_give_the_same_proposal_and_failures_are_no_trouble():
    search = OptunaSearch("TPESampler", SPACE, Objective(), seed=2)
    trials = play(search, 12, lambda rate: None if rate > 1e-3 else rate)
    trials.append(Trial(number=12, recipe=trials[0].recipe))
    assert search.propose(trials, remaining_runs=3) == search.propose(trials, remaining_runs=3)
    assert search.propose(trials, remaining_runs=0.5) == []


def test_names():
    assert {"tpe", "gp", "cmaes", "qmc", "nsgaii"} <= set(sampler_names())
    assert is_sampler("TPESampler")
    assert not is_sampler("tpee")
    with pytest.raises(BadInput, match="did you mean `tpe`"):
        OptunaSearch("tpee", SPACE, Objective())


def test_a_baseline_outside_the_space_is_left_out():
    outside = ended(Trial(number=0, recipe={"learning_rate": 1e-7, "effective_batch_size": 512}), 1.0)
    assert OptunaSearch("tpe", SPACE, Objective()).propose([outside], remaining_runs=2)
