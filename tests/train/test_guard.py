"""The guard in real runs: a planted accident is undone, bad data is left out, a hopeless rate is lowered, a study ends at once."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from finestep.recipe import Recipe
from finestep.train.order import Order
from finestep.train.token_rows import TokenRows
from tests.train.runs import Recorded, make_resident, run_trial

RECIPE = Recipe(
    learning_rate=5e-3, effective_batch_size=4, num_epochs=1, evaluation={"num_evaluations": 3}, micro_batch_size=4
)
ACCIDENT_STEP = 60


@pytest.fixture(scope="module")
def rows(whole_model, tmp_path_factory) -> Path:
    """440 rows of the shipped instructions: 83 steps of four."""
    lines = (whole_model.parent / "instruct.jsonl").read_text(encoding="utf-8").splitlines()[:440]
    path = tmp_path_factory.mktemp("guard") / "rows.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def resident(whole_model, rows):
    return make_resident(whole_model, rows, RECIPE, eval_fraction=64 / 440)


@pytest.fixture(scope="module")
def clean(resident, tmp_path_factory) -> Recorded:
    return run_trial(resident, RECIPE, tmp_path_factory.mktemp("clean"), on_trouble="rollback")


def kick(pack) -> None:
    """Once, after step 60, noise falls on the weights, as a bit flip or a failing device would do."""
    take_step, kicked = pack._micro_step, []

    def stepped() -> None:
        take_step()
        lane = pack.lanes[0]
        if lane.progress.step == ACCIDENT_STEP and not kicked:
            kicked.append(lane.number)
            draw = torch.Generator().manual_seed(0)
            noisy = {
                name: value + 0.2 * torch.randn(value.shape, generator=draw) for name, value in lane.values().items()
            }
            pack.members.rows.load(lane.number, noisy)

    pack._micro_step = stepped


def test_a_planted_spike_is_undone(resident, clean, tmp_path):
    guarded = run_trial(resident, RECIPE, tmp_path / "guarded", on_trouble="rollback", prepare=kick)
    alone = run_trial(resident, RECIPE, tmp_path / "alone", on_trouble="ignore", prepare=kick)
    assert guarded.outcome.eval_loss <= 1.01 * clean.outcome.eval_loss
    assert alone.outcome.eval_loss > 1.2 * clean.outcome.eval_loss
    (done,) = guarded.outcome.interventions
    assert (done.action, done.cause, done.step) == ("retry", "accident", ACCIDENT_STEP + 1)
    assert done.back_to <= ACCIDENT_STEP
    assert any("back to step" in note["text"] for note in guarded.notes)


def test_a_clean_run_is_left_alone(clean):
    assert clean.outcome.interventions == ()
    assert clean.outcome.findings == ()


def test_batches_of_random_answers_are_left_out(whole_model, rows, clean, tmp_path):
    resident = make_resident(whole_model, rows, RECIPE, eval_fraction=64 / 440)
    train = resident.data.train
    ids, rng = train.ids.copy(), np.random.default_rng(0)
    order = Order(train.lengths, RECIPE)
    for step in (60, 61, 62):
        for row in order.rows_of_step(step):
            part = slice(train.offsets[row], train.offsets[row + 1])
            flags = train.trained[part]
            ids[part][flags] = rng.integers(10, 2500, int(flags.sum()))
    resident.data = replace(resident.data, train=TokenRows(ids, train.trained, train.offsets))
    run = run_trial(resident, RECIPE, tmp_path, on_trouble="rollback")
    (done,) = run.outcome.interventions
    assert (done.action, done.cause, done.step) == ("skip_batch", "batch", 60)
    last = {record.step: record.learning_rate for record in run.steps}
    assert [step for step, rate in last.items() if rate == 0] == [60, 61, 62]
    assert run.outcome.eval_loss < 1.05 * clean.outcome.eval_loss


def test_a_rate_that_is_far_too_high_is_lowered(resident, tmp_path):
    recipe = RECIPE.changed(learning_rate=0.5, num_epochs=0.6, optimizer={"max_grad_norm": None})
    run = run_trial(resident, recipe, tmp_path, on_trouble="rollback")
    actions = [each.action for each in run.outcome.interventions]
    assert "lower_rate" in actions
    assert run.outcome.state in ("completed", "stopped")
    assert run.outcome.eval_loss is not None
    assert max(record.learning_rate for record in run.steps[-3:]) < 0.5


def test_a_lost_trial_of_a_study_ends_at_once(resident, tmp_path):
    recipe = RECIPE.changed(learning_rate=10.0, optimizer={"max_grad_norm": None}, schedule={"warmup_steps": 0})
    run = run_trial(resident, recipe, tmp_path, on_trouble="stop")
    assert run.outcome.state == "diverged"
    assert run.outcome.cost.num_steps < 83
    assert run.outcome.findings[-1].code in ("diverged", "non_finite_loss", "dead_gradients")
    json.loads(run.outcome.model_dump_json())


def test_probes_warn_before_a_rate_that_is_too_high(resident, tmp_path):
    def warned(rate: float) -> bool:
        recipe = RECIPE.changed(
            learning_rate=rate, num_epochs=0.25, evaluation={"num_evaluations": 1, "probe_every_steps": 2}
        )
        run = run_trial(resident, recipe, tmp_path / str(rate), on_trouble="ignore")
        return any("early_warning" in note["text"] for note in run.notes)

    assert not warned(1e-4)
    assert warned(0.1)
