"""Configs, headers and tables that are changed at random, and the cases that once ended in a traceback: all end in words."""

from __future__ import annotations

import json
import random
import struct
from pathlib import Path

import pytest

from finestep.errors import FinestepError
from finestep.flows.recommend import recommend
from finestep.flows.review import review_config
from finestep.study import DataSpec
from finestep.survey.data_sample import data_facts
from finestep.survey.split import split_data

FOUND = Path(__file__).parent / "found"
VALUES = [
    None,
    True,
    0,
    -1,
    10**30,
    1.5,
    float("nan"),
    float("inf"),
    "",
    "auto",
    "x" * 3000,
    [],
    {},
    ["a", 1],
    {"a": 1},
    "\ud800",
]
VALUES += ["\0", "[/x]", [[["a"]]], [None], -1e-5, "1e5", {"type": "AdamW"}, "AdamW", 2**63]
NUMBER = 200
FOREIGN = [
    {
        "model_name_or_path": "Qwen/Qwen2.5-7B",
        "finetuning_type": "lora",
        "lora_rank": 8,
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": 8,
        "learning_rate": 1e-4,
        "num_train_epochs": 3.0,
        "warmup_ratio": 0.1,
        "cutoff_len": 2048,
    },
    {
        "train_micro_batch_size_per_gpu": 2,
        "gradient_accumulation_steps": 4,
        "optimizer": {"type": "AdamW", "params": {"lr": 1e-5, "betas": [0.9, 0.95]}},
        "scheduler": {"type": "WarmupLR", "params": {"warmup_num_steps": 10}},
    },
    {
        "model": {"_component_": "torchtune.models.llama3.lora_llama3_8b", "lora_rank": 8},
        "optimizer": {"_component_": "torch.optim.AdamW", "lr": 3e-4},
        "batch_size": 2,
        "epochs": 1,
    },
    {
        "base_model": "a/b-1B",
        "adapter": "lora",
        "lora_r": 16,
        "micro_batch_size": 2,
        "num_epochs": 1,
        "learning_rate": 2e-4,
    },
]


def changed(tree, chance):
    """The tree with a few of its values replaced or left out, and now and then nested deeply."""
    tree = json.loads(json.dumps(tree))
    spots = []

    def walk(node):
        for key, value in (
            list(node.items()) if isinstance(node, dict) else list(enumerate(node)) if isinstance(node, list) else ()
        ):
            spots.append((node, key))
            walk(value)

    walk(tree)
    for _ in range(chance.choice([1, 1, 2, 4])):
        node, key = chance.choice(spots)
        if isinstance(node, dict) and chance.random() < 0.2:
            node.pop(key, None)
        elif isinstance(node, dict) or key < len(node):
            node[key] = chance.choice(VALUES)
    return tree


def torn(data, chance):
    """The bytes with a few flipped, left out or doubled."""
    data = bytearray(data)
    for _ in range(chance.choice([1, 2, 6])):
        at = chance.randrange(len(data))
        act = chance.randrange(3)
        if act == 0:
            data[at] ^= 1 << chance.randrange(8)
        elif act == 1:
            del data[at : at + chance.choice([1, 8, 64])]
        else:
            data[at:at] = data[at : at + 16]
        if not data:
            return b""
    return bytes(data)


def ends_in_words(act):
    """It answers, or refuses in a sentence; anything else is raised."""
    try:
        act()
    except FinestepError as error:
        return bool(str(error).strip())
    return True


def test_configs_of_other_tools(tmp_path):
    chance, path = random.Random(1), tmp_path / "case.json"
    for _ in range(NUMBER):
        text = json.dumps(changed(chance.choice(FOREIGN), chance)).encode()
        path.write_bytes(text if chance.random() < 0.7 else torn(text, chance))
        assert ends_in_words(lambda: review_config(path, params="7B"))


def test_configs_of_models(tmp_path, shipped_model):
    chance = random.Random(2)
    whole = json.loads((shipped_model / "config.json").read_text())
    experts = {**whole, "num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 64, "head_dim": 16}
    header = {"w": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, "__metadata__": {"a": "b"}}
    for _ in range(NUMBER):
        (tmp_path / "config.json").write_text(json.dumps(changed(chance.choice([whole, experts]), chance)))
        text = json.dumps(changed(header, chance)).encode()
        (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + b"\0" * 24)
        assert ends_in_words(lambda: recommend(str(tmp_path), None, method="lora"))


def test_tables_and_conversations(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    chance, rows = random.Random(3), [{"prompt": f"say {n}", "completion": str(n)} for n in range(40)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "whole.parquet")
    whole = (tmp_path / "whole.parquet").read_bytes()
    turns = [
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "history": [["q", "a"]]}
    ] * 20
    for number in range(NUMBER):
        if number % 2:
            path = tmp_path / "case.parquet"
            path.write_bytes(torn(whole, chance))
        else:
            path = tmp_path / "case.jsonl"
            path.write_text("".join(json.dumps(row) + "\n" for row in changed(turns, chance) if row is not None))

        def read(path=path):
            data_facts(DataSpec(path=str(path)))
            split_data(DataSpec(path=str(path)))

        assert ends_in_words(read)


@pytest.mark.parametrize("path", sorted((FOUND / "from").iterdir()), ids=lambda path: path.name)
def test_found_configs_of_other_tools(path, shipped_model):
    assert ends_in_words(lambda: review_config(path, model=str(shipped_model)))


@pytest.mark.parametrize("path", sorted((FOUND / "config").iterdir()), ids=lambda path: path.name)
def test_found_configs_of_models(path, tmp_path):
    (tmp_path / "config.json").write_bytes(path.read_bytes())
    for method in ("lora", "full"):
        assert ends_in_words(lambda method=method: recommend(str(tmp_path), None, method=method))


@pytest.mark.parametrize("path", sorted((FOUND / "data").iterdir()), ids=lambda path: path.name)
def test_found_data(path):
    for layout in (None, "messages", "sharegpt"):
        assert ends_in_words(lambda layout=layout: split_data(DataSpec(path=str(path), format=layout)))


@pytest.mark.parametrize("path", sorted((FOUND / "log").iterdir()), ids=lambda path: path.name)
def test_found_logs(path, monkeypatch, capsys):
    from finestep.cli.main import main

    for more in ([], ["--json"]):
        capsys.readouterr()
        monkeypatch.setattr("sys.argv", ["finestep", "diagnose", str(path), *more])
        assert main() in (None, 0, 2)
    json.loads(capsys.readouterr().out, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))


@pytest.mark.parametrize("name", ["config.json", "rows.jsonl", "run.yaml", "log.jsonl", "recipe.yaml", "study.json"])
def test_a_pipe_is_refused_and_never_waited_for(name, tmp_path, monkeypatch, capsys):
    import os

    from finestep.cli.main import main

    os.mkfifo(tmp_path / name)
    commands = {
        "config.json": ["recommend", tmp_path],
        "rows.jsonl": ["recommend", "shipped", tmp_path / name],
        "run.yaml": ["recommend", "--from", tmp_path / name],
        "log.jsonl": ["diagnose", tmp_path / name],
        "recipe.yaml": ["export", tmp_path / name, "--to", "trl"],
        "study.json": ["report", tmp_path],
    }
    monkeypatch.setattr("sys.argv", ["finestep", *map(str, commands[name])])
    assert main() == 2
    assert "Traceback" not in capsys.readouterr().err
