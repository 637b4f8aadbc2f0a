"""Every executor keeps the promises of `finestep/executor.py`; the numbers are those of its text."""

from __future__ import annotations

import importlib.util

import pytest

from finestep.ready import Ready
from finestep.trial import Outcome, StepRecord
from tests.executors.conformance import BROKEN, RECIPE, RIGS, ends

ON_RAY = (
    pytest.mark.long,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs finestep[ray]"),
)


@pytest.fixture(params=[pytest.param(name, marks=ON_RAY) if name == "ray" else name for name in sorted(RIGS)])
def rig(request, shipped_model, instruct_file, tmp_path):
    made = RIGS[request.param](tmp_path, shipped_model, instruct_file)
    yield made
    made.executor.close()


def test_every_trial_ends_once_and_its_outcome_is_on_disk_before_it_is_told(rig):
    """1, 2, 3, 6 and 9; the second trial is handed over while events are read."""
    executor, events = rig.executor, []
    assert isinstance(executor.start(), Ready)
    assert executor.start() is None or isinstance(executor.start(), Ready)
    assert list(executor.events()) == [], "nothing was submitted"
    executor.submit(rig.request(0))
    for event in executor.events():
        events.append(event)
        if event.kind == "started" and event.trial == 0:
            executor.submit(rig.request(1))
        if event.kind == "finished":
            written, told = rig.outcome(event.trial), Outcome.model_validate(event.data)
            assert written == told
            assert (told.state, told.recipe_hash is None) == ("completed", False)
            assert told.eval_loss is not None
    assert ends(events) == {0: ["finished"], 1: ["finished"]}
    for number in (0, 1):
        mine = [event for event in events if event.trial == number]
        assert mine[0].kind in {"started", "note"}
        steps = [StepRecord.model_validate(event.data).step for event in mine if event.kind == "step"]
        assert steps == sorted(set(steps))
    executor.close()
    executor.close()


def test_a_failed_trial_is_no_exception_and_the_others_go_on(rig):
    """4."""
    if not rig.can_fail:
        pytest.skip("nothing makes a trial of this rig fail by itself")
    rig.executor.start()
    rig.executor.submit(rig.request(0, BROKEN))
    rig.executor.submit(rig.request(1))
    events = list(rig.executor.events())
    assert ends(events) == {0: ["finished"], 1: ["finished"]}
    assert (rig.outcome(0).state, rig.outcome(1).state) == ("failed", "completed")
    assert rig.outcome(0).reason


def test_after_a_stop_every_trial_is_interrupted_also_a_later_one(rig):
    """8, and 7 where a trial can be stopped within."""
    executor = rig.executor
    executor.start()
    if not rig.stops_within:
        executor.stop()
    executor.submit(rig.request(0))
    events = []
    for event in executor.events():
        events.append(event)
        if event.kind == "step" and event.data["step"] == 1:
            executor.stop()
            executor.stop()
    assert ends(events) == {0: ["interrupted"]}
    if rig.stops_within:
        assert any(event.kind == "checkpoint" for event in events)


def test_a_dead_trainer_is_an_event_and_another_takes_over(shipped_model, instruct_file, tmp_path):
    """5 and 7, where a trainer is a process of its own."""
    rig = RIGS["local"](tmp_path, shipped_model, instruct_file)
    executor, kinds = rig.executor, []
    executor.start()
    executor.submit(rig.request(0, RECIPE))
    for event in executor.events():
        kinds.append(event.kind)
        if event.kind == "step":
            executor.kill()
    assert kinds[-1] == "died"
    executor.start()
    executor.submit(rig.request(0, RECIPE))
    assert list(executor.events())[-1].kind == "finished"
    executor.close()


def test_a_trial_that_is_stopped_by_hand_ends_and_the_others_go_on(rig):
    """10."""
    executor, events = rig.executor, []
    executor.start()
    executor.submit(rig.request(0))
    executor.submit(rig.request(1))
    executor.stop_trial(0)
    events = list(executor.events())
    assert ends(events) == {0: ["finished"], 1: ["finished"]}
    stopped, other = rig.outcome(0), rig.outcome(1)
    assert (stopped.state, stopped.by_hand) == ("stopped", True)
    assert (other.state, other.by_hand) == ("completed", False)


def test_after_a_pause_the_same_trials_come_to_their_end(rig):
    """11."""
    executor = rig.executor
    executor.start()
    for number in (0, 1):
        executor.submit(rig.request(number))
    executor.pause()
    first = ends(list(executor.events()))
    assert set(first) == {0, 1}
    executor.close()
    executor.start()
    for number, ended in first.items():
        if ended == ["interrupted"]:
            executor.submit(rig.request(number))
    second = ends(list(executor.events()))
    assert all(ended == ["finished"] for ended in second.values())
    assert {rig.outcome(number).state for number in (0, 1)} == {"completed"}
