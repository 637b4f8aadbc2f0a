"""A config is changed where it is asked to, and nowhere else: comments, order, anchors, variables and spelling survive."""

from __future__ import annotations

import json

import pytest
from ruamel.yaml import YAML

from finestep.errors import BadInput
from finestep.trainers.config_text import Change, ConfigText, flow

CONFIG = """\
# Our run of November. Do not touch the data!
model_name_or_path: ../models/base     # relative to here
base_lr: &lr 1e-4
learning_rate: *lr
shared: &shared
    weight_decay: 0.01
    adam_beta2: 0.98
optimizer:
    <<: *shared
    name: "adamw_torch"
train_file:   data/rows.jsonl
output_dir: runs/${learning_rate}/${seed}
seed: 7
deepspeed:
    train_micro_batch_size_per_gpu: auto
    gradient_accumulation_steps: "auto"
    zero_optimization: {stage: 2, overlap_comm: true}   # as on the cluster
per_device_train_batch_size: 8
report_to:
- wandb
- 'tensorboard'

# the end
"""


def read(text):
    return YAML(typ="safe", pure=True).load(text)


def changed_lines(before, after):
    return [(a, b) for a, b in zip(before.splitlines(), after.splitlines(), strict=False) if a != b]


def test_only_the_named_lines_change():
    after = ConfigText(CONFIG).changed({("learning_rate",): 2.5e-5, ("per_device_train_batch_size",): 4})
    assert changed_lines(CONFIG, after) == [
        ("learning_rate: *lr", "learning_rate: 2.5e-05"),
        ("per_device_train_batch_size: 8", "per_device_train_batch_size: 4"),
    ]
    assert len(after.splitlines()) == len(CONFIG.splitlines())
    assert read(after)["deepspeed"] == read(CONFIG)["deepspeed"]
    assert read(after)["optimizer"] == read(CONFIG)["optimizer"]


def test_an_anchor_stays_so_that_its_other_places_still_mean_something():
    after = ConfigText(CONFIG).changed({("base_lr",): 3e-4})
    assert changed_lines(CONFIG, after) == [("base_lr: &lr 1e-4", "base_lr: &lr 3.0e-04")]
    assert read(after)["learning_rate"] == 3e-4


def test_a_value_that_is_merged_in_is_written_over_in_its_own_mapping():
    after = ConfigText(CONFIG).changed({("optimizer", "weight_decay"): 0.1})
    assert read(after)["optimizer"] == {"weight_decay": 0.1, "adam_beta2": 0.98, "name": "adamw_torch"}
    assert read(after)["shared"]["weight_decay"] == 0.01
    assert "    weight_decay: 0.1\n" in after


def test_new_names_come_after_the_last_line_of_their_mapping():
    after = ConfigText(CONFIG).changed({("max_steps",): 20, ("deepspeed", "zero_optimization", "offload"): False})
    assert read(after)["max_steps"] == 20
    assert read(after)["deepspeed"]["zero_optimization"] == {"stage": 2, "overlap_comm": True, "offload": False}
    assert "overlap_comm: true, offload: false}   # as on the cluster" in after


def test_a_mapping_that_is_missing_is_made():
    after = ConfigText("lr: 1\n").changed({("train", "max_steps"): 3, ("train", "epochs"): 2})
    assert after == "lr: 1\ntrain:\n  max_steps: 3\n  epochs: 2\n"


def test_a_note_stands_behind_the_value_and_after_an_older_comment():
    after = ConfigText("a: 1   # ours\nb: 2\n").changed({("a",): Change(3, "was 1"), ("b",): Change(4, "was\n2")})
    assert after == "a: 3   # ours; was 1\nb: 4  # was 2\n"


@pytest.mark.parametrize(
    "value", [1e-5, 0.1, 3, True, None, "out/run", "no", "12:30", "1e5", "a: b", "x # y", "", ["a", 1], {"k": "v: w"}]
)
def test_any_value_is_read_back_as_it_was(value):
    for text in ("first: x\nlast: y\n", "{first: x}\n", '{\n  "first": "x"\n}\n'):
        assert read(ConfigText(text).changed({("first",): value, ("new",): value})) | {"last": 0} == {
            "first": value,
            "new": value,
            "last": 0,
        }


def test_json_stays_json():
    text = json.dumps({"learning_rate": 1e-3, "inner": {}, "names": ["a"]}, indent=4)
    after = json.loads(
        ConfigText(text).changed({("learning_rate",): 2e-5, ("output_dir",): "out", ("inner", "k"): [1]})
    )
    assert after == {"learning_rate": 2e-5, "inner": {"k": [1]}, "names": ["a"], "output_dir": "out"}


def test_empty_values_block_texts_and_lists_are_replaced_whole():
    text = "a:\nb:   # nothing yet\nprompt: |\n  two\n  lines\nlist:\n- x\n- y\nlast: 1\n"
    after = ConfigText(text).changed({("a",): 1, ("b",): "two", ("prompt",): "one", ("list",): []})
    assert read(after) == {"a": 1, "b": "two", "prompt": "one", "list": [], "last": 1}
    assert "# nothing yet" in after


def test_an_item_of_a_list_is_changed_in_place():
    text = "datasets:\n  - path: a.jsonl  # ours\n    type: chat\n  - path: b.jsonl\n"
    after = ConfigText(text).changed({("datasets", 1, "path"): "c.jsonl", ("datasets", 0, "ds_type"): "json"})
    assert read(after)["datasets"] == [{"path": "a.jsonl", "type": "chat", "ds_type": "json"}, {"path": "c.jsonl"}]


@pytest.mark.parametrize("text", ["- a\n- b\n", "just words", "a: [1, 2\n", "? [a, b]\n: 1\n"])
def test_what_is_no_mapping_is_refused(text):
    with pytest.raises(BadInput):
        ConfigText(text)


def test_rates_are_written_as_every_reader_takes_them():
    assert flow(1e-5) == "1.0e-05"
