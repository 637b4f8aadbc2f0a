"""A study as a Chinese reader sees it: whatever the search, the card and the page say, no English sentence is left."""

from __future__ import annotations

import io
import math
import re

import pytest
from rich.console import Console

from finestep.cli.card import print_card
from finestep.facts import DataFacts
from finestep.language.catalogue import translated
from finestep.ready import DataCard
from finestep.recipe import Recipe
from finestep.report.page_data import page_data
from finestep.result import Paths, Spent, StudyGoal, StudyResult, TrialFigures
from finestep.studies.strategies import make_judge
from finestep.study import DataSpec, ModelSpec, StudySpec
from finestep.trial import Cost, Outcome, Trial

from ..report.synthetic_study import make_view

NAMES = {"token", "nat", "epoch", "finestep", "lora", "LoRA", "PEFT", "transformers", "tune", "max", "NaN"}
OF_OTHERS = {"yaml", "recipe", "report", "html", "demo", "out", "tokens"}


def english_left(text: str) -> list[str]:
    """English words that are no names, commands or paths."""
    without = re.sub(r"`[^`]*`|\S*/\S*|--\S+|\d[\w.]*", " ", text)
    return [word for word in re.findall(r"[A-Za-z]{3,}", without) if word not in NAMES | OF_OTHERS]


def played(loss_of) -> tuple[list[Trial], list[str], object]:
    """A study that a formula trains: its trials, everything the search said, and its answer."""
    spec = StudySpec(name="m-d", model=ModelSpec(path="m"), data=DataSpec(path="d"), recipe=Recipe())
    judge = make_judge(spec, DataCard(facts=DataFacts(name="d", num_rows=1800, num_eval_rows=200)))
    trials: list[Trial] = []
    said: list[str] = []
    left = 6.0
    while (proposals := judge.propose(trials, remaining_runs=left)) and len(trials) < 14:
        one = proposals[0]
        recipe = Recipe(learning_rate=one.learning_rate, effective_batch_size=one.effective_batch_size)
        loss = loss_of(one.learning_rate, one.effective_batch_size, one.fidelity)
        state = "completed" if math.isfinite(loss) else "diverged"
        outcome = Outcome(
            state=state, eval_loss=loss, reason="all 12 steps", cost=Cost(elapsed_s=3.0, num_train_tokens=100)
        )
        trials.append(
            Trial(
                number=len(trials), recipe=recipe, fidelity=one.fidelity, stage=one.stage, why=one.why, state=state,
                outcome=outcome, is_baseline=one.is_baseline,
            )
        )  # fmt: skip
        left -= one.fidelity
        said += [one.why, one.stage, judge.answer(trials).sentence]
    return trials, said, judge.answer(trials)


@pytest.fixture(scope="module")
def study():
    return played(lambda rate, batch, share: 1.3 + 0.1 * (math.log2(rate / 3e-4)) ** 2 / 4 + 0.2 * (1 - share))


def test_everything_that_a_search_says_is_chinese(study) -> None:
    _, said, _ = study
    assert len(said) > 12
    assert not {text: left for text in said if (left := english_left(translated(text)))}


def test_a_search_whose_runs_all_diverge_speaks_chinese_too() -> None:
    _, said, _ = played(lambda rate, batch, share: math.nan)
    assert not {text: left for text in said if (left := english_left(translated(text)))}


def test_the_card_is_chinese(study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINESTEP_LANG", "zh")
    trials, _, answer = study
    rows = tuple(
        TrialFigures(
            trial=t.number, stage=t.stage, is_baseline=t.is_baseline, state=t.state, fidelity=t.fidelity,
            learning_rate=t.recipe.learning_rate, effective_batch_size=t.recipe.effective_batch_size,
            micro_batch_size=4, accumulation_steps=4, num_devices=1, eval_loss=t.outcome.eval_loss, base_eval_loss=2.5,
            metrics={"accuracy": 0.8}, reason=t.outcome.reason, num_train_tokens=100, seconds=3.0,
        )
        for t in trials
    )  # fmt: skip
    result = StudyResult(
        objective=StudyGoal(),
        baseline=rows[0],
        best=next(row for row in rows if row.trial == answer.trial),
        answer=answer,
        settled=answer.settled,
        next_command=None if answer.settled else "finestep tune --out demo",
        trials=rows,
        spent=Spent(full_runs=4.2, budget_full_runs=6.0, tokens=1400, elapsed_s=95.0),
        command="finestep tune --out demo",
        paths=Paths(study="demo", report="demo/report.html", recipe="demo/recipe.yaml"),
    )
    text = io.StringIO()
    print_card(Console(file=text, width=400), result)
    assert "学习率" in text.getvalue()
    assert not english_left(text.getvalue())


def test_the_page_is_chinese() -> None:
    data = page_data(make_view())
    shown = [
        data["verdict"]["headline"], *data["verdict"]["doubt"], *data["titles"].values(), *data["basin"]["about"],
        data["basin"]["warning"], *data["curves_about"], *(tile[key] for tile in data["tiles"] for key in ("name", "detail", "value")),
        *(one["name"] for one in data["spent"]), *(one[key] for one in data["diagnosis"] for key in ("label", "meaning", "advice")),
    ]  # fmt: skip
    assert len(shown) > 20
    assert not {text: left for text in shown if (left := english_left(data["zh"].get(text, text)))}
