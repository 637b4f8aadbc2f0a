"""The table of data layouts through the commands themselves: what one refuses, all refuse, with the same words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from finestep.cli.main import main
from finestep.recipe import Recipe
from finestep.store.recipe_file import write_recipe
from tests.survey.layouts import LAYOUTS, Read, Refused

READ = {name: case for name, case in LAYOUTS.items() if isinstance(case, Read)}
REFUSED = {name: case for name, case in LAYOUTS.items() if isinstance(case, Refused)}
SOME_READ = ("tools and tool_calls", "semicolons", "a whole solution beside its last line")
SOME_REFUSED = ("images", "several labels", "questions alone")


def options_of(case: Read | Refused) -> list[str]:
    """What the user says, as options of a command."""
    words = []
    for name, value in dict(case.options).items():
        text = ",".join(f"{key}={column}" for key, column in value.items()) if isinstance(value, dict) else str(value)
        words += [f"--{name.replace('_', '-')}", text]
    return words


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Runs one command; its exit code, and what it printed."""
    monkeypatch.setenv("FINESTEP_CACHE", str(tmp_path / "cache"))

    def one(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["finestep", *words])
        try:
            code = main()
        except SystemExit as end:
            code = int(end.code or 0)
        streams = capsys.readouterr()
        assert "Traceback" not in streams.err + streams.out
        return code, streams.out, streams.err

    return one


def commands(case: Read | Refused, data: Path, folder: Path) -> dict[str, list[str]]:
    """The four commands on the same data."""
    recipe = folder / "one.yaml"
    write_recipe(recipe, Recipe(num_epochs=1.0, effective_batch_size=4, max_length=128))
    options = options_of(case)
    return {
        "recommend": ["recommend", "shipped", str(data), *options],
        "tune": ["tune", "shipped", str(data), "--out", str(folder / "tune"), *options],
        "data": ["data", str(data), "--model", "shipped", *options],
        "train": ["train", str(recipe), "shipped", str(data), "--out", str(folder / "train"), "--json", *options],
    }


ADVICE_ALL_THE_SAME = {"too few rows"}
"""What `recommend` answers although it cannot be trained yet: advice needs no split."""


@pytest.mark.parametrize(
    "case",
    [case for name, case in REFUSED.items() if name not in ADVICE_ALL_THE_SAME],
    ids=[name for name in REFUSED if name not in ADVICE_ALL_THE_SAME],
)
def test_recommend_and_tune_refuse_with_the_same_words(case, run, tmp_path):
    said = commands(case, case.write(tmp_path), tmp_path)
    by_recommend, by_tune = run(*said["recommend"]), run(*said["tune"])
    assert by_recommend[0] == by_tune[0] == 2
    assert by_recommend[2] == by_tune[2]
    assert all(" ".join(piece.split()) in " ".join(by_tune[2].split()) for piece in case.says)
    assert not (tmp_path / "tune" / "study.db").exists()


@pytest.mark.parametrize("case", READ.values(), ids=READ)
def test_recommend_answers_for_whatever_is_read(case, run, tmp_path):
    code, said, _ = run(*commands(case, case.write(tmp_path), tmp_path)["recommend"], "--json")
    assert code == 0
    assert json.loads(said)["data"]["format"] == case.format


@pytest.mark.long
@pytest.mark.parametrize("name", SOME_REFUSED)
def test_data_and_train_refuse_with_the_same_words(name, run, tmp_path):
    case = REFUSED[name]
    said = commands(case, case.write(tmp_path), tmp_path)
    answers = [run(*words) for words in said.values()]
    assert {code for code, _, _ in answers} == {2}
    assert len({message for _, _, message in answers}) == 1


@pytest.mark.long
@pytest.mark.parametrize("name", SOME_READ)
def test_data_and_train_take_what_is_read(name, run, tmp_path):
    case = READ[name]
    said = commands(case, case.write(tmp_path), tmp_path)
    assert run(*said["data"])[0] == 0
    code, out, header = run(*said["train"])
    assert code == 0
    assert json.loads(out)["best"]["eval_loss"] > 0
    assert all(piece in header for piece in case.notes)
