"""Two workers of one study: each trial is what it would be alone, and the death or the stop of one loses nothing."""

from __future__ import annotations

import json

import psutil
import pytest

from finestep.executors.local import LocalExecutor
from finestep.protocol import SessionRequest, TrialRequest
from finestep.recipe import Recipe
from finestep.study import DataSpec, ModelSpec
from finestep.trial import Outcome

RATES = (1e-3, 3e-3)


@pytest.fixture
def session(shipped_model, instruct_file, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    return SessionRequest(
        model=ModelSpec(path=str(shipped_model), device="cpu"),
        data=DataSpec(path=str(instruct_file), max_length=96),
        recipe=_recipe(RATES[0]),
        study_dir=str(tmp_path),
    )


@pytest.fixture
def executor(session, tmp_path):
    """An executor of a study for which two workers of one thread each were found to pay."""
    executor = LocalExecutor(session, folder=tmp_path, starts_ahead=True)
    ready = executor.start()
    executor.close()
    assert ready.sharing.num_threads in (1, 2)
    _settle(tmp_path, num_workers=2)
    assert executor.start().sharing.at_once == 2
    yield executor
    executor.close()


def _settle(folder, *, num_workers):
    """Write over the kept plan what its timings decided, which differs from one start to the next on a busy machine."""
    place = folder / "packing.json"
    known = json.loads(place.read_text())
    known["plan"] |= {"num_lanes": 1, "rows": None, "num_threads": 1, "num_workers": num_workers, "end_to_end": False}
    place.write_text(json.dumps(known))


def _recipe(rate):
    return Recipe(learning_rate=rate, effective_batch_size=4, num_epochs=2)


def _requests(folder):
    return [
        TrialRequest(number=number, recipe=_recipe(rate), folder=str(folder / f"{number}"), checkpoint_every_s=0.2)
        for number, rate in enumerate(RATES)
    ]


def _losses(events):
    return {event.trial: Outcome.model_validate(event.data).eval_loss for event in events if event.kind == "finished"}


@pytest.fixture(scope="module")
def alone(shipped_model, instruct_file, tmp_path_factory):
    """Losses of the same trials, one after the other on one thread."""
    folder = tmp_path_factory.mktemp("alone")
    session = SessionRequest(
        model=ModelSpec(path=str(shipped_model), device="cpu"),
        data=DataSpec(path=str(instruct_file), max_length=96),
        recipe=_recipe(RATES[0]),
        study_dir=str(folder),
        num_threads=1,
        pack=1,
    )
    executor = LocalExecutor(session, folder=folder)
    executor.start()
    executor.close()
    _settle(folder, num_workers=1)
    executor.start()
    for request in _requests(folder):
        executor.submit(request)
    losses = _losses(list(executor.events()))
    executor.close()
    return losses


def _workers():
    return [child for child in psutil.Process().children() if "finestep.worker" in child.cmdline()]


def test_a_death_takes_all_back_to_one_worker_and_loses_nothing(executor, tmp_path, alone):
    for request in _requests(tmp_path):
        executor.submit(request)
    assert len(_workers()) == 2
    kinds: dict[int, list[str]] = {0: [], 1: []}
    events = []
    for event in executor.events():
        events.append(event)
        if event.trial is not None:
            kinds[event.trial].append(event.kind)
        if event.kind == "checkpoint" and event.trial == 1 and kinds[1].count("checkpoint") == 1:
            next(child for child in _workers() if child.cmdline()[-1].endswith("session-2.json")).kill()
    assert events[-1].kind == "died"
    assert "finished" not in kinds[1]
    assert kinds[0][-1] in {"interrupted", "finished"}
    assert not _workers()
    sharing = executor.start().sharing
    assert (sharing.num_workers, sharing.at_once) == (1, 1)
    for request in _requests(tmp_path):
        if "finished" not in kinds[request.number]:
            executor.submit(request)
    again = list(executor.events())
    assert len(_workers()) == 1
    assert any(event.kind == "started" and event.trial == 1 and event.data["from_step"] > 0 for event in again)
    assert _losses([*events, *again]) == alone


def test_a_stop_reaches_both_and_a_start_goes_on(executor, session, tmp_path, alone):
    for request in _requests(tmp_path):
        executor.submit(request)
    events = []
    for event in executor.events():
        events.append(event)
        if event.kind == "step" and event.trial == 1 and event.data["step"] == 2:
            executor.stop()
    ends = {event.trial: event.kind for event in events if event.kind in {"interrupted", "finished", "died"}}
    assert ends[1] == "interrupted"
    assert set(ends) == {0, 1}
    executor.close()
    second = LocalExecutor(session, folder=tmp_path)
    assert second.start().sharing.num_workers == 2
    for request in _requests(tmp_path):
        if ends[request.number] != "finished":
            second.submit(request)
    assert _losses([*events, *second.events()]) == alone
    second.close()
