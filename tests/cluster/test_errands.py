"""Calls that a network may lose: made again until they have arrived, and never without end where nothing helps."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from finestep.cluster import errands
from finestep.cluster.errands import Errands


class RayError(Exception):
    pass


class Unavailable(RayError):
    pass


class Cluster:
    """Ray, whose references are functions: what they give is the answer; None has not come."""

    exceptions = SimpleNamespace(RayError=RayError)

    def __init__(self):
        self.ray = self

    def wait(self, references, *, num_returns, timeout):
        there = [one for one in references if one is not None]
        return there, [one for one in references if one is None]

    def get(self, reference):
        return reference()

    def is_blip(self, error):
        return isinstance(error, Unavailable)


def _raises(error):
    def answer():
        raise error

    return answer


@pytest.fixture
def at_once(monkeypatch):
    """No waiting before a call is made again."""
    monkeypatch.setattr(errands, "LATE_S", -1.0)
    monkeypatch.setattr(errands, "AGAIN_S", -1.0)


@pytest.mark.parametrize("lost", [None, _raises(Unavailable())], ids=["no answer", "not reached"])
def test_a_call_that_was_lost_is_made_again_until_it_arrives(at_once, lost):
    answers, calls = [lost, lost, lambda: None], []

    def send():
        calls.append(1)
        return answers[len(calls) - 1]

    mine = Errands()
    mine.do(send)
    assert [mine.look(Cluster()) for _ in range(5)] == [None] * 5
    assert len(calls) == 3, "once it has arrived, it is over"


def test_a_call_is_not_repeated_while_its_answer_may_still_come():
    calls = []
    mine = Errands()
    mine.do(lambda: calls.append(1))
    assert mine.look(Cluster()) is None
    assert len(calls) == 1


def test_an_actor_that_is_gone_is_told(at_once):
    gone = RayError("the actor died")
    mine = Errands()
    mine.do(lambda: _raises(gone))
    assert mine.look(Cluster()) is gone
