"""One suite for every executor: the worker process and its replay twin speak alike."""

from __future__ import annotations

import pytest

from finestep.executors.local import LocalExecutor
from finestep.executors.replay import ReplayExecutor
from finestep.protocol import SessionRequest, TrialRequest
from finestep.recipe import Recipe
from finestep.study import DataSpec, ModelSpec
from finestep.trial import Outcome, StepRecord

RECIPE = Recipe(learning_rate=1e-3, effective_batch_size=16, num_epochs=0.5)


@pytest.fixture(params=["local", "replay"])
def executor(request, shipped_model, instruct_file, tmp_path):
    if request.param == "replay":
        yield ReplayExecutor(lambda recipe, fidelity: [2.0, 1.5, 1.0], num_train_rows=90)
        return
    session = SessionRequest(
        model=ModelSpec(path=str(shipped_model), device="cpu"),
        recipe=RECIPE,
        study_dir=str(tmp_path),
        num_threads=1,
        data=DataSpec(path=str(instruct_file), max_length=96),
    )
    local = LocalExecutor(session, folder=tmp_path)
    yield local
    local.close()


def _run(executor, *requests):
    for request in requests:
        executor.submit(request)
    return executor.events()


def _request(folder, number=0):
    return TrialRequest(number=number, recipe=RECIPE, folder=str(folder / f"{number}"))


def test_every_trial_comes_to_its_end(executor, tmp_path):
    assert executor.start().card is not None
    events = list(_run(executor, _request(tmp_path, 0), _request(tmp_path, 1)))
    assert sorted(event.trial for event in events if event.kind == "finished") == [0, 1]
    for number in (0, 1):
        mine = [event for event in events if event.trial == number]
        assert mine[0].kind in {"started", "note"}
        assert mine[-1].kind == "finished"
        steps = [StepRecord.model_validate(event.data) for event in mine if event.kind == "step"]
        assert [step.step for step in steps] == sorted({step.step for step in steps})
        outcome = Outcome.model_validate(mine[-1].data)
        assert outcome.state == "completed"
        assert outcome.eval_loss is not None
        written = Outcome.model_validate_json((tmp_path / f"{number}" / "outcome.json").read_text())
        assert written == outcome


def test_a_stop_interrupts(executor, tmp_path):
    executor.start()
    if isinstance(executor, LocalExecutor):
        events = []
        for event in _run(executor, _request(tmp_path)):
            events.append(event)
            if event.kind == "step" and event.data["step"] == 1:
                executor.stop()
        assert events[-1].kind == "interrupted"
        assert any(event.kind == "checkpoint" for event in events)
    else:
        executor.stop()
        assert [event.kind for event in _run(executor, _request(tmp_path))] == ["interrupted"]


def test_a_dead_worker_is_an_event_and_another_takes_over(shipped_model, instruct_file, tmp_path):
    session = SessionRequest(
        model=ModelSpec(path=str(shipped_model), device="cpu"),
        recipe=RECIPE,
        study_dir=str(tmp_path),
        num_threads=1,
        data=DataSpec(path=str(instruct_file), max_length=96),
    )
    executor = LocalExecutor(session, folder=tmp_path)
    executor.start()
    kinds = []
    for event in _run(executor, _request(tmp_path)):
        kinds.append(event.kind)
        if event.kind == "step":
            executor.kill()
    assert kinds[-1] == "died"
    executor.start()
    assert list(_run(executor, _request(tmp_path)))[-1].kind == "finished"
    executor.close()
