"""When memory is short the micro-batch halves, the same step is repeated, and the trajectory stays the same."""

from __future__ import annotations

import pytest
import torch

from finestep.recipe import Recipe
from tests.train.runs import largest_difference, make_resident, run_trial

RECIPE = Recipe(
    learning_rate=2e-4,
    effective_batch_size=16,
    num_epochs=1,
    evaluation={"num_evaluations": 2},
    optimizer={"epsilon": 1e-6},
)


def _memory_for(num_rows, *, from_call=0):
    """A model that runs out of memory above `num_rows` rows, from its nth training pass on."""
    calls = []

    def prepare(pack):
        def check(module, args, kwargs):
            rows = kwargs["input_ids"].shape[0]
            calls.append(rows)
            if torch.is_grad_enabled() and rows > num_rows and len(calls) > from_call:
                raise torch.OutOfMemoryError("planted")

        pack.resident.base.register_forward_pre_hook(check, with_kwargs=True)

    return prepare


@pytest.mark.parametrize(("fits", "from_call"), [(4, 0), (1, 0), (5, 6)])
def test_the_trajectory_is_identical(fits, from_call, shipped_model, instruct_file, tmp_path):
    resident = make_resident(shipped_model, instruct_file, RECIPE)
    plain = run_trial(resident, RECIPE, tmp_path / "plain")
    short = run_trial(
        make_resident(shipped_model, instruct_file, RECIPE),
        RECIPE,
        tmp_path / "short",
        prepare=_memory_for(fits, from_call=from_call),
    )
    assert short.outcome.state == "completed"
    assert short.outcome.micro_batch_size == {4: 4, 1: 1, 5: 4}[fits], "the limit found is remembered"
    assert [step.step for step in short.steps] == [step.step for step in plain.steps], "no step is lost or doubled"
    assert short.losses == pytest.approx(plain.losses, abs=1e-5)
    assert largest_difference(short.weights, plain.weights) < 1e-5
    assert "out of memory" in short.notes[0]["text"]


def test_a_known_limit_is_used_from_the_start(shipped_model, instruct_file, tmp_path):
    resident = make_resident(shipped_model, instruct_file, RECIPE)
    run = run_trial(resident, RECIPE, tmp_path, limit=4, prepare=_memory_for(4))
    assert run.notes == []
    assert run.outcome.micro_batch_size == 4


def test_when_one_row_does_not_fit_the_trial_ends_with_that_reason(shipped_model, instruct_file, tmp_path):
    resident = make_resident(shipped_model, instruct_file, RECIPE)
    run = run_trial(resident, RECIPE, tmp_path, prepare=_memory_for(0))
    assert run.outcome.state == "out_of_memory"
    assert run.outcome.eval_loss is None
