"""Somebody's config as a study: which trainer it is, how its rows are split, and what a trial of it says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from finestep.errors import BadInput
from finestep.foreign.markup import yaml_tree
from finestep.studies.with_config import Wishes, planned_study
from finestep.study import DataSpec
from finestep.trainers.frameworks import FRAMEWORKS
from finestep.trainers.plan import plan_trial, trial_text

TRAINER = """learning_rate: 1e-4
per_device_train_batch_size: 4
gradient_accumulation_steps: 4
num_train_epochs: 2
warmup_steps: 2
output_dir: out
"""
LAUNCHER = "{python} start.py {config}"


def json_rows(number=200):
    return [{"instruction": f"what is {n}?", "input": "", "output": f"it is {n}"} for n in range(number)]


def write(folder, name, rows):
    text = json.dumps(rows) if name.endswith(".json") else "".join(json.dumps(row) + "\n" for row in rows)
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)


def planned(folder, text, name="config.yaml", **wishes):
    (folder / name).write_text(text)
    values = {"launcher": LAUNCHER, **wishes}
    found, place = planned_study(folder / name, Wishes(**values), folder=folder / "study", runs_folder="runs")
    assert place == folder / "study"
    return found


def trial_of(found, fidelity=1.0, **recipe):
    """The file of a trial, as its trainer would read it."""
    spec = found.spec.framework
    own = FRAMEWORKS[spec.name]
    wanted = found.spec.recipe.changed(**recipe)
    plan = plan_trial(own, spec, wanted, fidelity=fidelity, num_rows=spec.full_run.num_rows or 1, output="/trial")
    return plan, yaml_tree(trial_text(own, spec, plan), "trial")


def count(path):
    text = Path(path).read_text(encoding="utf-8")
    return len(json.loads(text)) if text.startswith("[") else len(text.splitlines())


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_trl_gets_a_folder_with_train_and_test(here):
    write(here, "rows.jsonl", [{"prompt": f"q {n}", "completion": "a"} for n in range(200)])
    found = planned(
        here, f"model_name_or_path: m\ndatasets:\n  - path: json\n    data_files: rows.jsonl\nuse_peft: true\n{TRAINER}"
    )
    plan, tree = trial_of(found, learning_rate=3e-4, effective_batch_size=8)
    assert found.spec.framework.name == "trl"
    assert (found.spec.framework.full_run.num_rows, found.spec.framework.full_run.num_eval_rows) == (150, 50)
    assert count(f"{tree['dataset_name']}/train.jsonl") == 150
    assert count(f"{tree['dataset_name']}/test.jsonl") == 50
    assert tree["datasets"] == []
    assert (tree["per_device_train_batch_size"], tree["gradient_accumulation_steps"]) == (4, 2)
    assert tree["max_steps"] == plan.num_steps == 38
    assert tree["eval_strategy"] == "steps"


@pytest.mark.parametrize(
    ("row", "task"),
    [
        ({"prompt": "q", "chosen": "a", "rejected": "b"}, "dpo"),
        ({"prompt": "q", "completion": "a", "label": True}, "kto"),
    ],
)
def test_pairs_of_answers_are_for_dpo_and_marked_answers_for_kto(here, row, task):
    write(here, "rows.jsonl", [{**row, "prompt": f"q {n}"} for n in range(40)])
    text = f"model_name_or_path: m\ndatasets: [{{path: json, data_files: rows.jsonl}}]\nuse_peft: true\n{TRAINER}"
    assert planned(here, text).spec.framework.task == task


def test_llama_factory_gets_its_entries_twice(here):
    write(here, "data/rows.json", json_rows())
    entry = {"file_name": "rows.json", "formatting": "alpaca", "columns": {"prompt": "instruction"}}
    (here / "data/dataset_info.json").write_text(json.dumps({"ours": entry, "other": {}}))
    text = f"model_name_or_path: m\nstage: sft\nfinetuning_type: lora\ndataset: ours\ntemplate: alpaca\ncutoff_len: 128\n{TRAINER}"
    _, tree = trial_of(planned(here, text))
    info = json.loads(Path(tree["dataset_dir"], "dataset_info.json").read_text())
    assert tree["dataset"] == "ours"
    assert info["ours"]["columns"] == info[tree["eval_dataset"]]["columns"] == {"prompt": "instruction"}
    assert count(f"{tree['dataset_dir']}/{info['ours']['file_name']}") == 150
    assert count(f"{tree['dataset_dir']}/{info[tree['eval_dataset']]['file_name']}") == 50


def test_ms_swift_keeps_a_share_that_its_file_states(here):
    write(here, "rows.jsonl", json_rows())
    text = f"model: m\ntuner_type: lora\ndataset: [rows.jsonl]\n{TRAINER}"
    _, tree = trial_of(planned(here, text))
    assert count(tree["dataset"][0]) == 150
    assert count(tree["val_dataset"][0]) == 50
    _, tree = trial_of(planned(here, text + "split_dataset_ratio: 0.2\n"))
    assert tree["dataset"] == ["rows.jsonl"]
    assert tree["split_dataset_ratio"] == 0.2


def test_litgpt_gets_a_folder_and_counts_whole_batches(here):
    write(here, "rows.json", json_rows())
    text = """checkpoint_dir: c
lora_r: 8
data: {class_path: litgpt.data.JSON, init_args: {json_path: rows.json, mask_prompt: true}}
train: {global_batch_size: 16, micro_batch_size: 4, epochs: 2}
optimizer: {class_path: torch.optim.AdamW, init_args: {lr: 0.001, weight_decay: 0.1}}
"""
    found = planned(here, text)
    plan, tree = trial_of(found, learning_rate=2e-4, effective_batch_size=8)
    assert plan.num_steps == 2 * (38 // 2)
    assert count(f"{tree['data']['init_args']['json_path']}/train.json") == 150
    assert tree["train"]["global_batch_size"] == 8
    assert float(tree["optimizer"]["init_args"]["lr"]) == 2e-4
    assert tree["optimizer"]["init_args"]["weight_decay"] == 0.1
    assert tree["train"]["lr_warmup_steps"] == 19, "its default of 100 steps is longer than half of the run"
    assert any("half of each run" in note for note in found.notes)


def test_axolotl_gets_validation_rows_of_the_same_type(here):
    write(here, "rows.jsonl", json_rows())
    text = """base_model: m
adapter: lora
datasets:
  - path: rows.jsonl   # ours
    type: alpaca
sequence_len: 256
micro_batch_size: 4
gradient_accumulation_steps: 4
num_epochs: 1
learning_rate: 0.0002
evals_per_epoch: 2
saves_per_epoch: 1
"""
    _, tree = trial_of(planned(here, text))
    assert tree["datasets"][0]["type"] == tree["test_datasets"][0]["type"] == "alpaca"
    assert count(tree["datasets"][0]["path"]) == 150
    assert count(tree["test_datasets"][0]["path"]) == 50
    assert tree["evals_per_epoch"] is None
    assert tree["saves_per_epoch"] is None


def test_a_run_that_is_limited_in_steps_is_a_number_of_rows(here):
    write(here, "rows.jsonl", [{"prompt": f"q {n}", "completion": "a"} for n in range(200)])
    text = f"model_name_or_path: m\ndatasets: [{{path: json, data_files: rows.jsonl}}]\nuse_peft: true\n{TRAINER}max_steps: 30\n"
    found = planned(here, text)
    assert trial_of(found)[0].num_steps == 30
    assert trial_of(found, effective_batch_size=8)[0].num_steps == 60
    assert trial_of(found, fidelity=0.5)[0].num_steps == 15
    assert found.spec.recipe.num_epochs == pytest.approx(30 * 16 / 150)


def test_the_same_rows_are_split_in_the_same_way_and_no_prompt_is_on_both_sides(here):
    rows = [{"prompt": f"q {n % 60}", "completion": f"a {n}"} for n in range(200)]
    write(here, "rows.jsonl", rows)
    text = f"model_name_or_path: m\ndatasets: [{{path: json, data_files: rows.jsonl}}]\nuse_peft: true\n{TRAINER}"
    planned(here, text)
    first = (here / "study/data/test.jsonl").read_text()
    planned(here, text)
    assert (here / "study/data/test.jsonl").read_text() == first
    sides = [
        {json.loads(line)["prompt"] for line in (here / f"study/data/{name}.jsonl").read_text().splitlines()}
        for name in ("train", "test")
    ]
    assert not sides[0] & sides[1]


def test_data_of_the_user_are_written_in_the_framework_s_format(here, shipped_model):
    write(here, "rows.jsonl", json_rows())
    text = f"model: {shipped_model}\ntuner_type: lora\ndataset: [AI-ModelScope/other]\n{TRAINER}"
    found = planned(here, text, data=DataSpec(path="rows.jsonl"))
    _, tree = trial_of(found)
    first = json.loads(Path(tree["dataset"][0]).read_text().splitlines()[0])
    assert [one["role"] for one in first["messages"]] == ["user", "assistant"]
    assert found.spec.framework.full_run.num_eval_rows == 50


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("foo: 1\nlearning_rate: 1e-4\n", "not known"),
        (
            "actor_rollout_ref: {model: {path: m}}\ntrainer: {total_epochs: 1}\nlearning_rate: 1e-6\n",
            "none that finestep drives",
        ),
    ],
)
def test_files_of_other_trainers_are_refused_with_the_way_out(here, text, says):
    with pytest.raises(BadInput, match=says) as raised:
        planned(here, text)
    assert "--command" in str(raised.value)


def test_a_script_of_the_trainer_is_found_beside_its_arguments(here):
    (here / "train.py").write_text("from transformers import HfArgumentParser, TrainingArguments\n")
    (here / "plot.py").write_text("import json\n")
    text = f"model_name_or_path: m\ntrain_file: rows.jsonl\nvalidation_file:\nlr_scheduler_type: linear\n{TRAINER}"
    write(here, "rows.jsonl", json_rows())
    found = planned(here, text, launcher=None, trainer="hf")
    assert found.spec.framework.launch.launcher == f"{{python}} {here / 'train.py'} {{config}}"
    _, tree = trial_of(found)
    assert count(tree["validation_file"]) == 50


@pytest.mark.parametrize(("imports", "method"), [("", "full"), ("from peft import LoraConfig\n", "lora")])
def test_what_a_script_trains_is_read_in_the_script(here, imports, method):
    (here / "train.py").write_text(f"{imports}from transformers import HfArgumentParser, TrainingArguments\n")
    text = f"model_name_or_path: m\ntrain_file: rows.jsonl\nvalidation_file:\nlr_scheduler_type: linear\n{TRAINER}"
    write(here, "rows.jsonl", json_rows())
    assert planned(here, text, launcher=None, trainer="hf").spec.recipe.method == method
