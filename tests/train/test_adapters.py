"""What is left behind loads elsewhere and gives the same answers."""

from __future__ import annotations

import pytest
import torch

from finestep.recipe import Recipe
from finestep.train.batch import collate
from finestep.train.whole_model import trained
from tests.train.runs import largest_difference, make_resident, run_trial


def _logits(model, resident):
    batch = collate(resident.data.evaluation, [0, 1, 2], pad_id=resident.data.pad_id, device=torch.device("cpu"))
    with torch.no_grad():
        return model.eval()(input_ids=batch.ids_NS, attention_mask=batch.attention_NS).logits


def test_peft_loads_the_adapter(shipped_model, instruct_file, tmp_path):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    recipe = Recipe(learning_rate=5e-3, num_epochs=1, lora={"rank": 4, "alpha": 8})
    resident = make_resident(shipped_model, instruct_file, recipe)
    run = run_trial(resident, recipe, tmp_path / "run")
    resident.save_tuned(recipe, run.weights, str(tmp_path / "adapter"))
    base = AutoModelForCausalLM.from_pretrained(shipped_model, dtype=torch.float32)
    before = _logits(base, resident)
    loaded = PeftModel.from_pretrained(base, tmp_path / "adapter")
    assert torch.allclose(_logits(loaded, resident), _logits(resident.tuned(recipe, run.weights), resident), atol=1e-5)
    assert not torch.allclose(before, _logits(loaded, resident), atol=1e-2), "the adapter does something"
    assert AutoTokenizer.from_pretrained(tmp_path / "adapter").chat_template


def test_peft_loads_a_classifier_with_its_head(encoder_model, label_file, tmp_path):
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification

    recipe = Recipe(learning_rate=2e-3, num_epochs=0.5)
    resident = make_resident(encoder_model, label_file, recipe)
    run = run_trial(resident, recipe, tmp_path / "run")
    resident.save_tuned(recipe, run.weights, str(tmp_path / "adapter"))
    base = AutoModelForSequenceClassification.from_pretrained(encoder_model, num_labels=3)
    loaded = PeftModel.from_pretrained(base, tmp_path / "adapter")
    assert torch.allclose(_logits(loaded, resident), _logits(resident.tuned(recipe, run.weights), resident), atol=1e-5)


def test_a_full_model_loads_with_its_label_names(shipped_model, label_file, tmp_path):
    from transformers import AutoModelForSequenceClassification

    recipe = Recipe(method="full", learning_rate=1e-3, num_epochs=0.5)
    resident = make_resident(shipped_model, label_file, recipe)
    run = run_trial(resident, recipe, tmp_path / "run")
    resident.save_tuned(recipe, run.weights, str(tmp_path / "model"))
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model")
    assert loaded.config.id2label == {0: "angry", 1: "happy", 2: "sad"}
    assert torch.allclose(_logits(loaded, resident), _logits(resident.tuned(recipe, run.weights), resident), atol=1e-5)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_every_trial_starts_from_the_same_weights(method, shipped_model, label_file, tmp_path):
    recipe = Recipe(method=method, learning_rate=1e-3, num_epochs=0.5)
    resident = make_resident(shipped_model, label_file, recipe)
    first = run_trial(resident, recipe, tmp_path / "a")
    run_trial(resident, recipe.changed(learning_rate=1e-2), tmp_path / "b")
    again = run_trial(resident, recipe, tmp_path / "c")
    assert first.losses == again.losses
    assert largest_difference(first.weights, again.weights) == 0.0


def test_another_seed_is_another_start_and_back_again(shipped_model, label_file, tmp_path):
    resident = make_resident(shipped_model, label_file, Recipe())
    start = {
        seed: {name: value.clone() for name, value in trained(resident.begin(Recipe(seed=seed))).items()}
        for seed in (0, 1)
    }
    assert largest_difference(start[0], start[1]) > 1e-3
    back = trained(resident.begin(Recipe(seed=0)))
    assert largest_difference(start[0], {name: value.detach() for name, value in back.items()}) == 0.0
