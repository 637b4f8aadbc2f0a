"""A trial on several devices is the trial on one: losses, validation, and a checkpoint of one number of devices on another."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from finestep.recipe import Recipe
from finestep.train.devices import ALONE, Found
from finestep.train.order import Order
from tests.train.on_devices import run

ROOT = Path(__file__).parent.parent.parent
KINDS = ("lora", "pack", "full")


def run_on(world, cases, *, model, data, folder):
    """What the cases give on so many processes."""
    folder.mkdir(parents=True, exist_ok=True)
    job = {"model": str(model), "data": str(data), "cases": cases, "out": str(folder / "out.json")}
    (folder / "job.json").write_text(json.dumps(job))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    names = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.train.on_devices", str(folder / "job.json")],
            cwd=ROOT,
            env={**os.environ, **names, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(world)
    ]
    try:
        assert [process.wait(timeout=500) for process in processes] == [0] * world
    finally:
        for process in processes:
            process.kill()
    return json.loads((folder / "out.json").read_text())


def _cases(folder, *, stop_after=None, kinds=KINDS):
    return [
        {
            "name": f"{kind} {words}",
            "kind": kind,
            "sharded": words == "sharded",
            "stop_after": stop_after,
            "folder": str(folder / kind / words),
        }
        for words in ("replicated", "sharded")
        for kind in kinds
    ]


@pytest.fixture(scope="module")
def small_model(shipped_model, tmp_path_factory):
    """A model of two narrow layers: what is compared does not hang on its size."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("small")
    config = LlamaConfig(
        vocab_size=2560,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        tie_word_embeddings=True,
        pad_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(shipped_model).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def alone(small_model, instruct_file, tmp_path_factory):
    """The same trials on one device, in this process."""
    folder = tmp_path_factory.mktemp("alone")
    cases = [{"name": kind, "kind": kind, "folder": str(folder / kind)} for kind in KINDS]
    return run({"model": str(small_model), "data": str(instruct_file), "cases": cases}, None)


def _compare(found, alone):
    for name, case in found.items():
        kind = name.split()[0]
        for number, one in case["trials"].items():
            expected = alone[kind]["trials"][number]
            first = one["steps"][0] - 1
            assert one["outcome"] == expected["outcome"] == "completed"
            assert one["steps"] == expected["steps"][first:]
            assert one["losses"] == pytest.approx(expected["losses"][first:], rel=1e-5), name
            assert one["norms"] == pytest.approx(expected["norms"][first:], rel=1e-3), name
            count = len(one["evaluations"])
            assert one["evaluations"] == pytest.approx(expected["evaluations"][-count:], rel=1e-6), name
            assert None not in one["updates"]


def test_two_devices_train_what_one_does(alone, small_model, instruct_file, tmp_path):
    """LoRA, four LoRA trials in a pass, and all weights; the base on each device, or in parts. Rows do not divide by devices."""
    found = run_on(2, _cases(tmp_path), model=small_model, data=instruct_file, folder=tmp_path / "job")
    assert len(alone["lora"]["trials"]["0"]["losses"]) >= 30
    _compare(found, alone)
    assert found["full sharded"]["held"] < 0.6 * found["full replicated"]["held"]
    assert found["lora sharded"]["held"] < 0.6 * found["lora replicated"]["held"]


@pytest.mark.long
@pytest.mark.parametrize("world", [3, 4])
def test_three_and_four_devices_train_what_one_does(alone, small_model, instruct_file, tmp_path, world):
    found = run_on(world, _cases(tmp_path), model=small_model, data=instruct_file, folder=tmp_path / "job")
    assert len(found) == 2 * len(KINDS)
    _compare(found, alone)


@pytest.fixture(scope="module", params=[1, 2, 4])
def stopped(request, small_model, instruct_file, tmp_path_factory):
    """Trials that were stopped after some steps on so many devices."""
    folder = tmp_path_factory.mktemp(f"stopped-{request.param}")
    place = {"model": small_model, "data": instruct_file, "folder": folder / "job"}
    first = run_on(request.param, _cases(folder / "trials", stop_after=11), **place)
    assert all(one["outcome"] is None for case in first.values() for one in case["trials"].values())
    return folder / "trials"


@pytest.mark.long
@pytest.mark.parametrize("goes_on", [1, 2, 4])
def test_a_checkpoint_of_any_number_of_devices_goes_on_with_any_other(
    alone, small_model, instruct_file, tmp_path, stopped, goes_on
):
    shutil.copytree(stopped, tmp_path / "trials")
    place = {"model": small_model, "data": instruct_file, "folder": tmp_path / "job"}
    second = run_on(goes_on, _cases(tmp_path / "trials"), **place)
    assert all(one["from_step"] for case in second.values() for one in case["trials"].values())
    _compare(second, alone)


def test_the_rows_of_a_step_do_not_depend_on_how_many_devices_share_it(tmp_path):
    """Each row of a step goes to exactly one device."""

    class One:
        rank, world, is_sharded = 0, 3, False

        def mine(self, rows):
            return rows[self.rank :: self.world]

    from finestep.train.current_step import CurrentStep

    class Rows:
        def num_loss_units(self, rows):
            return len(rows)

    order = Order(np.arange(10, 50), Recipe(effective_batch_size=16))
    dealt, units = [], set()
    for rank in range(3):
        device = One()
        device.rank = rank
        step = CurrentStep(Rows(), order, devices=device)
        mine = []
        while True:
            mine += step.next_rows(1, micro_batch_size=2, window=None).tolist()
            units.add(step.num_units)
            if step.add():
                break
        dealt += mine
    assert sorted(dealt) == sorted(order.rows_of_step(1).tolist())
    assert units == {16}


def test_one_device_waits_for_nobody():
    assert ALONE.meet(Found.SHORT) is Found.SHORT
    assert ALONE.mine(np.arange(3)).tolist() == [0, 1, 2]
