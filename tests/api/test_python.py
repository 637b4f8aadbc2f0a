"""finestep from Python: studies, their handle, data in memory, and logs; on the shipped model."""

from __future__ import annotations

import math
import shlex

import numpy as np
import pytest

import finestep
from finestep.api.rows import data_path
from finestep.errors import BadInput, FinestepError
from finestep.survey.rows import read_rows

ROWS = [{"prompt": f"Say {n} again.", "completion": f"{n}"} for n in range(40)]
QUICK = {
    "budget": 1,
    "baseline": False,
    "pack": 1,
    "threads": 1,
    "progress": False,
    "check_saved": False,
    "max_length": 48,
}


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("FINESTEP_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A study of one run, made in memory."""
    folder = tmp_path_factory.mktemp("study")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FINESTEP_CACHE", str(folder / "cache"))
        return finestep.tune("shipped", ROWS, out=folder / "one", **QUICK)


def test_the_public_names_are_these():
    assert set(finestep.__all__) == {
        "__version__", "Recipe", "SearchSpace", "Study", "Estimate", "Trial", "FinestepError", "FinestepCallback", "FinestepSampler",
        "ask_tell", "diagnose", "open_study", "read_recipe", "recommend", "train", "tune", "write_recipe",
    }  # fmt: skip
    assert all(getattr(finestep, name).__doc__ for name in finestep.__all__ if name != "__version__")


def test_a_study_answers(finished):
    best = finished.best
    assert best.recipe.learning_rate == finished.result.best.learning_rate
    assert 0 < best.eval_loss < 20
    assert not finished.settled
    assert "not settled" in finished.answer.sentence
    assert finished.report.is_file()
    assert best.recipe == finestep.read_recipe(finished.folder / "recipe.yaml")


def test_its_tables_hold_what_was_measured(finished):
    trials = finished.trials
    assert trials.loc[trials.trial == finished.best.trial, "eval_loss"].item() == finished.best.eval_loss
    curve = finished.curve()
    assert list(curve.step) == list(range(1, len(curve) + 1))
    assert np.isfinite(curve.loss).all()
    with pytest.raises(BadInput, match="no such trial"):
        finished.curve(99)


def test_its_model_loads_and_speaks(finished):
    model = finished.load_model()
    import torch

    logits = model(input_ids=torch.tensor([[1, 5, 6]])).logits
    assert torch.isfinite(logits).all()


def test_a_notebook_shows_it_as_text_not_as_markup(finished):
    shown = finished._repr_html_()
    assert "learning rate" in shown
    assert str(finished.folder) in shown
    assert "learning rate" in str(finished)


def test_opened_again_it_says_the_same(finished):
    again = finestep.open_study(finished.folder)
    assert again.result == finished.result
    with pytest.raises(BadInput, match="holds no study"):
        finestep.open_study(finished.folder.parent)


def test_its_command_asks_for_the_same_study(finished):
    """The command of the card goes on with the same folder, and is not refused as another study."""
    from typer.testing import CliRunner

    from finestep.cli.main import app

    words = shlex.split(finished.result.command)
    assert words[:2] == ["finestep", "tune"]
    done = CliRunner().invoke(app, [*words[1:], "--pack", "off", "--no-check-saved", "--json"])
    assert done.exit_code == 0, done.output
    assert len(finestep.open_study(finished.folder).trials) == len(finished.trials)


def test_a_larger_budget_goes_on(tmp_path):
    first = finestep.tune("shipped", ROWS, out=tmp_path / "s", **QUICK)
    second = finestep.tune("shipped", ROWS, out=tmp_path / "s", **{**QUICK, "budget": 2})
    assert len(second.trials) > len(first.trials)
    assert second.trials.head(len(first.trials)).eval_loss.equals(first.trials.eval_loss)


def test_in_the_background_it_stops_and_goes_on(tmp_path):
    seen = []
    slow = {**QUICK, "epochs": 40}
    running = finestep.tune("shipped", ROWS, out=tmp_path / "s", background=True, on_event=seen.append, **slow)
    with pytest.raises(TimeoutError):
        running.wait(timeout_s=0.01)
    while running.running and not any(event.kind == "step" for event in seen):
        pass
    running.stop()
    stopped = running.wait(timeout_s=120)
    assert stopped.best is None
    done = finestep.tune("shipped", ROWS, out=tmp_path / "s", **slow)
    curve = done.curve(0)
    assert list(curve.step) == list(range(1, len(curve) + 1))
    assert done.best is not None


def test_what_an_event_raises_ends_the_study_and_nothing_is_lost(tmp_path):
    def refuse(event):
        if event.kind == "trial_started":
            raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        finestep.tune("shipped", ROWS, out=tmp_path / "s", on_event=refuse, **QUICK)
    assert finestep.tune("shipped", ROWS, out=tmp_path / "s", **QUICK).best is not None


def test_a_recipe_is_trained_as_it_stands(finished, tmp_path):
    recipe = finestep.Recipe(
        learning_rate=2e-3, effective_batch_size=4, micro_batch_size=4, num_epochs=1.0, max_length=48
    )
    study = finestep.train(recipe, "shipped", ROWS, out=tmp_path / "t", threads=1, progress=False, check_saved=False)
    assert study.best.recipe.learning_rate == 2e-3
    assert math.isclose(study.curve().learning_rate.max(), 2e-3, rel_tol=1e-9)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: finestep.tune("shipped", [], progress=False), "hold no rows"),
        (lambda: finestep.tune("shipped", 7, progress=False), "no known kind"),
        (lambda: finestep.tune("shipped", [{"prompt": "a", "completion": b"x"}] * 20, progress=False), "row 1"),
        (lambda: finestep.tune("shipped", ROWS, settings={"lora.rnk": 3}, progress=False), "did you mean `rank`"),
        (lambda: finestep.tune("shipped", ROWS, budget=-1, progress=False), "--budget"),
        (lambda: finestep.tune("shipped", ROWS, method="lorra", progress=False), "method"),
        (lambda: finestep.tune("shipped", ROWS, on="10.0.0.1", progress=False), "ray://HOST:PORT"),
        (lambda: finestep.train(finestep.Recipe(), "shipped", ROWS, on="ray://", progress=False), "ray://HOST:PORT"),
        (lambda: finestep.tune("shipped", ROWS, workers=3, progress=False), "change nothing"),
        (lambda: finestep.diagnose(7), "no training log"),
        (lambda: finestep.diagnose([{"loss": 1.0}, 3]), "list of dicts"),
    ],
)
def test_bad_input_is_refused_in_words(call, message):
    with pytest.raises(FinestepError) as refused:
        call()
    assert message in str(refused.value)


def test_rows_in_memory_are_the_rows_of_a_file():
    import pandas

    columns = {"prompt": [row["prompt"] for row in ROWS], "completion": [row["completion"] for row in ROWS]}
    paths = {data_path(ROWS), data_path(columns), data_path(pandas.DataFrame(ROWS))}
    assert len(paths) == 1
    assert [row for _, row in read_rows(paths.pop())] == ROWS


def test_numbers_and_times_of_tables_can_be_written():
    import pandas

    frame = pandas.DataFrame(
        {"text": ["a", "b"], "label": np.array([0, 1]), "at": pandas.to_datetime(["2026-01-01"] * 2), "x": [np.nan, 1]}
    )
    rows = [row for _, row in read_rows(data_path(frame))]
    assert rows[0] == {"text": "a", "label": 0, "at": "2026-01-01T00:00:00", "x": None}


def test_a_history_is_read_as_its_file():
    history = [
        {"step": step, "loss": 2.0 / step + 0.5, "learning_rate": 1e-4 * (1 - step / 100)} for step in range(1, 90)
    ]
    history += [{"step": 40, "eval_loss": float("nan")}, {"step": 89, "loss": float("nan")}]
    found = finestep.diagnose(history)
    assert found.reports[0].label == "numerical_failure"


def test_recommend_takes_rows_in_memory_and_the_shipped_model():
    found = finestep.recommend("shipped", ROWS)
    assert 0 < found.data.num_rows <= len(ROWS)
    by_column = {"prompt": [row["prompt"] for row in ROWS], "completion": [row["completion"] for row in ROWS]}
    assert finestep.recommend("shipped", by_column).recipe == found.recipe
    with pytest.raises(BadInput, match="no known kind"):
        finestep.recommend("shipped", 7)


def test_a_notebook_shows_the_runs_and_the_curve(finished):
    shown = finished._repr_html_()
    assert "<polyline" in shown
    assert "<script" not in shown


def test_progress_in_a_notebook_is_one_output_that_is_replaced(tmp_path):
    from finestep.api.notebook import NotebookScreen
    from finestep.studies.event import TuneEvent
    from finestep.study import Budget, DataSpec, ModelSpec, StudySpec

    shown: list[str] = []
    spec = StudySpec(name="m-d", model=ModelSpec(path="m"), data=DataSpec(path="d"), recipe=finestep.Recipe())
    with NotebookScreen(spec, Budget(), shown.append) as screen:
        for number in range(30):
            screen.say(f"line {number} <script>alert(1)</script>")
        screen.show(TuneEvent(kind="saved", data={"text": "loading the saved model again, to check it"}))
    assert "line 29" in shown[-1]
    assert "line 1 " not in shown[-1]
    assert "<script" not in "".join(shown)


def test_a_notebook_shows_advice_and_verdicts_in_a_few_lines(tmp_path):
    from IPython.lib.pretty import pretty

    rows = [{"prompt": f"say {n}", "completion": f"{n}"} for n in range(60)]
    advice = pretty(finestep.recommend("shipped", rows))
    assert advice.startswith("method: lora\nlearning rate: ")
    assert len(advice) < 1500
    verdict = pretty(finestep.diagnose([{"step": n, "loss": 3.0 * 0.99**n} for n in range(1, 120)]))
    assert 20 < len(verdict) < 1500
    assert "array(" not in verdict
