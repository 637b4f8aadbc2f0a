"""What becomes of trials whose node or worker is lost; Ray's handles are stood in for, all else is ours."""

from __future__ import annotations

import json
import socket
from types import SimpleNamespace

import pytest

from finestep.cluster import places
from finestep.cluster.address import parse_cluster
from finestep.cluster.places import Place
from finestep.cluster.trials import MOST_DEATHS, Member, Trials
from finestep.errors import BadInput, EnvironmentFault
from finestep.protocol import Event, TrialRequest
from finestep.ready import Ready, SharePlan
from finestep.recipe import Recipe
from finestep.trial import Outcome


class Handle:
    """An actor: it keeps what it was asked."""

    def __init__(self):
        self.calls = []

    def __getattr__(self, name):
        return SimpleNamespace(remote=lambda *arguments: self.calls.append((name, *arguments)))

    def numbers(self):
        return [json.loads(call[1])["number"] for call in self.calls if call[0] == "submit"]


class Said:
    """The way to the controller."""

    def __init__(self):
        self.events = []

    def send(self, kind, data=None, *, trial=None):
        values = data.model_dump() if hasattr(data, "model_dump") else dict(data or {})
        self.events.append(Event(kind=kind, trial=trial, data=values))

    def kinds(self, trial):
        return [event.kind for event in self.events if event.trial == trial]


def _member(name, *, lanes=1):
    ready = Ready(sharing=SharePlan(num_lanes=lanes))
    return Member(Place(name, name, 0, 0, 1), Handle(), "poll", None, ready=ready)


def _trials(tmp_path, count):
    said = Said()
    trials = Trials(said, get=bytes)
    for number in range(count):
        trials.submit(TrialRequest(number=number, recipe=Recipe(), folder=str(tmp_path / f"{number}")))
    return trials, said


def test_trials_go_where_there_is_room_and_the_rest_waits(tmp_path):
    trials, _ = _trials(tmp_path, 4)
    one, two = _member("one", lanes=2), _member("two")
    trials.hand_out([one, two])
    assert sorted([*one.open, *two.open]) == [0, 1, 2]
    assert [request.number for request in trials.waiting] == [3]


def test_the_loss_of_a_node_takes_its_trials_elsewhere_and_no_other_notices(tmp_path):
    trials, said = _trials(tmp_path, 2)
    one, two = _member("one"), _member("two", lanes=2)
    trials.hand_out([one])
    trials.hand_out([two])
    trials.lost(one, "its node is gone")
    trials.hand_out([two])
    assert two.actor.numbers() == [1, 0]
    assert said.kinds(0) == ["note"]
    assert said.kinds(1) == []


def test_a_lost_node_is_never_held_against_a_trial(tmp_path):
    trials, said = _trials(tmp_path, 1)
    for number in range(MOST_DEATHS + 2):
        node = _member(f"{number}")
        trials.hand_out([node])
        trials.lost(node, "its node is gone")
    assert "finished" not in said.kinds(0)
    assert len(trials.waiting) == 1


def test_a_trial_with_which_workers_die_gets_a_node_of_its_own_and_then_fails(tmp_path):
    trials, said = _trials(tmp_path, 3)
    node = _member("one", lanes=3)
    trials.hand_out([node])
    trials.worker_died(node, "killed by signal 9")
    trials.hand_out([node])
    assert sorted(node.open) == [0, 1, 2]
    trials.worker_died(node, "killed by signal 9")
    trials.hand_out([node])
    assert len(node.open) == 1, "each is alone now"
    (suspect,) = node.open
    trials.worker_died(node, "killed by signal 9")
    assert said.kinds(suspect)[-1] == "finished"
    outcome = Outcome.model_validate_json((tmp_path / f"{suspect}" / "outcome.json").read_text())
    assert (outcome.state, "killed by signal 9" in outcome.reason) == ("failed", True)


def test_new_steps_clear_a_trial_of_suspicion(tmp_path):
    trials, said = _trials(tmp_path, 1)
    node = _member("one")
    for step in range(1, 2 * MOST_DEATHS):
        trials.hand_out([node])
        trials.take_up(node, Event(kind="step", trial=0, data={"step": step}), {})
        trials.write_steps()
        trials.worker_died(node, "killed")
    assert "finished" not in said.kinds(0)


@pytest.mark.parametrize("tells_all", [True, False])
def test_every_step_is_written_down_in_its_place_also_where_only_the_newest_is_told(tmp_path, tells_all):
    trials, said = _trials(tmp_path, 1)
    trials.tells_every_step = tells_all
    node = _member("one")
    trials.hand_out([node])
    for step in (1, 2, 3):
        trials.take_up(node, Event(kind="step", trial=0, data={"step": step}), {})
    trials.take_up(node, Event(kind="evaluation", trial=0, data={"step": 3}), {})
    trials.take_up(node, Event(kind="step", trial=0, data={"step": 4}), {})
    trials.lost(node, "its node is gone")
    written = [json.loads(line)["step"] for line in (tmp_path / "0" / "steps.jsonl").read_text().splitlines()]
    assert written == [1, 2, 3, 4]
    assert [event.data["step"] for event in said.events if event.kind == "step"] == (
        [1, 2, 3, 4] if tells_all else [3, 4]
    )
    assert said.kinds(0)[-3:] == ["evaluation", "step", "note"]


def test_after_a_stop_what_waits_is_given_back(tmp_path):
    trials, said = _trials(tmp_path, 1)
    trials.stop()
    trials.submit(TrialRequest(number=7, recipe=Recipe(), folder=str(tmp_path / "7")))
    assert said.kinds(0) == ["interrupted"]
    assert said.kinds(7) == ["interrupted"]


@pytest.mark.parametrize("text", ["local", "ray://", "ray://host", "ray://host:port", "http://host:1"])
def test_an_address_that_is_none_is_refused(text):
    with pytest.raises(BadInput, match="ray://auto"):
        parse_cluster(text, workers=None)


def test_an_address_where_nothing_answers_is_wrong_at_first_and_a_lost_cluster_later(monkeypatch):
    """A study that has trained there pauses with exit code 75; a new one is told to look at the address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setattr(places, "REACHABLE_S", 0.0)
    with pytest.raises(BadInput, match="nothing answers"):
        places._check_reachable(address, was_there=False)
    with pytest.raises(EnvironmentFault, match="the same command goes on") as lost:
        places._check_reachable(address, was_there=True)
    assert lost.value.exit_code == 75
