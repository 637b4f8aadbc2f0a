"""Exports: every framework round-trips, and each of the ten known traps has its test."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from finestep.errors import BadInput
from finestep.export.exported import ExportContext
from finestep.export.registry import EXPORTERS, exporter
from finestep.foreign.config import ForeignConfig, Source
from finestep.foreign.reading import config_of
from finestep.recipe import Recipe, ScheduleName
from finestep.rules.warmup import warmup_steps

CONTEXT = ExportContext(model="owner/model", data="data.jsonl", num_steps=625)
LORA = Recipe(
    method="lora",
    learning_rate=2.8e-4,
    effective_batch_size=64,
    micro_batch_size=4,
    num_devices=2,
    num_epochs=2,
    max_length=1536,
    optimizer={"beta2": 0.98},
    lora={"rank": 16, "alpha": 32},
)
NAMES = sorted(EXPORTERS)
LACKS: dict[str, set[str]] = {
    "deepspeed": {"adapter", "method", "comments"},
    "hf": {"adapter", "method"},
    "torchtune": {"method"},
}
"""What a framework's main file has no place for. It is asked for elsewhere instead: in another file, or in `cannot`.

`adapter`: rank and alpha. `method`: full, lora or qlora. `comments`: the file is JSON. `marks`: no key is this framework's alone, so
that a review reads the file as one of an unknown tool.
"""
KEYS = json.loads((Path(__file__).parent / "keymap.json").read_text())
"""Concept -> framework -> the key that holds it; taken from the frameworks' sources by their syntax trees."""
NOT_WRITTEN = {
    "max_steps": "epochs are written",
    "per_layer_lr": "not in these frameworks' configs as a decay; said in the file",
    "early_stop": "needs the framework's own evaluation; said in the file",
    "prompt_mask": "depends on the format of the data",
    "val_split": "not a part of a recipe",
}


def parsed(name: str, recipe: Recipe, context: ExportContext = CONTEXT) -> dict:
    """The main file as a plain YAML 1.1 reader (PyYAML) sees it."""
    files = exporter(name).write(recipe, context).files
    file, text = next(iter(files.items()))
    return json.loads(text) if file.endswith(".json") else yaml.safe_load(text)


def read_back(tree: dict) -> ForeignConfig:
    """What a review of an exported file sees."""
    return config_of(Source(kind="yaml", tree=tree), Path("exported.yaml"))


def text_of(name: str, recipe: Recipe, context: ExportContext = CONTEXT) -> str:
    return next(iter(exporter(name).write(recipe, context).files.values()))


def lacks(name: str, what: str) -> bool:
    return what in LACKS.get(name, set())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("method", ["lora", "qlora", "full"])
def test_what_is_written_reads_back(name, method):
    recipe = LORA.changed(method=method)
    tree = parsed(name, recipe)
    found = read_back(tree)
    assert found.framework == ("unknown" if lacks(name, "marks") else name)
    assert found.optimization.learning_rate == recipe.learning_rate
    devices = found.batch.num_devices or recipe.num_devices
    product = (
        found.batch.effective_batch_size or found.batch.micro_batch_size * found.batch.accumulation_steps * devices
    )
    assert product == 64
    assert found.optimization.warmup == warmup_steps(recipe.schedule, 625)
    if method != "full" and not lacks(name, "adapter"):
        assert (found.adapter.lora_rank, found.adapter.lora_alpha) == (16, 32)
    if not lacks(name, "method"):
        assert found.method == method


@pytest.mark.parametrize("name", [name for name in NAMES if lacks(name, "adapter")])
def test_an_adapter_without_a_place_in_the_file_is_said_elsewhere(name):
    exported = exporter(name).write(LORA, CONTEXT)
    elsewhere = "\n".join([*list(exported.files.values())[1:], *exported.cannot])
    assert re.search(r"\b(r|rank)\W+16\b", elsewhere), name


def keys_of(tree: dict, prefix: str = "") -> set[str]:
    """All dotted names in a config."""
    out: set[str] = set()
    for key, value in tree.items():
        out.add(f"{prefix}{key}")
        if isinstance(value, dict):
            out |= keys_of(value, f"{prefix}{key}.")
    return out


def map_cases():
    for concept, frameworks in KEYS.items():
        for framework, text in frameworks.items():
            outside = concept in NOT_WRITTEN or (framework == "litgpt" and concept in ("min_lr", "clip"))
            plain = text and re.fullmatch(r"[\w.|]+|train\.global.*|model\.lora_attn.*", text)
            if plain and not outside and not text.startswith(("LoraConfig", "BitsAndBytes")):
                yield framework.removesuffix("_cli"), concept, re.findall(r"[a-z][\w.]+", text.split(" (")[0])


@pytest.mark.parametrize(("name", "concept", "keys"), list(map_cases()))
def test_every_concept_stands_under_the_key_that_the_framework_reads(name, concept, keys):
    schedule = {"name": "cosine", "min_lr_ratio": 0.1}
    tree = parsed(name, LORA.changed(method="qlora", schedule=schedule))
    assert keys_of(tree) & set(keys), (name, concept)


RATES = st.floats(1e-7, 1e-1, allow_nan=False)


@given(rate=RATES, name=st.sampled_from(NAMES))
def test_trap_5_every_yaml_reader_sees_a_number(rate, name):
    tree = parsed(name, LORA.changed(learning_rate=rate))
    found = read_back(tree)
    assert not found.optimization.text_rate
    assert found.optimization.learning_rate == pytest.approx(rate, rel=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_trap_1_the_effective_batch_stands_in_full(name):
    text = "\n".join(exporter(name).write(LORA, CONTEXT).cannot) if lacks(name, "comments") else text_of(name, LORA)
    assert "effective batch 64 = 4 rows x 8 accumulation x 2 devices" in text


def test_trap_1_litgpt_wants_the_product():
    assert parsed("litgpt", LORA)["train"]["global_batch_size"] == 64


def test_trap_2_clipping_is_switched_on_where_it_can_be():
    assert read_back(parsed("torchtune", LORA)).optimization.max_grad_norm == 1.0
    off = LORA.changed(optimizer={"max_grad_norm": None})
    assert read_back(parsed("torchtune", off)).optimization.max_grad_norm is None
    # litgpt's fine-tuning refuses `max_norm`.
    assert "max_norm" not in parsed("litgpt", LORA)["train"]
    assert any("clipping" in line for line in exporter("litgpt").write(LORA, CONTEXT).cannot)


def test_trap_3_the_ratio_goes_where_the_version_takes_it():
    new = ExportContext(transformers_version=(5, 23))
    old = ExportContext(transformers_version=(4, 57))
    assert parsed("hf", LORA, new)["warmup_steps"] == 0.05
    assert "warmup_ratio" not in parsed("hf", LORA, new)
    assert parsed("hf", LORA, old)["warmup_ratio"] == 0.05
    factory = parsed("llamafactory", LORA, new)
    assert factory["warmup_ratio"] == 0.05
    assert "warmup_steps" not in factory


def test_trap_4_litgpt_takes_warmup_in_steps_alone():
    known = parsed("litgpt", LORA.changed(schedule={"warmup_ratio": 0.06}))
    assert known["train"]["lr_warmup_steps"] == 38
    none = parsed("litgpt", LORA.changed(schedule={"warmup_steps": 0}))
    assert none["train"]["lr_warmup_steps"] == 1, "it divides by the warmup"
    unknown = exporter("litgpt").write(LORA, ExportContext())
    assert "lr_warmup_fraction" not in next(iter(unknown.files.values()))
    assert any("warmup" in line for line in unknown.cannot)


@pytest.mark.parametrize("name", ["litgpt", "torchtune"])
def test_trap_6_rslora_becomes_the_same_scale(name):
    recipe = LORA.changed(lora={"use_rslora": True, "rank": 64, "alpha": 16})
    found = read_back(parsed(name, recipe))
    assert found.adapter.lora_alpha / found.adapter.lora_rank == pytest.approx(16 / 64**0.5)


def test_trap_7_long_rows_are_cut_everywhere():
    assert parsed("trl", LORA)["max_length"] == parsed("llamafactory", LORA)["cutoff_len"] == 1536
    assert parsed("axolotl", LORA)["excess_length_strategy"] == "truncate"
    assert parsed("ms-swift", LORA)["truncation_strategy"] == "right"


def test_trap_8_torchtune_says_that_it_is_unmaintained():
    assert "unmaintained" in text_of("torchtune", LORA)


def test_trap_9_trl_says_its_own_defaults():
    tree = parsed("trl", LORA)
    assert (tree["gradient_checkpointing"], tree["logging_steps"], tree["packing"]) == (True, 10, False)
    assert tree["bf16"] is True


@pytest.mark.parametrize("name", ["hf", "trl", "llamafactory", "axolotl", "ms-swift"])
def test_trap_10_the_batch_finder_is_off(name):
    assert parsed(name, LORA)["auto_find_batch_size"] is False


def test_an_uneven_batch_says_what_was_asked():
    assert "(asked: 50)" in text_of("trl", LORA.changed(effective_batch_size=50))


@pytest.mark.parametrize("name", NAMES)
def test_what_cannot_be_said_is_said(name):
    recipe = LORA.changed(optimizer={"layerwise_decay": 0.9, "head_lr_multiplier": 5.0}, evaluation={"patience": 3})
    exported = exporter(name).write(recipe, CONTEXT)
    assert any("layer-wise" in line for line in exported.cannot)
    assert any("head rate" in line for line in exported.cannot)
    if not lacks(name, "comments"):
        assert "not expressed here: layer-wise decay 0.9" in next(iter(exported.files.values()))


def test_schedules_keep_their_floor_or_say_so():
    floored = LORA.changed(schedule={"name": "cosine", "min_lr_ratio": 0.1})
    assert parsed("axolotl", floored)["cosine_min_lr_ratio"] == 0.1
    tree = parsed("hf", floored)
    assert tree["lr_scheduler_type"] == "cosine_with_min_lr"
    assert json.loads(tree["lr_scheduler_kwargs"]) == {"min_lr_rate": 0.1}
    assert any("min_lr" in line for line in exporter("litgpt").write(floored, CONTEXT).cannot)


def test_deepspeed_multiplies_out():
    tree = parsed("deepspeed", LORA)
    assert tree["train_batch_size"] == 4 * 8 * 2
    assert tree["scheduler"]["params"]["total_num_steps"] == 625
    assert "scheduler" not in parsed("deepspeed", LORA, ExportContext())


def test_target_modules_are_translated():
    recipe = LORA.changed(lora={"target_modules": ("q_proj", "v_proj", "o_proj")})
    assert parsed("torchtune", recipe)["model"]["lora_attn_modules"] == ["q_proj", "v_proj", "output_proj"]
    litgpt = parsed("litgpt", recipe)
    assert (litgpt["lora_query"], litgpt["lora_key"], litgpt["lora_mlp"]) == (True, False, False)
    assert parsed("llamafactory", recipe)["lora_target"] == "q_proj,v_proj,o_proj"


def test_unknown_frameworks_are_refused():
    with pytest.raises(BadInput, match="did you mean `axolotl`"):
        exporter("axolot")


def test_the_real_trainer_reads_it(tmp_path):
    transformers = pytest.importorskip("transformers")
    peft = pytest.importorskip("peft")
    files = exporter("hf").write(LORA, replace(CONTEXT, device="cpu", precision="fp32")).files
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    parser = transformers.HfArgumentParser(transformers.TrainingArguments)
    (arguments,) = parser.parse_yaml_file(str(tmp_path / "training_arguments.yaml"))
    assert arguments.learning_rate == 2.8e-4
    assert arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps == 32
    assert arguments.get_warmup_steps(625) == 31
    config = peft.LoraConfig(**json.loads(files["lora_config.json"]))
    assert (config.r, config.lora_alpha, config.target_modules) == (16, 32, "all-linear")


def test_the_real_trl_reads_it(tmp_path):
    trl = pytest.importorskip("trl")
    path = tmp_path / "trl_sft.yaml"
    path.write_text(text_of("trl", LORA))
    parser = trl.TrlParser((trl.ScriptArguments, trl.SFTConfig, trl.ModelConfig))
    on_cpu = ["--bf16", "false", "--use_cpu", "true"]
    script, training, model = parser.parse_args_and_config(["--config", str(path), *on_cpu])
    assert (script.dataset_name, model.model_name_or_path) == ("data.jsonl", "owner/model")
    assert training.learning_rate == 2.8e-4
    assert training.per_device_train_batch_size * training.gradient_accumulation_steps == 32
    assert training.get_warmup_steps(625) == 31
    assert training.max_length == 1536
    assert (model.use_peft, model.lora_r, model.lora_alpha, model.use_rslora) == (True, 16, 32, False)


def without_a_note(name: str) -> dict[str, dict[str, str]]:
    """Schedule -> the files, for each schedule of which `cannot` does not say that the framework trains by another."""
    out = {}
    for schedule in get_args(ScheduleName):
        written = EXPORTERS[name].write(LORA.changed(schedule={"name": schedule}), CONTEXT)
        if not any(re.search(rf"\b(schedule|{schedule})\b", line) for line in written.cannot):
            out[schedule] = written.files
    return out


@pytest.mark.parametrize("schedule", get_args(ScheduleName))
@pytest.mark.parametrize("name", EXPORTERS)
def test_a_schedule_is_written_or_named_as_missing(name, schedule):
    """What the framework trains by is the schedule that was asked for, or the export says that it is another."""
    true = without_a_note(name)
    mine = true.pop(schedule, None)
    assert mine is None or not [other for other, files in true.items() if files == mine]


def test_the_documentation_names_every_framework():
    root = Path(__file__).parent.parent.parent
    table = re.findall(r"^\| `([\w-]+)` \|", (root / "docs" / "export.md").read_text(encoding="utf-8"), flags=re.M)
    assert set(EXPORTERS) <= set(table)
    number = {9: "nine", 10: "ten", 11: "eleven", 12: "twelve", 13: "thirteen"}[len(EXPORTERS)]
    assert f"recipes of {number} other frameworks" in (root / "README.md").read_text(encoding="utf-8")
