"""What only a GPU can show: its own precision, its memory at an end, and the choice of a pack by its clock."""

from __future__ import annotations

import contextlib
import gc

import pytest
import torch

from finestep.probes.limit import largest_that_fits
from finestep.recipe import Recipe
from finestep.study import DataSpec, ModelSpec
from finestep.train import lane_plan
from finestep.train.resident import Resident
from tests.train.runs import ON_CUDA, largest_difference, make_resident, run_pack, run_trial

pytestmark = list(ON_CUDA)
RECIPE = Recipe.model_validate(
    {
        "learning_rate": 1e-3,
        "effective_batch_size": 8,
        "num_epochs": 2,
        "evaluation": {"num_evaluations": 2},
        "optimizer": {"epsilon": 1e-6},
        "lora": {"rank": 8, "alpha": 16},
    }
)
WIDE = RECIPE.changed(effective_batch_size=256, micro_batch_size=256, num_epochs=12)
"""Steps of all rows, so that activations are most of the memory."""


@pytest.fixture(scope="module")
def resident(shipped_model, instruct_file):
    """In the precision that the engine chooses."""
    return Resident(
        ModelSpec(path=str(shipped_model), device="cuda"), DataSpec(path=str(instruct_file), max_length=96), RECIPE
    )


@contextlib.contextmanager
def _further_memory(num_bytes):
    """Inside, this process gets so much more of the device than it holds."""
    total = torch.cuda.get_device_properties(0).total_memory
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + num_bytes) / total)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def _peak_of(run):
    """(what `run` gives, bytes that it took for a while)."""
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    return run(), torch.cuda.max_memory_allocated() - before


def test_it_computes_in_bfloat16_and_trains_in_float32(resident):
    assert resident.placement.autocast
    assert resident.base.dtype == torch.bfloat16
    assert {value.dtype for value in resident.initial_values(RECIPE).values()} == {torch.float32}


def test_a_pack_in_bfloat16_is_as_good_as_one_by_one(resident, tmp_path):
    recipes = {number: RECIPE.changed(learning_rate=rate) for number, rate in enumerate((3e-4, 1e-3, 2e-3, 4e-3))}
    packed = run_pack(resident, recipes, tmp_path / "packed")
    for number, recipe in recipes.items():
        alone = run_trial(resident, recipe, tmp_path / str(number))
        again = run_trial(resident, recipe, tmp_path / f"again-{number}")
        found = [run.outcome.eval_loss for run in (packed[number], alone, again)]
        print(f"rate {recipe.learning_rate:g}: packed, alone, again", found)
        assert found[2] == found[1], "the same run gives the same loss"
        assert found[0] == pytest.approx(found[1], rel=5e-3)
        assert packed[number].losses[0] == pytest.approx(alone.losses[0], rel=1e-3)


def test_a_whole_model_trains_in_mixed_precision(shipped_model, instruct_file, tmp_path):
    recipe = RECIPE.changed(method="full", learning_rate=1e-4)
    resident = Resident(
        ModelSpec(path=str(shipped_model), device="cuda"), DataSpec(path=str(instruct_file), max_length=96), recipe
    )
    assert resident.base.dtype == torch.float32
    first, second = (run_trial(resident, recipe, tmp_path / name) for name in ("first", "second"))
    assert first.outcome.eval_loss < first.outcome.base_eval_loss
    assert second.outcome.eval_loss == pytest.approx(first.outcome.eval_loss, rel=1e-3)


def test_the_clock_lets_small_trials_share_a_pass(resident):
    plan = lane_plan.plan_lanes(resident, RECIPE, asked=None, most_lanes=8, row_limit=None)
    print(plan.why)
    assert plan.num_lanes > 1, plan.why


def test_when_memory_ends_the_micro_batch_shrinks_and_the_trajectory_stays(shipped_model, instruct_file, tmp_path):
    """Not planted: the device refuses."""
    resident = make_resident(shipped_model, instruct_file, WIDE, device="cuda")
    run_trial(resident, RECIPE, tmp_path / "warm")
    plain, peak = _peak_of(lambda: run_trial(resident, WIDE, tmp_path / "plain"))
    assert plain.notes == []
    with _further_memory(0.3 * peak):
        short = run_trial(resident, WIDE, tmp_path / "short")
    print([note["text"] for note in short.notes])
    assert short.outcome.state == "completed"
    assert short.outcome.cost.micro_batch_size < plain.outcome.cost.micro_batch_size
    assert [step.step for step in short.steps] == [step.step for step in plain.steps]
    assert short.losses == pytest.approx(plain.losses, abs=1e-5)
    assert largest_difference(short.weights, plain.weights) < 1e-4


def test_when_memory_ends_fewer_trials_share_a_pass(shipped_model, instruct_file, tmp_path):
    recipes = {number: WIDE.changed(learning_rate=1e-3 * (number + 1), micro_batch_size=64) for number in range(4)}
    resident = make_resident(shipped_model, instruct_file, WIDE, device="cuda")
    run_trial(resident, RECIPE, tmp_path / "warm")
    plain, peak = _peak_of(lambda: run_pack(resident, recipes, tmp_path / "plain"))
    with _further_memory(0.6 * peak):
        short = run_pack(resident, recipes, tmp_path / "short")
    texts = [note["text"] for one in short.values() for note in one.notes]
    print(texts)
    assert any("trials share a pass" in text for text in texts)
    for number in recipes:
        assert short[number].outcome.state == "completed"
        assert short[number].losses == pytest.approx(plain[number].losses, abs=2e-5)


def test_the_largest_micro_batch_is_tried_where_it_cannot_hurt(resident):
    """Under a limit that only some of the rows fit into."""
    tried = []
    with _further_memory(96 * 2**20):
        rows, source = largest_that_fits(resident, RECIPE, predicted=64, note=tried.append)
    print(f"{rows} rows fit into further 96 MiB: {tried}")
    assert source == "tried"
    assert 1 <= rows < len(resident.data.train)
