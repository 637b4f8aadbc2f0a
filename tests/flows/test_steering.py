"""Steering a study: what is asked through command files is done between events, once, also when the controller is killed meanwhile."""

from __future__ import annotations

import math
import random
import subprocess
import time
from pathlib import Path

import pytest

from finestep.errors import BadInput
from finestep.executors.replay import ReplayExecutor
from finestep.search.sweep import Sweep
from finestep.store.commands import Command, ask, read_steering, waiting
from finestep.store.study_files import StudyFiles, read_spec
from finestep.studies.steer import steer
from finestep.studies.tuning import Tuning
from finestep.study import Budget

from .studies import CARD, basin, open_store
from .targets import complaints, kill, start

ADD = Command(kind="add", learning_rate=7e-4, effective_batch_size=8, fidelity=0.5)


def play(folder: Path, *, budget: float = 5, on_event=lambda event: None, recording=basin) -> list[str]:
    """Run a study to its end; what was said by the way."""
    store, said = open_store(folder), []
    tuning = Tuning(
        store,
        ReplayExecutor(recording, card=CARD, num_train_rows=4000),
        lambda card: Sweep("lora"),
        Budget(full_runs=budget),
    )
    try:
        for event in tuning.run():
            said += [str(event.data["text"])] if event.kind == "note" else []
            on_event(event)
            tuning.steering._looked = 0.0  # a study of milliseconds would end before the next look
        said.append(event.kind)
    finally:
        store.close()
    return said


def trials(folder: Path):
    return StudyFiles(folder, read_spec(folder)).trials()


def first(kind, number, then):
    """Do something at the first event of a kind of one trial."""
    left = [then]

    def hear(event):
        if event.kind == kind and event.trial is not None and event.trial.number == number and left:
            left.pop()()

    return hear


def test_an_added_trial_is_marked_runs_and_counts(tmp_path):
    folder = tmp_path / "s"
    play(folder, on_event=first("trial_started", 0, lambda: ask(folder, ADD)))
    (mine,) = [trial for trial in trials(folder) if trial.asked_by == "user"]
    assert (mine.state, mine.fidelity, mine.stage) == ("completed", 0.5, "added by hand")
    assert (mine.recipe.learning_rate, mine.recipe.effective_batch_size) == (7e-4, 8)
    assert sum(trial.fidelity for trial in trials(folder)) <= 5
    assert not waiting(folder)


def test_a_stopped_study_obeys_at_its_next_start(tmp_path):
    folder = tmp_path / "s"
    play(folder, budget=2)
    before = len(trials(folder))
    assert steer(folder, {"kind": "add", "learning_rate": 7e-4})["done"] is False
    assert "next start" in steer(folder, {"kind": "extend", "full_runs": 5.0})["said"]
    play(folder, budget=2)
    found = trials(folder)
    assert found[before].asked_by == "user"
    assert len(found) == 5
    play(folder, budget=2)
    assert len(trials(folder)) == 5, "the larger budget stays, and is not spent again"


def test_a_budget_is_never_said_to_be_smaller_than_it_is(tmp_path):
    folder = tmp_path / "s"
    smaller = Command(kind="extend", full_runs=3.0)
    said = play(folder, budget=4, on_event=first("trial_started", 1, lambda: ask(folder, smaller)))
    assert "refused: the budget is 4 full runs already, and can only be made larger" in said
    assert len(trials(folder)) == 4
    assert read_steering(folder).full_runs is None


def test_a_trial_that_is_stopped_by_hand_ends_with_what_it_showed(tmp_path):
    folder = tmp_path / "s"
    said = play(folder, on_event=first("evaluation", 2, lambda: ask(folder, Command(kind="stop_trial", trial=2))))
    stopped = trials(folder)[2]
    assert (stopped.state, stopped.outcome.by_hand) == ("stopped", True)
    assert stopped.outcome.eval_loss in (2.0, 1.5)
    assert "trial 2 is stopped by hand" in said
    assert len(trials(folder)) == 5, "the search goes on"
    assert read_steering(folder).stopping == ()


def test_a_stop_ends_the_study_and_does_not_end_the_next_start(tmp_path):
    folder = tmp_path / "s"
    said = play(folder, on_event=first("trial_started", 1, lambda: ask(folder, Command(kind="stop"))))
    assert said[-1] == "interrupted"
    assert len(trials(folder)) < 5
    ask(folder, Command(kind="stop"))
    assert play(folder)[-1] == "done"
    assert len(trials(folder)) == 5


def test_a_pause_starts_nothing_until_it_is_taken_back(tmp_path):
    folder, seen = tmp_path / "s", []

    def hear(event):
        seen.append(event)
        if event.kind == "trial_started" and event.trial.number == 1:
            ask(folder, Command(kind="pause"))
        if event.kind == "note" and "finestep resume" in str(event.data["text"]):
            seen.append(sum(trial.state == "running" for trial in trials(folder)))
            ask(folder, Command(kind="resume"))

    said = play(folder, on_event=hear)
    assert next(text for text in said if "paus" in text or "going on" in text) == "pausing, as asked"
    assert said[-1] == "done"
    assert len(trials(folder)) == 5
    assert read_steering(folder).paused is False


def test_what_is_no_command_is_refused_and_told(tmp_path):
    folder = tmp_path / "s"
    play(folder, budget=1)
    (folder / "commands").mkdir(exist_ok=True)
    for number, text in enumerate(
        ["{", "[]", '{"kind": "delete"}', '{"kind": "add"}', '{"kind": "stop_trial", "trial": 9}']
    ):
        (folder / "commands" / f"{number}.json").write_text(text)
    play(folder, budget=1)
    assert [done.said.startswith("refused") for done in read_steering(folder).done] == [True] * 5
    assert not waiting(folder)
    assert len(trials(folder)) == 1


REFUSED = [
    ({"kind": "stop"}, "nothing to stop"),
    ({"kind": "stop_trial", "trial": 0}, "has ended already"),
    ({"kind": "stop_trial", "trial": 7}, "no trial 7"),
    ({"kind": "extend", "full_runs": 0.5}, "larger than what is spent"),
    ({"kind": "extend", "full_runs": math.inf}, "less than or equal to"),
    ({"kind": "add", "learning_rate": -1.0}, "greater than 0"),
    ({"kind": "add", "learning_rate": 1e-4, "fidelity": 2.0}, "less than or equal to 1"),
    ({"kind": "dance"}, "kind"),
]


@pytest.mark.parametrize(("wanted", "words"), REFUSED, ids=[words for _, words in REFUSED])
def test_nonsense_is_refused_before_it_is_asked(wanted, words, tmp_path):
    folder = tmp_path / "s"
    play(folder, budget=1)
    with pytest.raises(BadInput) as caught:
        steer(folder, wanted)
    assert words in str(caught.value)
    assert caught.value.next_step
    assert not waiting(folder)


def test_a_command_that_was_half_carried_out_is_not_carried_out_again(tmp_path):
    """Killed after the trial was made and before this was noted, or after the note and before the file was taken away."""
    folder = tmp_path / "s"
    play(folder, budget=1)
    name = ask(folder, ADD)
    store = open_store(folder)
    store.add(store.spec.recipe, fidelity=0.5, stage="added by hand", why="", command=name)
    store.close()
    play(folder, budget=1)
    assert len(trials(folder)) == 2
    path = folder / "commands" / f"{name}.json"
    path.write_text(ADD.model_dump_json())
    play(folder, budget=1)
    assert len(trials(folder)) == 2
    assert not path.exists()
    assert [done.id for done in read_steering(folder).done] == [name]


@pytest.mark.long
def test_kills_while_commands_wait(tmp_path):
    """SIGKILL of the controller at random moments, with commands before it all the time: each is carried out once."""
    folder, seed = tmp_path / "s", random.randrange(10**6)
    print(f"seed {seed}")
    chance, asked = random.Random(seed), []
    open_store(folder).close()
    for _ in range(8):
        for _ in range(3):
            rate = 1e-4 * (1 + len(asked))
            asked.append((ask(folder, Command(kind="add", learning_rate=rate, fidelity=0.125)), rate))
        ask(folder, Command(kind="extend", full_runs=50.0))
        process = _start(folder)
        _await_step(folder, process)
        time.sleep(chance.uniform(0.0, 0.15))
        kill(folder, process)
    last = _start(folder, seconds=0.0)
    assert last.wait(120) == 0
    mine = {trial.command: trial for trial in trials(folder) if trial.asked_by == "user"}
    assert len([trial for trial in trials(folder) if trial.asked_by == "user"]) == len(asked)
    assert {name: trial.recipe.learning_rate for name, trial in mine.items()} == pytest.approx(dict(asked))
    assert all(trial.state == "completed" for trial in mine.values())
    assert len({done.id for done in read_steering(folder).done}) == len(read_steering(folder).done) == len(asked) + 8
    assert not waiting(folder)


def _start(folder: Path, seconds: float = 0.01) -> subprocess.Popen:
    return start("tests.flows.steer_target", folder, 8, seconds)


def _await_step(folder: Path, process: subprocess.Popen) -> None:
    """Wait until the controller has carried something out, so that it dies at its work."""
    before, deadline = len(read_steering(folder).done), time.monotonic() + 60
    while len(read_steering(folder).done) == before:
        assert process.poll() is None, complaints(folder)
        assert time.monotonic() < deadline
        time.sleep(0.002)
