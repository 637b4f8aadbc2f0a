"""A run that was stopped and taken up again is the run that was never stopped, bit by bit."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from finestep.recipe import Recipe
from finestep.train.checkpoint import find_fault, newest_checkpoint
from tests.train.runs import largest_difference, make_resident, run_pack, run_trial

RECIPE = Recipe(
    learning_rate=3e-3,
    effective_batch_size=8,
    num_epochs=2,
    lora={"rank": 4, "dropout": 0.1},
    evaluation={"num_evaluations": 3},
)
COLUMNS = ("step", "loss", "learning_rate", "grad_norm", "clipped", "update_norm", "num_tokens")


def _figures(steps):
    return [tuple(getattr(step, name) for name in COLUMNS) for step in steps]


def test_ten_stops_in_one_run_change_nothing(shipped_model, instruct_file, tmp_path):
    """The same run goes on from each of ten points, once in a process that knows nothing of the steps before."""
    resident = make_resident(shipped_model, instruct_file, RECIPE)
    whole = run_trial(resident, RECIPE, tmp_path / "whole")
    num_steps = len(whole.steps)
    assert num_steps >= 20
    folder, steps = tmp_path / "stopped", []
    for point in range(1, num_steps, max(1, num_steps // 10))[:10]:
        part = run_trial(resident, RECIPE, folder, stop_after=point - len(steps))
        assert part.outcome is None, "a stopped run has no outcome"
        assert part.started["from_step"] == len(steps)
        steps += part.steps
        assert len(steps) == point
        if point == 1:
            resident = make_resident(shipped_model, instruct_file, RECIPE)
    last = run_trial(resident, RECIPE, folder)
    assert _figures(steps + last.steps) == _figures(whole.steps)
    assert last.outcome.eval_loss == whole.outcome.eval_loss
    assert all(torch.equal(last.weights[name], whole.weights[name]) for name in whole.weights)


def test_full_fine_tuning_resumes_too(shipped_model, label_file, tmp_path):
    recipe = RECIPE.changed(method="full", learning_rate=1e-3, num_epochs=1)
    resident = make_resident(shipped_model, label_file, recipe)
    whole = run_trial(resident, recipe, tmp_path / "whole")
    run_trial(resident, recipe, tmp_path / "cut", stop_after=4)
    rest = run_trial(resident, recipe, tmp_path / "cut")
    assert all(torch.equal(rest.weights[name], whole.weights[name]) for name in whole.weights)


@pytest.fixture(scope="module")
def with_checkpoints(shipped_model, instruct_file, tmp_path_factory):
    folder = tmp_path_factory.mktemp("kept")
    resident = make_resident(shipped_model, instruct_file, RECIPE)
    run_trial(resident, RECIPE, folder, stop_after=8, every=4)
    return folder / "checkpoints", resident


@pytest.mark.parametrize("name", ["weights.safetensors", "optimizer.safetensors", "state.json", "manifest.json"])
@pytest.mark.parametrize("damage", ["delete", "empty", "half", "flip"])
def test_a_damaged_checkpoint_is_skipped_and_named(with_checkpoints, name, damage, tmp_path):
    source, _resident = with_checkpoints
    folder = tmp_path / "checkpoints"
    shutil.copytree(source, folder)
    assert sorted(path.name for path in folder.iterdir()) == ["step-00000004", "step-00000008"], (
        "the two newest are kept"
    )
    _damage(folder / "step-00000008" / name, damage)
    found, skipped = newest_checkpoint(folder)
    assert found.name == "step-00000004"
    assert skipped[0].startswith("step-00000008: ")
    culprit = (
        "state.json" if (name, damage) == ("manifest.json", "flip") else "manifest" if name == "manifest.json" else name
    )
    assert culprit in skipped[0]


def test_the_run_says_what_it_skipped_and_goes_on(with_checkpoints, tmp_path):
    source, resident = with_checkpoints
    shutil.copytree(source, tmp_path / "checkpoints")
    _damage(tmp_path / "checkpoints" / "step-00000008" / "weights.safetensors", "flip")
    run = run_trial(resident, RECIPE, tmp_path)
    assert run.started["from_step"] == 4
    assert "step-00000008: weights.safetensors is damaged" in run.notes[0]["text"]
    assert run.outcome.state == "completed"


def test_a_half_written_checkpoint_is_never_seen(with_checkpoints, tmp_path):
    source, _ = with_checkpoints
    shutil.copytree(source, tmp_path / "c")
    (tmp_path / "c" / "step-00000008").rename(tmp_path / "c" / ".partial-00000008")
    found, skipped = newest_checkpoint(tmp_path / "c")
    assert found.name == "step-00000004"
    assert skipped == []
    assert find_fault(found) is None


def _damage(path, kind):
    data = path.read_bytes()
    if kind == "delete":
        path.unlink()
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "half":
        path.write_bytes(data[: len(data) // 2])
    elif path.name == "manifest.json":
        manifest = json.loads(data)
        manifest["state.json"]["sha256"] = "0" * 64
        path.write_text(json.dumps(manifest))
    else:
        path.write_bytes(data[:-10] + bytes([data[-10] ^ 1]) + data[-9:])


@pytest.mark.parametrize("stop_after", [1, 6, 8])
def test_trials_that_share_a_pass_go_on_side_by_side_in_the_middle_of_a_step(
    stop_after, shipped_model, instruct_file, tmp_path
):
    recipes = {
        number: Recipe(
            learning_rate=1e-3, effective_batch_size=batch, micro_batch_size=2, num_epochs=0.5, lora={"rank": 4}
        )
        for number, batch in ((0, 2), (1, 8))
    }
    resident = make_resident(shipped_model, instruct_file, recipes[0])
    quiet = run_pack(resident, recipes, tmp_path / "quiet")

    stopped = run_pack(resident, recipes, tmp_path / "stopped", stop_after=stop_after)
    gone_on = run_pack(resident, recipes, tmp_path / "stopped")

    for number, whole in quiet.items():
        before = stopped[number].losses
        assert len(before) < len(whole.losses)
        assert before + gone_on[number].losses == whole.losses
        assert largest_difference(gone_on[number].weights, whole.weights) == 0
        assert gone_on[number].outcome.eval_loss == whole.outcome.eval_loss
