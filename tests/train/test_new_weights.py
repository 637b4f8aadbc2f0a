"""A classifier is saved with every weight that its checkpoint did not have, and loads as a user loads it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from finestep.recipe import Recipe
from tests.architectures.test_architectures import plain_loss
from tests.architectures.zoo import save_model
from tests.train.runs import make_resident, run_trial

RECIPE = Recipe(learning_rate=3e-3, effective_batch_size=8, num_epochs=1, lora={"rank": 4, "alpha": 8})


@pytest.fixture(scope="module")
def without_pooler(encoder_model, tmp_path_factory) -> Path:
    """MiniLM as many encoders are published: without the pooler that its classification class puts before the head."""
    from safetensors.torch import load_file, save_file

    folder = Path(shutil.copytree(encoder_model, tmp_path_factory.mktemp("encoder") / "base"))
    weights = load_file(folder / "model.safetensors")
    kept = {name: value for name, value in weights.items() if "pooler" not in name}
    assert len(kept) < len(weights)
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def tuned(without_pooler, label_file, tmp_path_factory):
    """(folder as saved, validation rows, outcome)."""
    folder = tmp_path_factory.mktemp("tuned")
    resident = make_resident(without_pooler, label_file, RECIPE)
    run = run_trial(resident, RECIPE, folder / "trial")
    resident.save_tuned(RECIPE, run.weights, str(folder / "model"))
    return folder / "model", resident.data, run.outcome


def test_the_pooler_is_trained_and_saved(tuned):
    folder, _, outcome = tuned
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    assert any("pooler" in name for name in config["modules_to_save"])
    assert not any("pooler" in name for name in config["target_modules"])
    assert outcome.eval_loss < outcome.base_eval_loss


@pytest.mark.parametrize("package", ["peft", "transformers"])
def test_the_folder_loads_with_its_loss_and_names(tuned, package):
    import peft
    import transformers

    folder, data, outcome = tuned
    kind = {
        "peft": peft.AutoPeftModelForSequenceClassification,
        "transformers": transformers.AutoModelForSequenceClassification,
    }[package]
    loaded = kind.from_pretrained(folder)
    assert plain_loss(loaded, data.evaluation) == pytest.approx(outcome.eval_loss, rel=1e-4)
    assert loaded.config.id2label == {0: "angry", 1: "happy", 2: "sad"}


def test_the_pipeline_names_the_labels_from_any_folder(tuned, tmp_path, monkeypatch):
    from transformers import pipeline

    monkeypatch.chdir(tmp_path)
    classify = pipeline("text-classification", model=str(tuned[0]), top_k=None)
    (answers,) = classify(["what a lovely day"])
    assert {answer["label"] for answer in answers} == {"angry", "happy", "sad"}


def test_each_trial_starts_from_the_checkpoints_own_head(shipped_model, label_file, tmp_path):
    """PEFT's `unload` leaves the trained head in the base; a second trial must not begin with it."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    base = AutoModelForSequenceClassification.from_pretrained(shipped_model, num_labels=3)
    base.save_pretrained(tmp_path / "base")
    AutoTokenizer.from_pretrained(shipped_model).save_pretrained(tmp_path / "base")
    resident = make_resident(tmp_path / "base", label_file, RECIPE)
    assert not resident.new_names
    run_trial(resident, RECIPE, tmp_path / "one")
    assert torch.equal(resident.base.get_submodule("score").weight, base.score.weight)


def test_a_head_with_other_labels_starts_anew_and_this_is_said(shipped_model, label_file, tmp_path):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    AutoModelForSequenceClassification.from_pretrained(shipped_model, num_labels=5).save_pretrained(tmp_path / "base")
    AutoTokenizer.from_pretrained(shipped_model).save_pretrained(tmp_path / "base")
    resident = make_resident(tmp_path / "base", label_file, RECIPE)
    assert resident.new_names == ["score.weight"]
    assert any("a new head starts" in note for note in resident.data.card.notes)
    run = run_trial(resident, RECIPE, tmp_path / "trial")
    resident.save_tuned(RECIPE, run.weights, str(tmp_path / "model"))
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model")
    assert plain_loss(loaded, resident.data.evaluation) == pytest.approx(run.outcome.eval_loss, rel=1e-4)


def test_learned_positions_leave_room_for_the_padding_id(tmp_path, shipped_model):
    from transformers import AutoTokenizer

    from finestep.study import ModelSpec
    from finestep.train.model import context_length

    tokenizer = AutoTokenizer.from_pretrained(shipped_model)
    lengths = {}
    for kind in ("roberta", "mpnet", "data2vec-text", "bert", "llama"):
        folder = save_model(kind, tmp_path / kind, tokenizer=tokenizer)
        lengths[kind] = context_length(ModelSpec(path=str(folder)))
    assert lengths == {"roberta": 127, "mpnet": 126, "data2vec-text": 127, "bert": 128, "llama": 128}
