"""The side of a cluster that runs on a node, without Ray: what it keeps until it is acknowledged, and the files that it sends."""

from __future__ import annotations

import os
import time

import pytest
from filelock import FileLock

from finestep.cluster.node import NodeWorker, remove_orphans
from finestep.protocol import Event, SessionRequest, TrialRequest
from finestep.ready import Ready
from finestep.recipe import Recipe
from finestep.study import DataSpec, ModelSpec

RECIPE = Recipe(learning_rate=1e-3, effective_batch_size=16, num_epochs=0.5)


@pytest.fixture
def node(shipped_model, instruct_file, tmp_path):
    made = NodeWorker("study", 10**9)
    session = SessionRequest(
        model=ModelSpec(path=str(shipped_model), device="cpu"),
        data=DataSpec(path=str(instruct_file), max_length=96),
        recipe=RECIPE,
        study_dir=str(tmp_path),
        num_threads=1,
        pack=1,
    )
    files = {"path": {instruct_file.name: instruct_file.read_bytes()}}
    told, plan = made.start(session.model_dump_json(), files, None)
    assert Event.model_validate_json(told).kind == "ready"
    assert Ready.model_validate(Event.model_validate_json(told).data).card.facts.num_rows
    assert plan is not None
    yield made
    made.end()


def test_events_are_told_until_they_are_acknowledged_and_the_model_comes_with_the_end(node, tmp_path):
    node.submit(TrialRequest(number=0, recipe=RECIPE, folder=str(tmp_path / "0")).model_dump_json(), {})
    heard, files = {}, {}
    after = 0
    while not any(event.kind == "finished" for event in heard.values()):
        first = node.poll(after, 1.0)
        again = node.poll(after, 0.0)
        assert again[: len(first)] == first, "an answer that was lost is given again"
        for number, text, cargo in first:
            heard[number], files = Event.model_validate_json(text), cargo or files
            after = number
    assert sorted(heard) == list(range(1, len(heard) + 1)), "numbered without a gap"
    assert {"model/manifest.json", "check_rows.json"} <= files.keys()
    assert node.poll(after, 0.0) == []
    assert not (tmp_path / "0").exists(), "nothing is written where the study is"


def test_what_a_killed_actor_left_on_a_node_is_taken_away_and_what_is_in_use_is_not(tmp_path):
    held = {}
    for name, age_s in (("dead", 3600), ("living", 3600), ("new", 0)):
        folder = tmp_path / f"finestep-node-{name}"
        (folder / "study").mkdir(parents=True)
        held[name] = FileLock(folder / "held.lock")
        held[name].acquire()
        os.utime(folder / "held.lock", (time.time() - age_s,) * 2)
    held["dead"].release()
    held["new"].release()
    remove_orphans(tmp_path)
    assert {one.name for one in tmp_path.iterdir()} == {"finestep-node-living", "finestep-node-new"}


def test_steps_gather_for_one_answer_and_what_presses_is_told_at_once():
    node = NodeWorker("study", 10**9)
    try:
        for step in (1, 2):
            node._keep(Event(kind="step", trial=0, data={"step": step}))
        began = time.monotonic()
        assert len(node.poll(0, 5.0, 0.5)) == 2
        assert time.monotonic() - began >= 0.5
        node._keep(Event(kind="note", trial=0, data={"text": "said"}))
        began = time.monotonic()
        assert len(node.poll(0, 60.0, 60.0)) == 3
        assert time.monotonic() - began < 30
    finally:
        node.end()
