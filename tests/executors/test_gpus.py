"""Several GPUs in one machine: each worker sees its own, and the trials are shared between them."""

from __future__ import annotations

import pytest

from finestep.errors import BadInput
from finestep.executors.local import LocalExecutor
from finestep.protocol import SessionRequest, TrialRequest
from finestep.recipe import Recipe
from finestep.studies.run import gpu_groups
from finestep.study import DataSpec, ModelSpec

STAND_IN = """
import json, os, sys, time
number = json.load(open(sys.argv[1]))["worker"]
print(json.dumps({"kind": "ready"}), flush=True)
for line in sys.stdin:
    request = json.loads(line)
    if request["kind"] != "trial":
        break
    time.sleep(0.3)
    seen = {"gpus": os.environ.get("CUDA_VISIBLE_DEVICES"), "worker": number}
    print(json.dumps({"kind": "finished", "trial": request["number"], "data": seen}), flush=True)
"""
"""A worker that tells which GPUs it was given."""


def _session(tmp_path, devices=1, device="cuda"):
    return SessionRequest(
        model=ModelSpec(path="m", device=device),
        data=DataSpec(path="d"),
        recipe=Recipe(num_devices=devices),
        study_dir=str(tmp_path),
    )


def test_each_worker_sees_its_own_gpus_and_all_train(tmp_path, monkeypatch):
    (tmp_path / "stand_in_worker.py").write_text(STAND_IN)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    executor = LocalExecutor(
        _session(tmp_path), folder=tmp_path, devices=["0,1", "2,3", "6,7"], module="stand_in_worker"
    )
    assert executor.start().sharing.at_once == 3
    for number in range(3):
        executor.submit(TrialRequest(number=number, recipe=Recipe(), folder=str(tmp_path / f"{number}")))
    seen = {event.trial: event.data for event in executor.events() if event.kind == "finished"}
    executor.close()
    assert sorted(one["gpus"] for one in seen.values()) == ["0,1", "2,3", "6,7"]
    assert {one["worker"] for one in seen.values()} == {1, 2, 3}


@pytest.mark.parametrize(
    ("visible", "each", "groups"),
    [
        ("0,1,2,3", 1, ["0", "1", "2", "3"]),
        ("0,1,2,3", 2, ["0,1", "2,3"]),
        ("4,5,6", 2, ["4,5"]),
        ("GPU-a,GPU-b", 2, ["GPU-a,GPU-b"]),
        ("3", 1, []),
        ("", 1, []),
    ],
)
def test_the_gpus_that_may_be_seen_are_dealt_out_whole(tmp_path, monkeypatch, visible, each, groups):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpu_groups(_session(tmp_path, each)) == groups


def test_a_trial_on_more_gpus_than_there_are_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    with pytest.raises(BadInput, match="4 of 2"):
        gpu_groups(_session(tmp_path, 4))


def test_on_a_cpu_nothing_is_dealt_out(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert gpu_groups(_session(tmp_path, device="cpu")) == []
