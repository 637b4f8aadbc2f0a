"""Reading of other tools' files at its edges: interpolation, notebooks, scripts that hand a config on, and what cannot be read."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finestep.errors import BadInput
from finestep.flows.review import review_config
from finestep.foreign.config import Source
from finestep.foreign.interpolation import resolved
from finestep.foreign.names import NAMES
from finestep.foreign.reading import config_of, read_config
from tests.foreign.configs import CONFIGS


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.mark.parametrize(
    ("tree", "place", "value"),
    [
        ({"a": {"b": 3}, "c": "${a.b}"}, "c", 3),
        ({"a": [1, {"b": 5}], "c": "${a[1].b}"}, "c", 5),
        ({"a": {"b": 2, "c": "${.b}"}}, "a.c", 2),
        ({"a": {"b": {"c": "${..d}"}, "d": 7}}, "a.b.c", 7),
        ({"a": "x", "x": 4, "c": "${${a}}"}, "c", 4),
        ({"n": 3, "c": "out/${n}/run"}, "c", "out/3/run"),
        ({"c": "${oc.env:NOBODY_SETS_THIS,8}"}, "c", 8),
        ({"c": "${oc.select:nothing,0.5}"}, "c", 0.5),
        ({"n": 4, "c": "${eval:'${n} * 2'}"}, "c", 8),
    ],
)
def test_interpolations_are_resolved(tree, place, value):
    found, unknown = resolved(tree)
    for name in place.split("."):
        found = found[name]
    assert (found, unknown) == (value, ())


@pytest.mark.parametrize("text", ["${hydra:runtime.cwd}", "${oc.env:SECRET}", "${nowhere}", "${c}", "${", "${${}}"])
def test_what_cannot_be_resolved_is_left_out_and_named(text):
    found, unknown = resolved({"c": text})
    assert found == ({"c": None} if unknown else {"c": text})
    assert bool(unknown) == ("${" in text)


def test_a_rate_that_stands_elsewhere_is_said_to_stand_elsewhere(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("model_name: Qwen/Qwen3-4B\ntrain: {lr: '${sweep:lr}', batch_size: 8, epochs: 2}\n")
    review = review_config(path)
    assert any("${sweep:lr}" in note for note in review.notes)
    assert any("no learning rate is stated" in remark.text for remark in review.remarks)


def test_a_notebook_is_read_by_its_code_and_by_its_commands(tmp_path):
    code = ["%pip install trl\n", "from trl import SFTConfig\n", "args = SFTConfig(learning_rate=1e-3, max_steps=70)\n"]
    path = tmp_path / "a.ipynb"
    path.write_text(
        json.dumps({"cells": [{"cell_type": "code", "source": code}, {"cell_type": "markdown", "source": ["lr"]}]})
    )
    found = read_config(path)
    assert (found.framework, found.optimization.learning_rate, found.length.max_steps) == ("trl", 1e-3, 70)
    shell = ["!python train.py --learning_rate 1e-4 --num_train_epochs 2 --output_dir o"]
    path.write_text(json.dumps({"cells": [{"cell_type": "code", "source": shell}]}))
    assert read_config(path).length.num_epochs == 2


def test_a_script_hands_a_config_on(tmp_path):
    (tmp_path / "c.yaml").write_text("base_model: Qwen/Qwen3-4B\nadapter: lora\nlearning_rate: 0.0001\nnum_epochs: 2\n")
    script = tmp_path / "run.sh"
    script.write_text("axolotl train c.yaml --num-epochs 5\n")
    found = read_config(script)
    assert (found.framework, found.optimization.learning_rate, found.length.num_epochs) == ("axolotl", 1e-4, 5)
    script.write_text("llamafactory-cli train elsewhere.yaml\n")
    with pytest.raises(BadInput, match="review that file"):
        read_config(script)


def test_batch_files_of_windows(tmp_path):
    path = tmp_path / "run.bat"
    path.write_text("@echo off\nset LR=2e-3\npython train.py ^\n  --learning_rate %LR% ^\n  --num_train_epochs 3\n")
    assert read_config(path).optimization.learning_rate == 2e-3


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("compose.yaml", "services:\n  web:\n    image: nginx\n    ports: ['80:80']\n"),
        ("package.json", '{"name": "x", "version": "1.0", "scripts": {"build": "tsc"}}'),
        ("setup.py", "from setuptools import setup\nsetup(name='x')\n"),
        ("install.sh", "pip install torch\nmkdir -p out\n"),
        ("pyproject.toml", "[project]\nname = 'x'\n"),
    ],
)
def test_what_is_no_training_config_is_refused_in_words(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(BadInput, match="training"):
        review_config(path)


def test_the_card_decides_memory_and_not_the_rate(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text(
        "model_name_or_path: Qwen/Qwen2.5-7B\nstage: sft\nfinetuning_type: full\ncutoff_len: 2048\nlearning_rate: 1.0e-5\n"
        "per_device_train_batch_size: 1\ngradient_accumulation_steps: 8\ngradient_checkpointing: true\n"
    )
    small, large = review_config(path, hardware="24GB"), review_config(path, hardware="8xh100")
    assert next(r for r in small.remarks if r.topic == "memory").verdict == "change"
    assert next(r for r in large.remarks if r.topic == "effective_batch_size").text.startswith("effective batch 64")
    path.write_text(path.read_text() + "deepspeed: ds_z3.json\n")
    sharded = review_config(path, hardware="8xh100")
    assert next(r for r in sharded.remarks if r.topic == "memory").verdict == "fine"


@pytest.mark.parametrize(("flavor", "model"), [('flavor = "1B"', "llama3-1B"), ("", "llama3")])
def test_the_flavor_of_torchtitan_is_the_size_of_its_model(flavor, model, tmp_path):
    path = tmp_path / "train.toml"
    path.write_text(
        f'[model]\nname = "llama3"\n{flavor}\n[optimizer]\nlr = 3e-5\n[training]\nlocal_batch_size = 2\nsteps = 900\n[job]\nx = 1\n'
    )
    assert read_config(path).model == model


LEAVES = sorted({name for names in NAMES.values() for name in names if name.isidentifier()})
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 10**6),
    st.floats(),
    st.text(max_size=8),
    st.lists(st.integers(0, 9), max_size=3),
)
TREES = st.recursive(
    st.dictionaries(st.sampled_from([*LEAVES, "lora", "train", "model", "optimizer"]), VALUES, max_size=6),
    lambda inner: st.dictionaries(
        st.sampled_from(["train", "model", "optimizer", "data", "lora", "training"]), inner, max_size=4
    ),
    max_leaves=4,
)


@given(tree=TREES, kind=st.sampled_from(["yaml", "toml", "shell"]))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_values_bring_it_down(tree, kind):
    try:
        found = config_of(Source(kind=kind, tree=tree), Path("a.yaml"))
    except BadInput:
        return
    assert found.framework


def test_a_part_of_a_pass_is_a_word_and_no_error(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text(
        "model_name_or_path: Qwen/Qwen2.5-3B\nnum_train_epochs: 0.3\nlearning_rate: 1.0e-4\noutput_dir: o\n"
    )
    verdicts = {remark.topic: remark.verdict for remark in review_config(path).remarks}
    assert verdicts["num_epochs"] == "consider"


@pytest.mark.parametrize("config", CONFIGS[::3], ids=lambda config: config.file)
def test_a_file_that_is_cut_off_is_read_or_refused(tmp_path, config):
    path = tmp_path / config.file
    for share in (0.25, 0.5, 0.75, 0.9):
        path.write_text(config.text[: int(share * len(config.text))])
        with contextlib.suppress(BadInput):
            assert review_config(path).remarks
