"""A limit of forgetting in a real study on the shipped model, from the worker's measurement to the words at the end."""

from __future__ import annotations

import pytest
from rich.console import Console

from finestep.cli.card import print_card
from finestep.errors import BadInput
from finestep.recipe import Recipe
from finestep.studies.run import StudyRun
from finestep.studies.spec import StudyOptions, tuning_spec
from finestep.study import Budget, CommandSpec, DataSpec, ModelSpec, RetentionSpec
from finestep.survey.shipped import SHIPPED_GENERAL_TEXT

RECIPE = Recipe(num_epochs=0.5, effective_batch_size=8, evaluation={"num_evaluations": 2})


def run(model, data, folder, *, limit: float, budget: float = 3):
    """A sweep of 2e-4, 1e-4 and 3e-4 at batch 8: (its result, the card as text, the page)."""
    spec, _ = tuning_spec(
        model=ModelSpec(path=str(model), device="cpu"),
        data=DataSpec(path=str(data), max_length=96),
        recipe=RECIPE,
        strategy="sweep",
        with_prior=False,
        options=StudyOptions(
            num_threads=1, retention=RetentionSpec(text_path=str(SHIPPED_GENERAL_TEXT), max_forgetting=limit)
        ),
    )
    study = StudyRun(spec, folder, Budget(full_runs=budget), command="finestep tune", check_saved=False)
    list(study.events(lambda: False))
    console = Console(width=160, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    print_card(console, study.result)
    return (
        study.result.as_values(),
        " ".join(console.export_text().split()),
        (folder / "report.html").read_text(encoding="utf-8"),
    )


@pytest.mark.slow
def test_the_chosen_trial_keeps_the_limit_and_the_others_are_named(shipped_model, instruct_file, tmp_path):
    result, card, page = run(shipped_model, instruct_file, tmp_path, limit=1e-4)
    far = max(result["trials"], key=lambda trial: trial["learning_rate"])
    assert far["eval_loss"] == min(trial["eval_loss"] for trial in result["trials"] if trial["eval_loss"])
    assert [trial["trial"] for trial in result["trials"] if trial["forgets_too_much"]] == [far["trial"]]
    assert result["best"]["learning_rate"] == 2e-4
    assert result["best"]["kl_at_end"] < 1e-4 < far["kl_at_end"]
    assert "nats a token from the base; at most 0.0001 allowed" in card
    assert '"kl_to_base"' in page
    assert "over the limit of 0.0001" in page


@pytest.mark.slow
def test_when_no_trial_keeps_the_limit_that_is_the_answer(shipped_model, instruct_file, tmp_path):
    result, card, page = run(shipped_model, instruct_file, tmp_path, limit=1e-9, budget=1)
    assert result["best"] is None
    nearest = min(result["trials"], key=lambda trial: trial["kl_at_end"])
    said = f"trial {nearest['trial']} came closest with {nearest['kl_at_end']:.3g}"
    assert said in card
    assert said in page


def test_a_classifier_is_not_watched(shipped_model, label_file):
    with pytest.raises(BadInput, match="a classifier writes nothing"):
        tuning_spec(
            model=ModelSpec(path=str(shipped_model)),
            data=DataSpec(path=str(label_file)),
            recipe=RECIPE,
            strategy="random",
            with_prior=False,
            options=StudyOptions(retention=RetentionSpec(text_path="t", max_forgetting=0.1)),
        )


def test_a_command_is_not_watched(instruct_file):
    with pytest.raises(BadInput, match="held against its base"):
        tuning_spec(
            model=ModelSpec(path="m"),
            data=DataSpec(path=str(instruct_file)),
            recipe=RECIPE,
            strategy="random",
            with_prior=False,
            options=StudyOptions(
                trainer=CommandSpec(command="train {learning_rate}", results=("eval_loss=(.*)",)),
                retention=RetentionSpec(text_path="t", max_forgetting=0.1),
            ),
        )
