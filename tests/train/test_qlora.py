"""QLoRA on a CPU: a base in 4 bits trains, trials that share a pass train as alone, and a reload gives the reported loss."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from benchmarks.step_operations import Operations

from finestep.recipe import Recipe
from finestep.train.batch import collate_lanes
from finestep.train.lane_plan import plan_lanes
from finestep.train.whole_model import trained
from tests.architectures.test_architectures import plain_loss
from tests.train.runs import make_resident, run_pack

pytest.importorskip("bitsandbytes")


def recipe_of(rate: float) -> Recipe:
    return Recipe.model_validate(
        {
            "method": "qlora",
            "learning_rate": rate,
            "effective_batch_size": 4,
            "micro_batch_size": 4,
            "num_epochs": 0.5,
            "lora": {"rank": 4, "alpha": 8},
            "evaluation": {"num_evaluations": 1},
        }
    )


@pytest.fixture(scope="module")
def resident(shipped_model, instruct_file):
    return make_resident(shipped_model, instruct_file, recipe_of(1e-3))


@pytest.fixture(scope="module")
def together(resident, tmp_path_factory):
    return run_pack(resident, {0: recipe_of(1e-3), 1: recipe_of(4e-3)}, tmp_path_factory.mktemp("together"), lanes=2)


def test_the_base_is_in_four_bits_and_learns(resident, together):
    assert {type(module).__name__ for module in resident.base.modules()} >= {"Linear4bit"}
    assert any("slow" in note for note in resident.data.card.notes)
    outcome = together[1].outcome
    assert outcome.eval_loss < 0.9 * outcome.base_eval_loss


def test_a_pack_trains_as_alone(resident, together, tmp_path):
    assert plan_lanes(resident, recipe_of(1e-3), asked=2, most_lanes=2, row_limit=None).num_lanes == 2
    alone = run_pack(resident, {0: recipe_of(1e-3)}, tmp_path, lanes=1)
    assert together[0].losses == pytest.approx(alone[0].losses, rel=1e-5)


def test_gradients_pass_the_packed_weights(resident):
    """bitsandbytes has a shortcut on some CPUs that drops the gradient without an error."""
    model = resident.begin(recipe_of(1e-3)).eval()
    ids = torch.arange(5, 21)[None]
    model(input_ids=ids, labels=ids).loss.backward()
    reached = [
        float(value.grad.abs().max())
        for name, value in trained(model).items()
        if "layers.0" in name and "lora_B" in name
    ]
    assert min(reached) > 0


def test_a_reload_gives_the_reported_loss(resident, together, shipped_model, tmp_path):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    resident.save_tuned(recipe_of(4e-3), together[1].weights, str(tmp_path / "saved"))
    four_bits = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)
    base = AutoModelForCausalLM.from_pretrained(shipped_model, dtype=torch.float32, quantization_config=four_bits)
    loaded = PeftModel.from_pretrained(base, tmp_path / "saved")
    assert plain_loss(loaded, resident.data.evaluation) == pytest.approx(together[1].outcome.eval_loss, rel=1e-3)


def test_weights_are_unpacked_once_a_pass_whatever_the_number_of_trials(resident):
    """Once forward and once backward for every layer: that is what sharing a pass saves most of on a base in 4 bits."""
    counts = {}
    for lanes in (1, 3):
        rows = resident.open_rows(recipe_of(1e-3))
        for number in range(lanes):
            rows.join(number, resident.initial_values(recipe_of(1e-3)), scale=2.0)
        batch, _ = collate_lanes(
            resident.data.train, [np.array([0, 1])] * lanes, pad_id=0, device=torch.device("cpu"), units=[9] * lanes
        )
        with Operations() as seen:
            losses = resident.token_loss.lane_sums(resident.base, batch, [0] * lanes)
            losses.sum().backward()
        counts[lanes] = seen.counts["dequantize_4bit"]
        for number in range(lanes):
            rows.leave(number)
    assert counts[3] == counts[1] > 0


def test_the_prediction_knows_what_weights_in_four_bits_take(resident):
    """All tensors of the loaded model, scales and scales of scales among them, against the product's prediction from the config."""
    from finestep.probe import MemoryCase
    from finestep.probes.shadow import Shadow

    tensors = [*resident.base.parameters(), *resident.base.buffers()]
    for module in resident.base.modules():
        if (state := getattr(getattr(module, "weight", None), "quant_state", None)) is not None:
            tensors += [state.absmax, state.code, state.offset, state.state2.absmax, state.state2.code]
    loaded = sum({t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in tensors}.values())
    config = resident.base.config
    shadow = Shadow(config, MemoryCase(method="qlora", rank=4), num_layers=config.num_hidden_layers)
    adapters = 4 * 4 * shadow.num_parameters()[1]
    assert shadow.static_bytes() - adapters == pytest.approx(loaded, rel=0.05)
