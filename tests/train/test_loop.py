"""What a user notices of the loop: it learns, stops early, keeps the best weights, and ends a lost run at once."""

from __future__ import annotations

import math

import pytest
import torch

from finestep.recipe import Recipe
from finestep.train.evaluate import evaluate
from tests.train.runs import make_resident, run_trial


@pytest.fixture(scope="module")
def resident(shipped_model, instruct_file):
    return make_resident(shipped_model, instruct_file, Recipe())


def test_it_learns_and_records_every_step(resident, tmp_path):
    run = run_trial(resident, Recipe(learning_rate=3e-3, num_epochs=3), tmp_path)
    outcome = run.outcome
    assert outcome.state == "completed"
    assert outcome.eval_loss < 0.8 * outcome.base_eval_loss
    assert [record.step for record in run.steps] == list(range(1, outcome.cost.num_steps + 1))
    assert outcome.cost.num_train_tokens == sum(record.num_tokens for record in run.steps)
    assert all(record.update_norm > 0 and record.update_ratio > 0 and record.grad_norm > 0 for record in run.steps)
    assert next(record.step for record in run.evaluations) == 0
    assert run.evaluations[-1].step == outcome.cost.num_steps


def test_early_stopping_restores_the_best_weights(whole_model, instruct_file, tmp_path):
    resident = make_resident(whole_model, instruct_file, Recipe())
    recipe = Recipe(
        learning_rate=2e-2, num_epochs=12, lora={"rank": 32}, evaluation={"num_evaluations": 24, "patience": 2}
    )
    run = run_trial(resident, recipe, tmp_path)
    losses = [record.eval_loss for record in run.evaluations[1:]]
    assert run.outcome.state == "stopped"
    assert "no gain in 2 evaluations" in run.outcome.reason
    assert run.outcome.eval_loss == min(losses)
    assert losses[-1] > min(losses)
    assert evaluate(resident.tuned(recipe, run.weights), resident.data, resident.token_loss)[0] == pytest.approx(
        run.outcome.eval_loss, rel=1e-6
    )


def test_a_huge_rate_ends_as_diverged(resident, tmp_path):
    run = run_trial(
        resident,
        Recipe(learning_rate=10.0, num_epochs=4, schedule={"warmup_steps": 0}, optimizer={"max_grad_norm": None}),
        tmp_path,
    )
    assert run.outcome.state == "diverged"
    assert run.outcome.eval_loss is None
    assert run.outcome.cost.num_steps < 29


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_value_that_is_not_finite_ends_the_trial_in_that_step(resident, tmp_path, value):
    hooks = []

    def plant(pack):
        def spoil(module, args, kwargs, output):
            if torch.is_grad_enabled() and pack.lanes[0].progress.step == 2:
                output.logits = output.logits * value
            return output

        hooks.append(resident.base.register_forward_hook(spoil, with_kwargs=True))

    run = run_trial(resident, Recipe(num_epochs=1), tmp_path, prepare=plant)
    hooks[0].remove()
    assert run.outcome.state == "diverged"
    assert run.outcome.cost.num_steps == 3
    assert run.outcome.reason.startswith("step 3: the ")


def test_equal_tokens_whatever_the_batch(resident, tmp_path):
    tokens = {
        batch: run_trial(
            resident, Recipe(effective_batch_size=batch, num_epochs=1), tmp_path / str(batch)
        ).outcome.cost.num_train_tokens
        for batch in (4, 16, 64)
    }
    assert len(set(tokens.values())) == 1


def test_warmup_never_swallows_a_short_run(resident, tmp_path):
    run = run_trial(resident, Recipe(num_epochs=0.5, learning_rate=1e-3, schedule={"warmup_steps": 100}), tmp_path)
    assert max(record.learning_rate for record in run.steps) == pytest.approx(1e-3)
