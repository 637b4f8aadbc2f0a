"""The sampler and the pruner in studies that Optuna runs."""

import math

import optuna
import pytest
from tests.search.test_structured import bowl

from finestep.integrations.optuna import FinestepSampler, HopelessPruner
from finestep.search.space import Dimension, SearchSpace

optuna.logging.set_verbosity(optuna.logging.ERROR)
SPACE = SearchSpace.between((1e-5, 1e-2), (8, 64), fidelities=(1.0,))


def objective(trial):
    rate = trial.suggest_float("learning_rate", 1e-5, 1e-2, log=True)
    return bowl(rate, trial.suggest_categorical("batch_size", [8, 16, 32, 64]))


def test_finds_a_good_point_in_eight_trials_without_a_prior():
    study = optuna.create_study(sampler=FinestepSampler(SPACE))
    study.optimize(objective, n_trials=8)
    assert study.best_value < 2.0 * 1.005


def test_a_failed_trial_moves_the_next_to_the_left():
    study = optuna.create_study(sampler=FinestepSampler(SPACE))
    first = study.ask()
    rate = first.suggest_float("learning_rate", 1e-5, 1e-2, log=True)
    first.suggest_categorical("batch_size", [8, 16, 32, 64])
    study.tell(first, state=optuna.trial.TrialState.FAIL)
    second = study.ask()
    assert second.suggest_float("learning_rate", 1e-5, 1e-2, log=True) < rate


def test_parallel_asks_differ_and_unknown_parameters_are_sampled():
    study = optuna.create_study(sampler=FinestepSampler(SPACE))
    seen = set()
    for _ in range(4):
        trial = study.ask()
        assert 0 <= trial.suggest_float("something_else", 0, 1) <= 1
        rate = trial.suggest_float("learning_rate", 1e-5, 1e-2, log=True)
        seen.add((rate, trial.suggest_int("batch_size", 8, 64, step=8)))
    assert len(seen) == 4


def test_maximise_fidelity_names_and_further_fields():
    extras = (Dimension(name="lora.rank", values=(4, 16, 64), default=16, scale="log"),)
    space = SearchSpace.between((1e-5, 1e-2), (8, 64), fidelities=(0.125, 1.0), extras=extras)
    study = optuna.create_study(direction="maximize", sampler=FinestepSampler(space, names={"learning_rate": "lr"}))

    def accuracy(trial):
        rate = trial.suggest_float("lr", 1e-5, 1e-2, log=True)
        batch = trial.suggest_int("batch_size", 8, 64)
        fidelity = trial.suggest_categorical("fidelity", [0.125, 1.0])
        trial.suggest_categorical("lora.rank", [4, 16, 64])
        return 1 - 0.1 * bowl(rate, batch, fidelity)

    study.optimize(accuracy, n_trials=10)
    assert {t.params["fidelity"] for t in study.trials} == {0.125, 1.0}


def test_the_pruner_kills_only_the_hopeless():
    study = optuna.create_study(pruner=HopelessPruner())
    good, slower, lost = study.ask(), study.ask(), study.ask()
    good.report(2.0, 1)
    slower.report(2.3, 1)
    lost.report(7.0, 1)
    assert not good.should_prune()
    assert not slower.should_prune()
    assert lost.should_prune()
    lost.report(math.nan, 2)
    assert lost.should_prune()


@pytest.mark.parametrize("seed", [0, 1])
def test_a_study_with_only_failures_goes_on_without_an_error(seed):
    study = optuna.create_study(sampler=FinestepSampler(SPACE, seed=seed))
    for _ in range(8):
        trial = study.ask()
        trial.suggest_float("learning_rate", 1e-5, 1e-2, log=True)
        trial.suggest_categorical("batch_size", [8, 16, 32, 64])
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
    assert len(study.trials) == 8
