"""When memory is short the micro-batch halves, the same step is repeated, and the trajectory stays the same."""

from __future__ import annotations

import pytest
import torch

from finestep.recipe import Recipe
from finestep.study import ModelSpec
from finestep.train.memory import is_out_of_memory
from finestep.train.model import choose_placement
from finestep.train.whole_model import WholeModel
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


@pytest.fixture(scope="module")
def plain(shipped_model, instruct_file, tmp_path_factory):
    """The run with memory enough."""
    return run_trial(make_resident(shipped_model, instruct_file, RECIPE), RECIPE, tmp_path_factory.mktemp("plain"))


@pytest.mark.parametrize(("fits", "from_call"), [(4, 0), (1, 0), (5, 6)])
def test_the_trajectory_is_identical(fits, from_call, plain, shipped_model, instruct_file, tmp_path):
    short = run_trial(
        make_resident(shipped_model, instruct_file, RECIPE),
        RECIPE,
        tmp_path / "short",
        prepare=_memory_for(fits, from_call=from_call),
    )
    assert short.outcome.state == "completed"
    assert short.outcome.cost.micro_batch_size == {4: 4, 1: 1, 5: 4}[fits], "the limit found is remembered"
    assert [step.step for step in short.steps] == [step.step for step in plain.steps], "no step is lost or doubled"
    assert short.losses == pytest.approx(plain.losses, abs=1e-5)
    assert largest_difference(short.weights, plain.weights) < 1e-5
    assert "out of memory" in short.notes[0]["text"]


def test_a_known_limit_is_used_from_the_start(shipped_model, instruct_file, tmp_path):
    resident = make_resident(shipped_model, instruct_file, RECIPE)
    run = run_trial(resident, RECIPE, tmp_path, limit=4, prepare=_memory_for(4))
    assert run.notes == []
    assert run.outcome.cost.micro_batch_size == 4


def test_when_one_row_does_not_fit_the_trial_ends_with_that_reason(shipped_model, instruct_file, tmp_path):
    resident = make_resident(shipped_model, instruct_file, RECIPE)
    run = run_trial(resident, RECIPE, tmp_path, prepare=_memory_for(0))
    assert run.outcome.state == "out_of_memory"
    assert run.outcome.eval_loss is None


def test_when_not_one_row_can_be_evaluated_the_trial_ends_with_that_reason(shipped_model, instruct_file, tmp_path):
    def nothing_fits(pack):
        def check(module, args):
            if not torch.is_grad_enabled():
                raise torch.OutOfMemoryError("planted")

        pack.resident.base.register_forward_pre_hook(check)

    run = run_trial(make_resident(shipped_model, instruct_file, RECIPE), RECIPE, tmp_path, prepare=nothing_fits)
    assert run.outcome.state == "out_of_memory"


def test_no_room_for_adams_moments_is_answered_like_no_room_for_rows(
    shipped_model, instruct_file, tmp_path, monkeypatch
):
    """A whole model makes them at its first step, when the gradients are there already."""
    recipe = RECIPE.changed(method="full", learning_rate=2e-5)
    resident = make_resident(shipped_model, instruct_file, recipe)
    plain = run_trial(resident, recipe, tmp_path / "plain")
    slices, refused = WholeModel.slices, []

    def short(rows, *args):
        if len(refused) < 2:
            refused.append(1)
            raise torch.OutOfMemoryError("planted")
        return slices(rows, *args)

    monkeypatch.setattr(WholeModel, "slices", short)
    found = run_trial(resident, recipe, tmp_path / "short")
    assert found.outcome.state == "completed"
    assert len(found.notes) == 2
    assert found.losses == pytest.approx(plain.losses, abs=1e-5)


@pytest.mark.parametrize(
    ("text", "is_memory"),
    [
        ("CUDA out of memory. Tried to allocate 2 GiB", True),
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", True),
        ("CUDA error: device-side assert triggered", False),
    ],
)
def test_what_counts_as_out_of_memory(text, is_memory):
    assert is_out_of_memory(RuntimeError(text)) is is_memory


@pytest.mark.parametrize("native", [True, False])
def test_a_gpu_that_only_emulates_bfloat16_computes_in_float32(native, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: native or including_emulation)
    placement = choose_placement(ModelSpec(path="m", device="cuda"), RECIPE)
    assert (placement.weights_dtype, placement.autocast) == (
        (torch.bfloat16, True) if native else (torch.float32, False)
    )
