"""Trackers follow a study from its files: nothing is doubled by a resume, and one that hangs or fails is none of the study's business."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from finestep.errors import BadInput
from finestep.readers.tensorboard_events import read_events
from finestep.store.study_files import StudyFiles, read_spec
from finestep.trackers.known import parse_trackers
from finestep.trackers.launch import Trackers
from finestep.trackers.report import FOLDER, Report

from ..flows.studies import open_store
from ..watch.served import make_open_trial, make_study
from .sinks import KEPT

KEEPING, HANGING, FAILING = (f"tests.trackers.sinks:{name}" for name in ("Keeping", "Hanging", "Failing"))


def kept(folder: Path, kind: str) -> list[dict]:
    lines = [json.loads(line) for line in (folder / KEPT).read_text().splitlines()]
    return [line for line in lines if line["kind"] == kind]


def go_on(folder: Path, number: int, *, first: int, last: int) -> None:
    """A worker that took the trial up again makes steps, the first of which were made before."""
    with (open_store(folder).trial_folder(number) / "steps.jsonl").open("a") as file:
        for step in range(first, last + 1):
            file.write(json.dumps({"step": step, "loss": 2.0, "num_tokens": 100, "elapsed_s": step / 10}) + "\n")


def test_every_trial_is_a_run_with_its_recipe_steps_and_end(tmp_path):
    folder = make_study(tmp_path / "study", budget=2)
    report = Report(folder, KEEPING)
    report.look()
    report.finish()
    opened = kept(folder, "open")
    assert [one["number"] for one in opened] == [0, 1]
    assert {one["group"] for one in opened} == {"test"}
    assert opened[0]["learning_rate"] > 0
    assert opened[0]["asked_by"] == "search"
    points = [one for one in kept(folder, "point") if one["number"] == 0]
    assert points[-1]["eval/loss"] == kept(folder, "end")[0]["eval_loss"] == points[-1]["train/loss"]
    assert {one["state"] for one in kept(folder, "end")} == {"completed"}


def test_a_resume_sends_nothing_twice(tmp_path):
    folder = make_study(tmp_path / "study", budget=1)
    number = make_open_trial(folder, steps=30)
    Report(folder, KEEPING).look()
    go_on(folder, number, first=21, last=50)
    again = Report(folder, KEEPING)
    again.look()
    again.look()
    steps = [one["step"] for one in kept(folder, "point") if one["number"] == number]
    assert steps == list(range(1, 51))
    assert [one["number"] for one in kept(folder, "end")] == [0]


def test_a_tracker_that_hangs_neither_holds_nor_fails_the_study(tmp_path):
    folder = make_study(tmp_path / "study", budget=1)
    with Trackers(folder, [HANGING]) as followed:
        make_study(folder, budget=3)
    try:
        (said,) = followed.ended()
        assert "goes on by itself" in said
        trials = StudyFiles(folder, read_spec(folder)).trials()
        assert [trial.state for trial in trials] == ["completed"] * 3
    finally:
        for process in followed._processes.values():
            process.kill()
            process.wait()


def test_a_tracker_that_fails_says_so_in_its_log(tmp_path):
    folder = make_study(tmp_path / "study", budget=1)
    with Trackers(folder, [FAILING]) as followed:
        pass
    followed._processes[FAILING].wait(300)
    (said,) = followed.ended()
    assert "did not get everything" in said
    log = (folder / FOLDER / f"{FAILING.replace(':', '.')}.log").read_text()
    assert "the service does not answer" in log


def test_an_unknown_tracker_is_refused_before_anything_runs():
    with pytest.raises(BadInput, match="did you mean `wandb`"):
        parse_trackers("wandbb")
    assert parse_trackers(None) == ()
    assert parse_trackers(f"{KEEPING},{KEEPING}") == (KEEPING,)


# ---- the real ones, where they are installed: `make test-long` installs them


def sent_twice(folder: Path, name: str) -> int:
    """A study with an open trial, sent; then again by a process that has forgotten what was sent; the trial's number."""
    make_study(folder, budget=1)
    number = make_open_trial(folder, steps=30)
    Report(folder, name).look()
    (folder / FOLDER / f"{name}.json").unlink()
    go_on(folder, number, first=21, last=50)
    again = Report(folder, name)
    again.look()
    again.finish()
    return number


@pytest.mark.long
def test_tensorboard(tmp_path):
    pytest.importorskip("tensorboard")
    folder = tmp_path / "study"
    number = sent_twice(folder, "tensorboard")
    places = sorted((folder / "tensorboard" / f"trial-{number:04d}").glob("events*"))
    steps = [int(step) for place in places for log in read_events(place) for step in log.train.step]
    assert sorted(steps) == list(range(1, 51))
    assert (folder / "tensorboard" / "trial-0000").is_dir()


@pytest.mark.long
def test_mlflow(tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folder = tmp_path / "study"
    sent_twice(folder, "mlflow")
    database = sqlite3.connect(folder / "mlflow.db")
    rows = database.execute(
        "select step, count(*) from metrics where key = 'train/loss' group by run_uuid, step"
    ).fetchall()
    assert {count for _, count in rows} == {1}
    assert max(step for step, _ in rows) >= 50
    runs = database.execute("select name, status from runs").fetchall()
    assert len(runs) == 2, "a run a trial; the study has written no answer"
    assert dict(database.execute("select key, value from params where key = 'learning_rate' limit 1").fetchall())


@pytest.mark.long
def test_trackio(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    pytest.importorskip("trackio")
    from trackio.sqlite_storage import SQLiteStorage

    folder = tmp_path / "study"
    sent_twice(folder, "trackio")
    runs = SQLiteStorage.get_runs("test")
    assert len(runs) == 2
    for run in runs:
        steps = [row["step"] for row in SQLiteStorage.get_logs("test", run) if "train/loss" in row]
        assert len(steps) == len(set(steps))
    assert max(len(SQLiteStorage.get_logs("test", run)) for run in runs) >= 50


@pytest.mark.long
def test_wandb_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    from finestep.readers.open_logs import read_logs

    folder = make_study(tmp_path / "study", budget=1)
    make_open_trial(folder, steps=30)
    report = Report(folder, "wandb")
    report.look()
    report.finish()
    places = sorted((folder / "wandb").glob("offline-run-*/*.wandb"))
    assert len(places) == 2
    steps = max((len(log.train) for place in places for log in read_logs(place)), default=0)
    assert steps == 30


@pytest.mark.long
def test_swanlab_offline(tmp_path, monkeypatch):
    pytest.importorskip("swanlab")
    monkeypatch.setenv("SWANLAB_MODE", "offline")
    folder = make_study(tmp_path / "study", budget=2)
    report = Report(folder, "swanlab")
    report.look()
    report.finish()
    assert len(list((folder / "swanlog").glob("run-*"))) == 2
