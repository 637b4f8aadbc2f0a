"""Checkpoints that cannot be trained are refused in one sentence with the remedy, by `recommend` and by training alike."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from finestep.errors import BadInput
from finestep.recipe import Recipe
from finestep.survey.model import model_facts
from tests.train.runs import make_resident


@pytest.fixture
def folder(shipped_model, tmp_path) -> Path:
    return Path(shutil.copytree(shipped_model, tmp_path / "model"))


def change_config(folder: Path, **fields) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(config | fields), encoding="utf-8")


def both_say(folder: Path, data: Path) -> set[str]:
    """The sentences of `recommend` and of training."""
    said = set()
    for ask in (lambda: model_facts(str(folder)), lambda: make_resident(folder, data, Recipe())):
        with pytest.raises(BadInput) as refused:
            ask()
        said.add(refused.value.law)
        assert refused.value.next_step
    return said


def weights_of(folder: Path) -> Path:
    return next(folder.glob("*.safetensors"))


def test_weights_that_are_cut_off(folder, instruct_file):
    file = weights_of(folder)
    file.write_bytes(file.read_bytes()[:-1000])
    assert both_say(folder, instruct_file) == {
        f"the weights are cut off: the file must have {file.stat().st_size + 1000:,} bytes"
    }


def test_a_pointer_of_git_lfs(folder, instruct_file):
    weights_of(folder).write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n", encoding="utf-8"
    )
    assert both_say(folder, instruct_file) == {"the weights are a pointer of Git LFS, not the file itself"}


def test_an_empty_file(folder, instruct_file):
    weights_of(folder).write_bytes(b"")
    assert both_say(folder, instruct_file) == {"not a valid safetensors file"}


def test_a_shard_that_is_missing(folder, instruct_file):
    index = {"weight_map": {"a": weights_of(folder).name, "b": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    (said,) = both_say(folder, instruct_file)
    assert said.startswith("a part of the weights is missing")


@pytest.mark.parametrize("kind", ["gptq", "awq", "bitsandbytes", "compressed-tensors", "hqq", "quanto"])
def test_quantised_weights(folder, instruct_file, kind):
    change_config(folder, quantization_config={"quant_method": kind, "bits": 4})
    (said,) = both_say(folder, instruct_file)
    assert said.startswith("the weights must not be quantised")


def test_gguf_files_and_folders(tmp_path, instruct_file):
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed" / "model-q4.gguf").write_bytes(b"GGUF")
    for place in (tmp_path / "packed", tmp_path / "packed" / "model-q4.gguf"):
        assert both_say(place, instruct_file) == {"GGUF weights are packed for inference and cannot be trained"}


def test_a_tokenizer_with_more_tokens_than_the_model(folder, instruct_file):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder)
    model.resize_token_embeddings(200)
    model.save_pretrained(folder)
    with pytest.raises(BadInput, match="every token must have an embedding: the model has 200"):
        make_resident(folder, instruct_file, Recipe())


def test_whole_checkpoints_pass(folder, instruct_file):
    assert (
        model_facts(str(folder)).num_parameters == make_resident(folder, instruct_file, Recipe()).base.num_parameters()
    )
