"""The study folder of somebody else: links in it lead nowhere, and nothing outside is read or written."""

from __future__ import annotations

import shutil

import pytest

from finestep import disk
from finestep.errors import EnvironmentFault, FinestepError
from finestep.studies.files import write_results
from finestep.studies.show import show_study
from finestep.study import Budget
from tests.flows.studies import READY, open_store, tune

SECRET = "S3CRET"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "study"
    store = open_store(folder)
    tune(store, budget=2)
    write_results(store, command="finestep tune m d", budget=Budget(full_runs=2), ready=READY)
    store.close()
    return folder


def link(path, target):
    disk.remove(path)
    path.symlink_to(target)


LINKS = {
    "the page": lambda study, outside: link(study / "report.html", outside / "keep.txt"),
    "the figures": lambda study, outside: link(study / "result.json", outside / "keep.txt"),
    "a guessed name": lambda study, outside: link(study / "report.html.partial", outside / "keep.txt"),
    "the recipe": lambda study, outside: link(study / "recipe.yaml", outside / "keep.txt"),
    "the model": lambda study, outside: link(study / "model", outside),
    "the models of trials": lambda study, outside: [link(t / "model", outside) for t in (study / "trials").iterdir()],
    "the trials": lambda study, outside: link(study / "trials", outside),
    "records of steps": lambda study, outside: [
        link(t / "steps.jsonl", outside / "keep.txt") for t in (study / "trials").iterdir()
    ],
    "the lock": lambda study, outside: link(study / "study.lock", outside / "keep.txt"),
    "the database": lambda study, outside: link(study / "study.db", outside / "keep.txt"),
    "the study itself": lambda study, outside: link(study / "study.json", outside / "keep.txt"),
}


@pytest.mark.parametrize("name", LINKS)
@pytest.mark.parametrize("act", ["report", "rebuild", "tune"])
def test_links_are_not_followed(finished, tmp_path, name, act):
    study, outside = tmp_path / "study", tmp_path / "outside"
    shutil.copytree(finished, study)
    (outside / "model").mkdir(parents=True)
    for place in (outside, outside / "model"):
        (place / "keep.txt").write_text(SECRET)
    LINKS[name](study, outside)
    try:
        if act == "tune":
            store = open_store(study)
            tune(store, budget=3)
            write_results(store, command="finestep tune", budget=Budget(full_runs=3), ready=READY)
            store.close()
        else:
            show_study(study, rebuild_it=act == "rebuild").as_values()
    except FinestepError:
        pass
    assert sorted(str(path.relative_to(outside)) for path in outside.rglob("*")) == [
        "keep.txt",
        "model",
        "model/keep.txt",
    ]
    assert {path.read_text() for path in outside.rglob("*.txt")} == {SECRET}
    own = [path for path in study.rglob("*") if path.is_file() and not path.is_symlink()]
    assert not [
        path for path in own if SECRET.encode() in path.read_bytes() and study.resolve() in path.resolve().parents
    ]


def test_names_in_the_making_cannot_be_guessed(tmp_path):
    names = {disk.beside(tmp_path / "result.json").name for _ in range(100)}
    assert len(names) == 100
    assert all(disk.LEFTOVER.fullmatch(name) for name in names)


def test_what_is_appended_to_is_no_link(tmp_path):
    (tmp_path / "outside").write_text("keep")
    (tmp_path / "steps.jsonl").symlink_to(tmp_path / "outside")
    with pytest.raises(EnvironmentFault, match="symbolic link"):
        disk.append_line(tmp_path / "steps.jsonl", "{}")
    assert (tmp_path / "outside").read_text() == "keep"
