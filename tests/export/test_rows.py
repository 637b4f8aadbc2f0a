"""Exports carry the rows: split as finestep splits them, in each framework's own format, with steps counted from them."""

from __future__ import annotations

import ast
import json
import re

import pytest
import yaml

from finestep.errors import BadInput
from finestep.flows.export import export_recipe, framework_steps
from finestep.ready import DataCard, Ready
from finestep.recipe import Recipe
from finestep.store.recipe_file import write_recipe

RECIPE = Recipe(learning_rate=1e-4, effective_batch_size=8, micro_batch_size=2, num_epochs=2, max_length=128)
FRAMEWORKS = ("hf", "trl", "llamafactory", "ms-swift", "axolotl", "litgpt", "unsloth")


@pytest.fixture
def questions(tmp_path):
    path = tmp_path / "questions.jsonl"
    rows = [{"question": f"How many is {n}?", "answer": f"It is {n}."} for n in range(40)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def labelled(tmp_path):
    path = tmp_path / "labels.jsonl"
    path.write_text(
        "".join(json.dumps({"text": f"row {n}", "label": ("good", "bad")[n % 2]}) + "\n" for n in range(40))
    )
    return path


def exported(name, data, model, **more):
    return export_recipe(RECIPE, name, model=str(model), data=str(data), hardware="cpu", **more)


def written_rows(files: dict[str, str]) -> list[dict]:
    name = next(name for name in files if name.endswith(("train.jsonl", "train.json")))
    return (
        json.loads(files[name]) if name.endswith(".json") else [json.loads(line) for line in files[name].splitlines()]
    )


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_every_framework_gets_the_same_rows(name, questions, shipped_model):
    files = exported(name, questions, shipped_model).files
    text = json.dumps(written_rows(files))
    assert len(written_rows(files)) == 30, "a quarter is held out"
    asked = set(re.findall(r"How many is (\d+)", text))
    assert len(asked) == 30
    assert all(f"It is {n}." in text for n in asked)
    if name == "trl":
        assert written_rows(files)[0]["completion"][0]["role"] == "assistant"


def test_a_model_without_a_template_gets_the_prompt_as_it_is_trained(tmp_path, questions, shipped_model):
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (bare / name).write_bytes((shipped_model / name).read_bytes())
    row = written_rows(exported("trl", questions, bare).files)[0]
    assert row["prompt"].startswith("### Instruction:\n")
    assert row["prompt"].endswith("### Response:\n")
    assert yaml.safe_load(exported("llamafactory", questions, bare).files["llamafactory.yaml"])["template"] == "alpaca"
    assert "template" not in yaml.safe_load(
        exported("llamafactory", questions, shipped_model).files["llamafactory.yaml"]
    )


@pytest.mark.parametrize("name", ["trl", "llamafactory", "ms-swift", "axolotl", "litgpt", "unsloth", "torchtune"])
def test_labels_are_refused_where_only_answers_are_trained(name, labelled, shipped_model):
    with pytest.raises(BadInput, match="carry labels"):
        exported(name, labelled, shipped_model)


def test_labels_are_trained_by_the_script(labelled, shipped_model):
    files = exported("hf", labelled, shipped_model).files
    assert "AutoModelForSequenceClassification" in files["train.py"]
    assert {row["label"] for row in written_rows(files)} == {"good", "bad"}


@pytest.mark.parametrize("method", ["lora", "qlora", "full"])
def test_the_script_is_python(method, questions, labelled, shipped_model):
    for data in (questions, labelled):
        files = export_recipe(
            RECIPE.changed(method=method), "hf", model=str(shipped_model), data=str(data), hardware="h100"
        ).files
        ast.parse(files["train.py"])


@pytest.mark.parametrize("name", ["hf", "trl", "llamafactory", "ms-swift"])
def test_the_machine_decides_precision(name, questions, shipped_model):
    def main(hardware):
        found = export_recipe(RECIPE, name, model=str(shipped_model), data=str(questions), hardware=hardware)
        return yaml.safe_load(next(text for file, text in found.files.items() if file.endswith(".yaml")))

    assert (main("cpu")["use_cpu"], main("cpu")["bf16"]) == (True, False)
    assert (main("h100")["bf16"], main("t4")["fp16"], main("t4")["bf16"]) == (True, True, False)
    assert main("cpu")["logging_steps"] == 1


def test_shipped_is_a_path(questions):
    files = export_recipe(RECIPE, "trl", model="shipped", data=str(questions), hardware="cpu").files
    assert yaml.safe_load(files["trl_sft.yaml"])["model_name_or_path"].endswith("shipped/base")


@pytest.mark.parametrize(
    ("framework", "rows", "micro", "batch", "epochs", "steps"),
    [
        ("hf", 100, 4, 32, 1.0, 4),
        ("trl", 100, 4, 32, 2.0, 8),
        ("hf", 100, 8, 8, 1.5, 20),
        ("litgpt", 100, 4, 32, 1.0, 3),
        ("litgpt", 100, 4, 32, 2.0, 6),
        ("hf", 3, 4, 32, 1.0, 1),
    ],
)
def test_steps_are_counted_as_the_framework_counts_them(framework, rows, micro, batch, epochs, steps):
    """The Trainer rounds the last batch of an epoch up; litgpt drops what does not fill a step."""
    recipe = Recipe(effective_batch_size=batch, micro_batch_size=micro, num_epochs=epochs)
    assert framework_steps(framework, recipe, rows) == steps


def test_rows_are_cut_where_the_study_or_the_model_cuts_them(tmp_path, questions, shipped_model):
    """The shipped model reads 512 tokens, and TRL would let 1,024 through."""
    open_recipe = RECIPE.changed(max_length=None)
    place = {"model": str(shipped_model), "data": str(questions), "hardware": "cpu"}
    assert "max_length: 512" in export_recipe(open_recipe, "trl", **place).files["trl_sft.yaml"]
    write_recipe(tmp_path / "recipe.yaml", open_recipe)
    (tmp_path / "ready.json").write_text(Ready(card=DataCard(max_length=96)).model_dump_json())
    assert "max_length: 96" in export_recipe(tmp_path / "recipe.yaml", "trl", **place).files["trl_sft.yaml"]
