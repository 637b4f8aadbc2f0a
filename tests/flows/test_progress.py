"""How far a study is, as people are told it: by the steps of what runs, while the search counts whole trials."""

from __future__ import annotations

import json

import pytest

from finestep.cli.status import words_of
from finestep.flows.next_command import with_budget
from finestep.ready import DataCard, Ready, SharePlan
from finestep.store.commands import Command, ask
from finestep.store.running import write_running
from finestep.studies.progress import made_so_far, progress_of
from finestep.studies.spent import study_spent
from finestep.studies.status import study_status
from finestep.study import Budget
from finestep.trial import Cost, Outcome, StepRecord

from .studies import CARD, READY, open_store


def write_steps(store, number: int, steps: int, *, step_s: float = 2.0, num_tokens: int = 100) -> None:
    folder = store.trial_folder(number)
    folder.mkdir(parents=True, exist_ok=True)
    records = [
        StepRecord(
            step=one, loss=2.0, learning_rate=1e-3, grad_norm=1.0, clipped=False, num_tokens=num_tokens,
            num_loss_tokens=num_tokens, elapsed_s=step_s * one,
        )
        for one in range(1, steps + 1)
    ]  # fmt: skip
    (folder / "steps.jsonl").write_text("".join(record.model_dump_json() + "\n" for record in records))


@pytest.fixture
def store(tmp_path):
    """A study of 4000 rows whose full run has 250 steps of 16 rows, with one trial under way."""
    store = open_store(tmp_path / "s")
    store.keep_ready(READY)
    recipe = store.spec.recipe.model_copy(update={"effective_batch_size": 16, "num_epochs": 1.0})
    store.add(recipe, fidelity=1.0, stage="search", why="first")
    yield store
    store.close()


def test_a_trial_counts_by_its_steps_for_people_and_whole_for_the_search(store):
    assert study_status(store.folder).spent == 0
    assert study_status(store.folder).state == "loading"
    write_steps(store, 0, 50)
    write_running(store.folder, command="finestep tune m d --budget 2", budget=Budget(full_runs=2))
    store.keep_ready(READY)
    now = study_status(store.folder)
    assert now.spent == pytest.approx(0.2)
    assert study_spent(store.spec, store.trials(), READY) == 1
    (running,) = now.under_way
    assert (running.step, running.steps_planned) == (50, 250)
    assert running.seconds_left == pytest.approx(400)
    assert now.state == "running"
    assert now.seconds_left == pytest.approx(1.8 * 500)
    (head, line, *_) = words_of(now)
    assert "0.2 of 2 full runs spent; at most about 15 min of training left" in head
    assert "step 50 of 250" in line
    assert "7 min left" in line


def test_what_is_not_known_is_not_said(store):
    tokens = store.spec.recipe.model_copy(update={"num_train_tokens": 1000, "effective_batch_size": 16})
    store.add(tokens, fidelity=1.0, stage="search", why="by tokens")
    write_steps(store, 1, 4)
    progress = progress_of(store, store.trials())
    assert progress.planned_steps(store.trials()[1]) is None
    assert progress.share(store.trials()[1]) == pytest.approx(0.4)
    assert progress.trial_left_s(store.trials()[1]) is None
    assert made_so_far(store.steps(0)).step_s is None
    assert progress.left_s(None) is None


def test_two_workers_need_half_of_the_time(store):
    store.finish(0, Outcome(state="completed", eval_loss=1.0, cost=Cost(num_train_tokens=3000, elapsed_s=100.0)))
    one = progress_of(store, store.trials()).left_s(3.0)
    store.keep_ready(Ready(card=DataCard(facts=CARD.facts), sharing=SharePlan(num_workers=2)))
    assert progress_of(store, store.trials()).left_s(3.0) == pytest.approx(one / 2)
    assert one == pytest.approx(200)
    assert progress_of(store, store.trials()).left_s(1.0) is None, "its end is written, which is no training"


def test_a_study_that_was_stopped_goes_on_by_its_own_command(store):
    write_steps(store, 0, 50)
    write_running(store.folder, command="finestep tune m d --budget 2", budget=Budget(full_runs=2))
    store.close()
    now = study_status(store.folder)
    assert now.state == "stopped"
    assert now.trials == {"stopped (resumes)": 1}
    assert now.next_command == "finestep tune m d --budget 2"
    ask(store.folder, Command(kind="extend", full_runs=3.0))
    now = study_status(store.folder)
    assert now.budget == 3
    assert now.next_command == now.command == "finestep tune m d --budget 3"


def test_a_study_without_a_result_says_why(store):
    store.finish(0, Outcome(state="out_of_memory", reason="not even one row fits"))
    store.close()
    now = study_status(store.folder)
    assert now.state == "ended"
    assert now.reason == "out of memory: not even one row fits"
    assert any("not even one row fits" in line for line in words_of(now))
    assert json.dumps(now.as_values())


def test_a_command_that_takes_no_budget_gets_none():
    assert with_budget("finestep train r.yaml m d", 3) == "finestep train r.yaml m d"
    assert with_budget("finestep tune m d", 3) == "finestep tune m d --budget 3"
