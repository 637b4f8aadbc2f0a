"""A finished study is damaged in many ways: `report` shows the same result or refuses in words, and a refusal changes no file."""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3

import pytest

from finestep.errors import FinestepError, StudyDamaged
from finestep.studies.files import write_results
from finestep.studies.show import show_study
from finestep.study import Budget
from tests.flows.studies import READY, open_store, tune

JSON_FILES = ("study.json", "ready.json", "result.json", "trials/0001/outcome.json", "trials/0001/trial.json")
FILES = (*JSON_FILES, "study.db", "trials/0001/steps.jsonl")
SQL = {
    "no trials": "delete from trials",
    "no records": "delete from trial_user_attributes",
    "a record that is null": "update trial_user_attributes set value_json='null' where key='trial'",
    "a record that is empty": "update trial_user_attributes set value_json='\"{}\"' where key='trial'",
    "all running in Optuna": "update trials set state='RUNNING'",
    "no study": "delete from studies",
    "another study's name": "update studies set study_name='other'",
    "another number": "update trials set number=7 where number=1",
    "no table": "drop table trial_user_attributes",
    "another loss": "update trial_user_attributes set value_json=replace(value_json, 'eval_loss\\\":1', 'eval_loss\\\":0')",
    "a version of the future": "update version_info set schema_version=99",
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "study"
    store = open_store(folder)
    tune(store, budget=4)
    write_results(store, command="finestep tune m d", budget=Budget(full_runs=4), ready=READY)
    store.close()
    return folder


def states(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        for path in sorted(folder.rglob("*"))
    }


def truncated(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def a_folder(path):
    path.unlink()
    path.mkdir()


def of_type(text):
    return lambda path: path.write_text(text)


def values_replaced(value):
    return lambda path: path.write_text(json.dumps(dict.fromkeys(json.loads(path.read_text()), value)))


def flipped(path):
    data = bytearray(path.read_bytes())
    for place in range(7, len(data), max(1, len(data) // 40)):
        data[place] ^= 4
    path.write_bytes(bytes(data))


KINDS = {
    "gone": lambda path: path.unlink(),
    "empty": of_type(""),
    "cut off": truncated,
    "zeros": lambda path: path.write_bytes(b"\0" * path.stat().st_size),
    "noise": lambda path: path.write_bytes(bytes(range(256)) * 3),
    "bits flipped": flipped,
    "a folder": a_folder,
}
JSON_KINDS = {
    "a list": of_type("[]"),
    "null": of_type("null"),
    "an empty object": of_type("{}"),
    "nested too deeply": of_type("[" * 20_000),
    "values that are null": values_replaced(None),
    "values that are lists": values_replaced([]),
    "values that are text": values_replaced("x"),
}


def sql(text):
    def act(folder):
        with sqlite3.connect(folder / "study.db") as database:
            database.execute(text)
        database.close()

    return act


def damages():
    for name in FILES:
        for kind, act in {**KINDS, **(JSON_KINDS if name in JSON_FILES else {})}.items():
            yield f"{name} {kind}", lambda folder, name=name, act=act: act(folder / name)
    for kind, text in SQL.items():
        yield f"study.db {kind}", sql(text)
    yield "a trial's folder is gone", lambda folder: shutil.rmtree(folder / "trials/0001")
    yield "all trials' folders are gone", lambda folder: shutil.rmtree(folder / "trials")
    yield "a torn journal", lambda folder: (folder / "study.db-journal").write_bytes(b"x" * 600)
    yield "the lock is a folder", lambda folder: a_folder(folder / "study.lock")


@pytest.mark.parametrize(("name", "damage"), list(damages()), ids=lambda one: one if isinstance(one, str) else "")
def test_report_shows_the_same_or_refuses_and_changes_nothing(finished, tmp_path, name, damage):
    whole = json.loads((finished / "result.json").read_text())
    folder = tmp_path / "study"
    shutil.copytree(finished, folder)
    damage(folder)
    before, result, refusal = states(folder), None, ""
    try:
        result = show_study(folder).as_values()
    except FinestepError as error:
        refusal = f"{type(error).__name__}: {error}"
    if result is None:
        assert states(folder) == before
        assert str(folder) in refusal
        assert "--rebuild" in refusal or not refusal.startswith("StudyDamaged")
        return
    assert result["best"]["trial"] == whole["best"]["trial"]
    assert [(t["trial"], t["state"], t["eval_loss"]) for t in result["trials"]] == [
        (t["trial"], t["state"], t["eval_loss"]) for t in whole["trials"]
    ]


def board(result):
    return [
        (t["trial"], t["learning_rate"], t["effective_batch_size"], t["state"], t["eval_loss"])
        for t in result["trials"]
    ]


@pytest.mark.parametrize("also_lost", [None, "result.json", "trial.json"])
def test_a_lost_database_is_rebuilt_from_the_trials_own_files(finished, tmp_path, also_lost):
    whole = json.loads((finished / "result.json").read_text())
    folder = tmp_path / "study"
    shutil.copytree(finished, folder)
    (folder / "study.db").write_bytes(b"no database")
    for path in folder.rglob(also_lost or "nothing"):
        path.unlink()
    with pytest.raises(StudyDamaged):
        open_store(folder)
    result = show_study(folder, rebuild_it=True).as_values()
    assert board(result) == board(whole)
    assert result["best"]["trial"] == whole["best"]["trial"]
    assert (folder / "study.db.damaged-1").read_bytes() == b"no database"
    store = open_store(folder)
    _, executor = tune(store, budget=4)
    store.close()
    assert executor.num_started == 0


def test_old_folders_never_pass_for_new_results(finished, tmp_path):
    """A new study finds the folders of another one: it tells of them, and what it trains itself is its own."""
    folder = tmp_path / "study"
    folder.mkdir()
    shutil.copytree(finished / "trials", folder / "trials")
    with pytest.raises(StudyDamaged, match="holds a further one"):
        open_store(folder)
    shutil.rmtree(folder / "trials/0003")
    shutil.rmtree(folder / "trials/0002")
    shutil.rmtree(folder / "trials/0001")
    for name in ("outcome.json", "steps.jsonl", "evaluations.jsonl"):
        (folder / "trials/0000" / name).unlink()
    store = open_store(folder)
    (folder / "trials/0000/outcome.json").write_text((finished / "trials/0003/outcome.json").read_text())
    _, executor = tune(store, budget=2)
    assert executor.num_started == 2
    assert store.written_outcome(0).recipe_hash == store.trials()[0].hash
    assert (folder / "trials/0000.stale-1").is_dir()
    store.close()


def test_a_study_that_cannot_be_written_is_shown(finished, tmp_path, monkeypatch):
    import os

    folder = tmp_path / "study"
    shutil.copytree(finished, folder)
    before, real = states(folder), os.access
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK and real(path, mode))
    result = show_study(folder).as_values()
    assert states(folder) == before
    assert "cannot be written" in result["shown"][0]


def test_a_study_that_is_worked_on_is_shown(finished, tmp_path):
    folder = tmp_path / "study"
    shutil.copytree(finished, folder)
    store = open_store(folder)
    result = show_study(folder).as_values()
    store.close()
    assert "another process works on this study" in result["shown"][0]
    assert result["best"] is not None
