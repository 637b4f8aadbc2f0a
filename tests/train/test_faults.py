"""What raises in one trial ends that trial alone, with its cause; the others train as if it had never been there."""

from __future__ import annotations

import pytest
import torch

from finestep.errors import BadInput
from finestep.protocol import TrialRequest
from finestep.recipe import Recipe
from finestep.train.checkpoint import save_checkpoint
from finestep.train.faults import is_device_lost
from finestep.train.loop import Pack
from tests.train.runs import largest_difference, make_resident, run_pack, run_trial


def _recipe(rate=1e-3, **changes):
    fields = {"learning_rate": rate, "effective_batch_size": 8, "num_epochs": 0.5, "lora": {"rank": 2}}
    fields["evaluation"] = {"num_evaluations": 1}
    return Recipe.model_validate({**fields, **changes})


RECIPES = {0: _recipe(1e-3), 1: _recipe(2e-3), 2: _recipe(4e-3)}


@pytest.fixture(scope="module")
def resident(shipped_model, instruct_file):
    return make_resident(shipped_model, instruct_file, _recipe())


def breaks(*culprits: int, step: int = 3, error: type[Exception] = ValueError, alone: bool = True):
    """The model raises from `step` on when it computes for a culprit; without `alone`, only in company."""

    def prepare(pack: Pack) -> None:
        def fail(module, arguments, keywords):
            rows, only = pack._trial_rows, pack._trial_rows._seats.only
            served = rows.keys if only is None else [rows.keys[only]]
            reached = all(lane.progress.step + 1 >= step for lane in pack.lanes)
            if torch.is_grad_enabled() and reached and set(culprits) & set(served) and (alone or len(served) > 1):
                raise error("the shapes differ\nby a lot")

        pack.hook = pack.resident.base.register_forward_pre_hook(fail, with_kwargs=True)

    return prepare


@pytest.mark.parametrize("culprits", [(1,), (0,), (0, 2)])
def test_a_trial_that_raises_fails_alone(resident, tmp_path, culprits, capfd):
    quiet = run_pack(resident, RECIPES, tmp_path / "quiet")
    found = run_pack(resident, RECIPES, tmp_path / "broken", prepare=breaks(*culprits))
    for number, one in found.items():
        if number in culprits:
            assert one.outcome.state == "failed"
            assert one.outcome.reason == "ValueError: the shapes differ"
            assert [record.step for record in one.steps] == [1, 2]
        else:
            assert one.outcome.state == "completed"
            assert one.losses == pytest.approx(quiet[number].losses, rel=1e-4)
            assert largest_difference(one.weights, quiet[number].weights) < 1e-4
    assert "by a lot" in capfd.readouterr().err, "the log has the whole traceback"


def test_trials_that_fail_only_together_go_on_one_by_one(resident, tmp_path):
    quiet = run_pack(resident, RECIPES, tmp_path / "quiet")
    found = run_pack(resident, RECIPES, tmp_path / "broken", prepare=breaks(1, alone=False))
    for number, one in found.items():
        assert one.outcome.state == "completed"
        assert one.losses == pytest.approx(quiet[number].losses, rel=1e-4)
    notes = [note["text"] for one in found.values() for note in one.notes]
    assert any("one at a time" in text and "the shapes differ" in text for text in notes)


def test_a_trial_alone_and_method_full_fail_with_their_cause(resident, shipped_model, instruct_file, tmp_path):
    alone = run_trial(resident, RECIPES[0], tmp_path / "lora", prepare=breaks(0))
    assert (alone.outcome.state, len(alone.steps)) == ("failed", 2)
    recipe = _recipe(1e-4, method="full")
    whole = make_resident(shipped_model, instruct_file, recipe)

    def prepare(pack):
        def fail(module, arguments, keywords):
            if torch.is_grad_enabled():
                raise IndexError("index out of range in self")

        pack.hook = whole.base.register_forward_pre_hook(fail, with_kwargs=True)

    full = run_trial(whole, recipe, tmp_path / "full", prepare=prepare)
    assert full.outcome.reason == "IndexError: index out of range in self"
    assert run_trial(whole, recipe, tmp_path / "again").outcome.state == "completed"


def test_a_trial_that_cannot_begin_fails_alone(resident, tmp_path):
    """Its checkpoint is whole, and holds something else."""
    save_checkpoint(tmp_path / "1" / "checkpoints", step=1, state={"step": 1}, tensors={})
    requests = [TrialRequest(number=n, recipe=RECIPES[n], folder=str(tmp_path / str(n))) for n in (0, 1, 2)]
    pack = Pack(
        resident,
        emit=lambda *_, **__: None,
        should_stop=lambda: False,
        take=lambda: requests.pop(0) if requests else None,
        num_lanes=3,
    )
    states = {lane.number: lane.outcome.state for lane in pack.run()}
    assert states == {0: "completed", 1: "failed", 2: "completed"}


def test_what_a_user_can_act_on_ends_the_session_and_keeps_every_trial(resident, tmp_path):
    requests = [TrialRequest(number=n, recipe=RECIPES[n], folder=str(tmp_path / str(n))) for n in (0, 1, 2)]
    pack = Pack(
        resident,
        emit=lambda *_, **__: None,
        should_stop=lambda: False,
        take=lambda: requests.pop(0) if requests else None,
        num_lanes=2,
    )
    breaks(1, error=BadInput)(pack)
    ended = []
    with pytest.raises(BadInput, match="the shapes differ"):
        ended.extend((lane.number, lane.outcome) for lane in pack.run())
    pack.hook.remove()
    for number in (0, 1):
        assert list((tmp_path / str(number) / "checkpoints").glob("step-*")), "it goes on from here"


def test_a_lost_device_is_told_from_a_fault_of_the_trial():
    assert is_device_lost(RuntimeError("CUDA error: an illegal memory access was encountered"))
    assert not is_device_lost(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_device_lost(ValueError("CUDA error"))
