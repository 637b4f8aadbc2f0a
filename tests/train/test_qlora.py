"""QLoRA on a CPU: a base in 4 bits trains, trials that share a pass train as alone, and a reload gives the reported loss."""

from __future__ import annotations

import pytest
import torch

from finestep.recipe import Recipe
from finestep.train.packing import plan_lanes
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
