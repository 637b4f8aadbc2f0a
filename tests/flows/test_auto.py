"""`tune --strategy auto` on recorded trials: the prior is its start, a killed study goes on exactly, and the end is an answer."""

from __future__ import annotations

import json
import math
import re

import pytest
from rich.console import Console

from finestep.cli.card import print_card
from finestep.errors import BadInput
from finestep.executors.replay import ReplayExecutor
from finestep.protocol import SessionRequest
from finestep.recipe import Recipe
from finestep.result import StudyResult
from finestep.search.further_fields import parse_tuned, with_starts
from finestep.search.leader import worth_keeping
from finestep.search.starting_point import start_words
from finestep.search.traits import traits_of
from finestep.store.recipe_file import read_recipe
from finestep.studies.files import drop_other_models, write_results
from finestep.studies.run import may_need_two
from finestep.studies.spec import StudyOptions, tuning_spec
from finestep.studies.start import starting_point
from finestep.studies.strategies import make_judge, make_strategy, objective_and_goal
from finestep.studies.tuning import Tuning
from finestep.study import Budget, DataSpec, ModelSpec, StartingPoint
from tests.flows.studies import CARD, READY, open_store

START = StartingPoint(learning_rate=7e-4, learning_rate_sd=1.0, batch_size=16, batch_size_sd=1.0, why="recommend")


def basin(recipe: Recipe, fidelity: float) -> list[float]:
    """A bowl around 1e-3 at batch 16, moving with length, with a cliff eight times above."""
    x = math.log2(recipe.learning_rate / 1e-3) - 0.4 * math.log2(recipe.effective_batch_size / 16)
    v = math.log2(recipe.effective_batch_size / 32) - 0.4 * math.log2(fidelity)
    last = math.nan if x > 3 else fidelity**-0.05 * math.exp(0.004 * x * x + 0.002 * v * v)
    return [2.0, 1.5, last]


def tune(folder, *, budget=6.0, recording=basin, stop_after=None, lanes=1, num_rows=4000, **changes):
    """(store, tuning) of a study on recorded trials, run until it is done or `stop_after` trials have ended."""
    store = open_store(folder, strategy=changes.pop("strategy", "auto"), start=START, **changes)
    ended = [0]

    def counted(recipe, fidelity):
        ended[0] += 1
        return recording(recipe, fidelity)

    card = CARD.model_copy(update={"facts": CARD.facts.model_copy(update={"num_rows": num_rows})})
    executor = ReplayExecutor(counted, card=card, num_train_rows=num_rows, at_once=lanes)
    limits = Budget(full_runs=budget)
    tuning = Tuning(
        store,
        executor,
        lambda card: make_strategy(store.spec, card, budget=limits),
        limits,
        should_stop=lambda: stop_after is not None and ended[0] >= stop_after,
        keeps=lambda trials: worth_keeping(store.spec, trials),
    )
    for _ in tuning.run():
        pass
    return store, tuning


def results(store, tuning, budget=6.0):
    answer = make_judge(store.spec, tuning.ready.card, budget=tuning.budget).answer(store.trials())
    return write_results(
        store, command="finestep tune", budget=Budget(full_runs=budget), ready=READY, answer=answer
    ).as_values()


def _asked(trials):
    return [(t.recipe.learning_rate, t.recipe.effective_batch_size, t.fidelity, t.stage, t.why) for t in trials]


def test_a_killed_study_goes_on_exactly(tmp_path):
    store, _ = tune(tmp_path / "quiet", num_rows=40_000)
    quiet = _asked(store.trials())
    assert len(quiet) > 5
    for number in range(1, len(quiet) + 2):
        store, _ = tune(tmp_path / "killed", num_rows=40_000, stop_after=1 if number <= len(quiet) else None)
        assert _asked(store.trials()) == quiet[: len(store.trials())]
        store.close()
    assert len(_asked(store.trials())) == len(quiet)


def test_several_lanes_keep_to_the_budget(tmp_path):
    store, tuning = tune(tmp_path, lanes=4)
    assert sum(t.fidelity for t in store.trials()) <= 6.0 + 1e-6
    assert results(store, tuning)["best"]["eval_loss"] < 1.01


def test_the_result_says_what_was_found_and_how_sure_it_is(tmp_path):
    store, tuning = tune(tmp_path, budget=8.0)
    result = results(store, tuning, 8.0)
    assert result["baseline"]["learning_rate"] == 2e-4
    assert result["best"]["eval_loss"] <= result["baseline"]["eval_loss"]
    assert result["best"]["fidelity"] == 1.0
    answer = result["answer"]
    assert answer["trial"] == result["best"]["trial"]
    row = next(r for r in answer["trade_offs"] if r["effective_batch_size"] == result["best"]["effective_batch_size"])
    assert row["learning_rate"]["low"] <= 1e-3 * 1.6
    assert row["learning_rate"]["high"] >= 1e-3 / 1.6
    assert 0 <= answer["expected_regret"] < 3
    assert json.loads((tmp_path / "result.json").read_text()) == result
    page = (tmp_path / "report.html").read_text()
    assert "expected to be within" in page
    assert result["start"]["why"] == "recommend"
    assert {"baseline", "best", "trials", "spent", "paths"} <= result.keys()
    assert read_recipe(tmp_path / "recipe.yaml").learning_rate == result["best"]["learning_rate"]


def test_a_budget_below_one_run_predicts(tmp_path):
    store, tuning = tune(tmp_path, budget=0.6)
    result = results(store, tuning, 0.6)
    assert result["best"] is None
    assert all(trial["fidelity"] < 1 for trial in result["trials"])
    assert 1e-4 < result["answer"]["learning_rate"] < 1e-2
    assert "not yet run at full length" in result["answer"]["sentence"]
    assert read_recipe(tmp_path / "recipe.yaml").effective_batch_size == result["answer"]["effective_batch_size"]


def test_a_budget_of_one_run_gives_a_model(tmp_path):
    store, tuning = tune(tmp_path, budget=1.0)
    assert results(store, tuning, 1.0)["best"] is not None


@pytest.mark.parametrize("budget", [1.0, 2.0])
def test_after_one_or_two_runs_no_per_cent_is_promised_and_the_way_on_is_said(tmp_path, budget):
    store, tuning = tune(tmp_path, budget=budget)
    answer = make_judge(store.spec, tuning.ready.card, budget=tuning.budget).answer(store.trials())
    command = f"finestep tune m d.jsonl --budget {budget:g}"
    result = write_results(store, command=command, budget=tuning.budget, ready=READY, answer=answer).as_values()
    assert result["settled"] is False
    assert result["next_command"] == "finestep tune m d.jsonl --budget 6"
    assert result["answer"]["expected_regret"] is result["answer"]["expected_gain"] is None
    console = Console(record=True, width=120)
    print_card(console, StudyResult.model_validate(result))
    text = " ".join(console.export_text().replace("│", " ").split())
    assert "not settled between" in text
    assert "go on with `finestep tune m d.jsonl --budget 6`" in text
    assert "regret" not in text
    page = (tmp_path / "report.html").read_text()
    verdict = page.partition('"verdict":')[2].partition('"tiles":')[0]
    assert '"tag":"unsettled"' in verdict
    assert "The best learning rate at this batch lies between" in verdict
    assert "--budget 6" in verdict
    store.close()
    longer, _ = tune(tmp_path, budget=6.0)
    assert _asked(longer.trials())[: len(result["trials"])] == _asked(store.trials())[: len(result["trials"])]
    assert len(longer.trials()) > len(result["trials"])


def test_a_settled_study_says_so_and_needs_no_further_command(tmp_path):
    store, tuning = tune(tmp_path, budget=8.0)
    result = results(store, tuning, 8.0)
    assert result["settled"] is True
    assert result["next_command"] is None
    assert "Not settled" not in (tmp_path / "report.html").read_text()


def test_a_rate_outside_its_interval_says_why(tmp_path):
    """Of all trials of some studies: where the tested rate is not between the two that are named, the reason is."""
    said = [
        t
        for start in (START, START.model_copy(update={"learning_rate": 3e-3}))
        for t in tune(tmp_path / f"{start.learning_rate}")[0].trials()
    ]
    for trial in said:
        found = re.search(r"between ([\d.e-]+) and ([\d.e-]+)", trial.why)
        if found:
            low, high = (float(x.rstrip(".")) for x in found.groups())
            outside = not 0.97 * low <= trial.recipe.learning_rate <= 1.03 * high
            assert ("this lies" in trial.why) == outside or not outside, trial.why


@pytest.mark.parametrize("loss", [math.nan, None], ids=["diverged", "failed"])
def test_a_study_whose_trials_all_failed_ends_with_a_clear_answer(tmp_path, loss):
    store, tuning = tune(tmp_path, recording=lambda recipe, fidelity: None if loss is None else [loss])
    result = results(store, tuning)
    assert result["best"] is None
    assert result["answer"]["learning_rate"] is None
    assert "every trial failed" in result["answer"]["sentence"]
    assert len(result["trials"]) <= 10


@pytest.mark.parametrize("strategy", ["random", "tpe"])
def test_other_strategies_end_with_an_answer_too(tmp_path, strategy):
    store, tuning = tune(tmp_path, strategy=strategy, budget=5.0)
    assert len(store.trials()) == 5
    result = results(store, tuning, 5.0)
    assert result["baseline"] is None
    assert result["answer"]["trial"] == result["best"]["trial"]
    store.close()
    again, _ = tune(tmp_path, strategy=strategy, budget=7.0)
    assert len({t.recipe.learning_rate for t in again.trials()}) == 7


def test_only_the_chosen_weights_stay(tmp_path):
    store, tuning = tune(tmp_path)
    for trial in store.trials():
        (store.trial_folder(trial.number) / "model").mkdir(exist_ok=True)
    result = results(store, tuning)
    drop_other_models(store, StudyResult.model_validate(result))
    kept = [path.parent.name for path in tmp_path.glob("trials/*/model")]
    assert kept == [f"{result['best']['trial']:04d}"]


def test_short_runs_leave_no_weights(tmp_path):
    folder = tmp_path / "s"

    def recording(recipe, fidelity):
        if fidelity < 1:
            last = sorted((folder / "trials").glob("*"))[-1]
            (last / "model").mkdir()
        return basin(recipe, fidelity)

    store, _ = tune(folder, budget=0.6, recording=recording)
    assert len(store.trials()) > 1
    assert not list(folder.glob("trials/*/model"))


def test_a_tuned_field_reaches_the_trials(tmp_path):
    tuned = parse_tuned("rank=8/16/64", Recipe())
    store, tuning = tune(
        tmp_path,
        tuned=tuned,
        recipe=with_starts(Recipe(), tuned),
        budget=8.0,
        recording=lambda recipe, fidelity: [basin(recipe, fidelity)[-1] * (1.05 if recipe.lora.rank == 16 else 1.0)],
    )
    assert results(store, tuning)["best"]["trial"] is not None
    best = store.trials()[results(store, tuning)["best"]["trial"]]
    assert best.recipe.lora.rank != 16


def test_the_start_comes_from_the_recommendation(shipped_model, instruct_file):
    model, data = ModelSpec(path=str(shipped_model)), DataSpec(path=str(instruct_file), max_length=96)
    start, note = starting_point(model, data, Recipe(method="lora"))
    assert note is None
    assert 2e-3 < start.learning_rate < 5e-2
    assert start.learning_rate_sd >= 0.6
    assert "recommend" in start_words(start)
    large, note = starting_point(ModelSpec(path="meta-llama/Llama-3.1-8B"), data, Recipe(method="full"))
    assert note is None, "a model that does not fit this machine has a prior all the same"
    assert large.learning_rate < 1e-4
    unknown, note = starting_point(ModelSpec(path="/nowhere/model"), data, Recipe(method="lora"))
    assert "no prior" in note
    assert unknown.learning_rate_sd > start.learning_rate_sd


def test_objectives_have_a_direction():
    assert objective_and_goal("accuracy") == ("accuracy", "maximize")
    assert objective_and_goal("max:bleu") == ("bleu", "maximize")
    with pytest.raises(BadInput, match="min:NAME or max:NAME"):
        objective_and_goal("bleu")
    with pytest.raises(BadInput, match="did you mean `accuracy`"):
        objective_and_goal("acuracy")


def test_an_objective_that_no_run_would_have_is_refused(shipped_model, instruct_file):
    def asked(strategy="auto", **more):
        return tuning_spec(
            model=ModelSpec(path=str(shipped_model)),
            data=DataSpec(path=str(instruct_file)),
            recipe=Recipe(),
            with_prior=False,
            strategy=strategy,
            options=StudyOptions(**more),
        )

    with pytest.raises(BadInput, match="needs data with labels"):
        asked(objective="accuracy", goal="maximize")
    with pytest.raises(BadInput, match="--metric exact_match"):
        asked(objective="exact_match", goal="maximize")
    with pytest.raises(BadInput, match="ranks by validation loss"):
        asked(strategy="sweep", objective="exact_match", goal="maximize", metrics=("exact_match",))
    with pytest.raises(BadInput, match="did you mean `sweep`"):
        asked(strategy="sweeep")


def test_auto_may_spend_a_fifth_of_a_sweep():
    assert traits_of("auto").default_budget_runs == 3.0
    assert traits_of("sweep").default_budget_runs == traits_of("tpe").default_budget_runs == 16.0


@pytest.mark.parametrize(
    ("cores", "threads", "changes", "may"),
    [
        (4, None, {}, True),
        (1, None, {}, False),  # a container with one core on a large machine
        (4, "1", {}, False),
        (1, "2", {}, True),
        (4, None, {"num_threads": 4}, False),
        (4, None, {"most_lanes": 1}, False),
    ],
)
def test_a_second_worker_is_prepared_only_where_it_may_pay(cores, threads, changes, may, monkeypatch):
    monkeypatch.setattr("joblib.cpu_count", lambda: cores)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if threads:
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
    model, data = ModelSpec(path="m", device="cpu"), DataSpec(path="d.jsonl")
    assert may_need_two(SessionRequest(model=model, data=data, recipe=Recipe(), study_dir="s", **changes)) is may
