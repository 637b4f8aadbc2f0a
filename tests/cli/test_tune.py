"""What `tune` takes from `recommend` for a classifier, seen from the command line; a command stands for the trainer."""

from __future__ import annotations

import json

import pytest

from finestep.cli.main import main
from finestep.flows.recommend import recommend
from finestep.recipe import Recipe
from finestep.rules.compose import Ask
from finestep.store.recipe_file import read_recipe, write_recipe

HEAD = "optimizer.head_lr_multiplier"
COMMAND = "echo eval_loss=1.5 {learning_rate} {head_lr_multiplier}"


@pytest.fixture
def tuned(label_file, tmp_path, monkeypatch, capsys):
    """Runs `tune` on labels: (factor of the head in the trial, result, what was said)."""

    def run(*more: str, command: str = COMMAND, folder: str = "s"):
        trainer = ["--command", command, "--result", "eval_loss=eval_loss=([0-9.]+)"]
        study = ["--method", "full", "--budget", "1", "--no-baseline", "--out", str(tmp_path / folder), "--json"]
        monkeypatch.setattr("sys.argv", ["finestep", "tune", "roberta-base", str(label_file), *trainer, *study, *more])
        try:
            code = main()
        except SystemExit as end:
            code = end.code
        streams = capsys.readouterr()
        assert code == 0, streams.err
        recipe = read_recipe(tmp_path / folder / "recipe.yaml")
        return recipe.optimizer.head_lr_multiplier, json.loads(streams.out), streams.err

    return run


def test_the_head_starts_as_recommended_and_says_why(tuned, label_file, tmp_path):
    expected = recommend("roberta-base", str(label_file), ask=Ask(method="full", num_epochs=3.0)).estimates[HEAD]
    assert expected.value > 1
    factor, result, said = tuned()
    assert factor == expected.value
    assert f"the new head learns {expected.value:g} times as fast, from recommend" in said
    assert result["start"]["fields"][HEAD]["source"] == expected.source
    assert expected.why in (tmp_path / "s" / "recipe.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize("setting", [f"{HEAD}=2", "optimizer={head_lr_multiplier: 2}"])
def test_a_head_that_the_user_set_stays(tuned, setting):
    factor, result, said = tuned("--set", setting)
    assert (factor, result["start"]["fields"]) == (2.0, {})
    assert "new head" not in said


def test_a_recipe_file_has_its_own_head(tuned, tmp_path):
    write_recipe(tmp_path / "r.yaml", Recipe(method="full", optimizer={"head_lr_multiplier": 3.0}))
    factor, _, _ = tuned("--recipe", str(tmp_path / "r.yaml"))
    assert factor == 3.0


def test_without_the_prior_or_told_nothing_of_it_the_head_is_as_the_rest(tuned):
    assert tuned("--no-prior")[0] == 1.0
    assert tuned(command="echo eval_loss=1.5 {learning_rate}", folder="untold")[0] == 1.0


def test_a_study_goes_on_with_the_head_that_it_began_with(tuned, tmp_path, monkeypatch):
    factor, _, _ = tuned()
    monkeypatch.setattr("finestep.rules.layers.HEAD_MOST", 4.0)
    again, result, _ = tuned()
    assert again == factor
    assert len(result["trials"]) == 1
    assert tuned(folder="other")[0] == 4.0
