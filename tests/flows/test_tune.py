"""The tuning loop on recorded trials: it finds the best, keeps to its budget, and loses nothing."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from finestep.cli.card import print_card
from finestep.errors import FinestepError, StudyBusy, StudyChanged
from finestep.executors.replay import ReplayExecutor
from finestep.protocol import Event
from finestep.recipe import Recipe
from finestep.search.sweep import Sweep, best_trial
from finestep.store.records import append_line
from finestep.studies.files import write_results
from finestep.studies.spent import runs_spent, study_spent
from finestep.studies.tuning import Tuning
from finestep.studies.words import report_notes
from finestep.study import Budget, DataSpec, SearchSpec
from finestep.trial import Cost, Outcome, Trial
from tests.flows.studies import CARD, READY, basin, open_store, tune


def test_the_sweep_finds_the_bottom_of_the_bowl(tmp_path):
    store = open_store(tmp_path)
    events, _ = tune(store)
    best = best_trial(store.trials())
    assert events[-1].kind == "done"
    assert best.recipe.learning_rate == pytest.approx(1.4e-3, rel=0.5)
    assert best.outcome.eval_loss < 1.03
    stages = [trial.stage for trial in store.trials()]
    assert stages == sorted(stages, key=["baseline", "learning-rate scan", "batch test", "refinement"].index)


def test_the_budget_is_kept(tmp_path):
    store = open_store(tmp_path)
    tune(store, budget=4)
    assert len(store.trials()) == 4
    assert runs_spent(store.trials()) == pytest.approx(4, rel=0.01)


def test_longer_runs_cost_more_where_epochs_are_tuned():
    def trial(number, epochs, fidelity=1.0):
        outcome = Outcome(state="completed", eval_loss=1.0, cost=Cost(num_train_tokens=round(1000 * epochs * fidelity)))
        recipe = Recipe(num_epochs=epochs)
        return Trial(number=number, recipe=recipe, fidelity=fidelity, state="completed", outcome=outcome)

    trials = [trial(0, 1.0), trial(1, 3.0), trial(2, 2.0, 0.5)]
    assert runs_spent(trials, num_epochs=1.0) == pytest.approx(5.0)


def out_of_memory(number, tokens):
    outcome = Outcome(state="out_of_memory", cost=Cost(num_train_tokens=tokens))
    return Trial(number=number, recipe=Recipe(), state="out_of_memory", outcome=outcome)


def test_a_trial_that_never_trained_for_want_of_memory_costs_the_search_nothing(tmp_path):
    whole = Trial(
        number=0,
        recipe=Recipe(),
        state="completed",
        outcome=Outcome(state="completed", eval_loss=1.0, cost=Cost(num_train_tokens=1000)),
    )
    trials = [whole, out_of_memory(1, 0), out_of_memory(2, 250)]
    spec = open_store(tmp_path).spec
    automatic = spec.model_copy(update={"search": SearchSpec(strategy="auto")})
    assert study_spent(automatic, trials, None) == pytest.approx(1.25)
    random = spec.model_copy(update={"search": SearchSpec(strategy="random")})
    assert study_spent(random, trials, None) == pytest.approx(2.25), "it could draw such batch sizes for ever"


def test_what_was_done_for_memory_is_said_with_the_chosen_trial(tmp_path):
    store = open_store(tmp_path)
    tune(store, budget=2)
    best = best_trial(store.trials())
    told = ["out of memory: micro-batch 2, accumulation 4; the same step again", "the loss rises"]
    for text in told:
        append_line(store.trial_folder(best.number) / "notes.jsonl", json.dumps({"text": text}))
    result = write_results(store, command="again", budget=Budget(full_runs=2))
    assert result.memory == (told[0],)
    assert any("micro-batch 2, accumulation 4" in note for note in report_notes(result))
    page = io.StringIO()
    print_card(Console(file=page, width=160), result)
    assert "memory" in page.getvalue()
    assert told[0] in page.getvalue()


def test_a_larger_budget_goes_on_without_repeating(tmp_path):
    store = open_store(tmp_path)
    tune(store, budget=3)
    _, executor = tune(store, budget=6)
    assert executor.num_started == 3
    assert len(store.trials()) == 6


def test_a_finished_study_starts_nothing(tmp_path):
    store = open_store(tmp_path)
    tune(store)
    before = store.trials()
    _, executor = tune(store)
    assert executor.num_started == 0
    assert store.trials() == before


class Untouchable(ReplayExecutor):
    """A worker that must not be started."""

    def start(self):
        raise AssertionError("a worker was started")


def test_a_finished_study_answers_without_a_worker(tmp_path):
    store = open_store(tmp_path)
    tune(store, budget=4)
    again = Tuning(store, Untouchable(basin), lambda card: Sweep("lora"), Budget(full_runs=4))
    ready, done = again.run()
    assert (ready.kind, ready.is_finished, done.kind) == ("ready", True, "done")
    assert again.ready.card == CARD
    assert len(ready.trials) == 4
    with pytest.raises(AssertionError, match="was started"):
        list(Tuning(store, Untouchable(basin), lambda card: Sweep("lora"), Budget(full_runs=5)).run())
    store.add(store.spec.recipe, fidelity=1.0, stage="refinement", why="")
    with pytest.raises(AssertionError, match="was started"):
        list(Tuning(store, Untouchable(basin), lambda card: Sweep("lora"), Budget(full_runs=4)).run())


def test_no_trial_is_started_that_would_not_end_in_time(tmp_path):
    store = open_store(tmp_path)
    recipe = store.spec.recipe
    store.finish(
        store.add(recipe, fidelity=1.0, stage="baseline", why="", is_baseline=True).number,
        Outcome(state="completed", eval_loss=1.0, cost=Cost(elapsed_s=50.0, num_train_tokens=10)),
    )
    tuning = Tuning(
        store, ReplayExecutor(basin, card=CARD), lambda card: Sweep("lora"), Budget(full_runs=9, time_s=99.0)
    )
    assert tuning.remaining_runs() == 0.0
    assert (
        Tuning(
            store, ReplayExecutor(basin), lambda card: Sweep("lora"), Budget(full_runs=9, time_s=101.0)
        ).remaining_runs()
        == 8.0
    )


def test_an_orphan_is_taken_up_first(tmp_path):
    store = open_store(tmp_path)
    store.add(store.spec.recipe, fidelity=1.0, stage="baseline", why="", is_baseline=True)
    store.close()
    store = open_store(tmp_path)
    events, _ = tune(store)
    started = [event.trial.number for event in events if event.kind == "trial_started"]
    assert started[0] == 0
    assert len(set(started)) == len(started)
    assert all(trial.state != "running" for trial in store.trials())


def test_an_outcome_that_nobody_heard_of_counts(tmp_path):
    store = open_store(tmp_path)
    trial = store.add(store.spec.recipe, fidelity=1.0, stage="baseline", why="", is_baseline=True)
    outcome = Outcome(state="completed", eval_loss=0.123, cost=Cost(num_train_tokens=4000))
    (store.trial_folder(trial.number) / "outcome.json").write_text(outcome.model_dump_json())
    events, _ = tune(store, budget=2)
    assert store.trials()[0].outcome.eval_loss == 0.123
    assert [event.trial.number for event in events if event.kind == "trial_started"] == [1]


def test_diverged_trials_never_rank_and_are_always_shown(tmp_path):
    store = open_store(tmp_path)
    tune(
        store,
        recording=lambda recipe, fidelity: (
            [2.0, float("nan")] if recipe.learning_rate > 4e-4 else [2.0, 1.0 - recipe.learning_rate]
        ),
    )
    diverged = [trial for trial in store.trials() if trial.state == "diverged"]
    assert diverged
    assert best_trial(store.trials()).state == "completed"
    result = write_results(store, command="finestep tune", budget=Budget(), ready=READY).as_values()
    assert sum(trial["state"] == "diverged" for trial in result["trials"]) == len(diverged)


def test_a_study_whose_trials_all_failed_ends_with_a_clear_answer(tmp_path):
    store = open_store(tmp_path)
    tune(store, budget=9, recording=lambda recipe, fidelity: [float("nan")])
    result = write_results(store, command="finestep tune", budget=Budget(), ready=READY).as_values()
    assert result["best"] is None
    assert result["baseline"] is None
    assert "model" not in result["paths"]


def test_the_result_holds_what_machines_need(tmp_path):
    store = open_store(tmp_path)
    tune(store)
    result = write_results(store, command="finestep tune m d", budget=Budget(), ready=READY).as_values()
    for name in ("baseline", "best"):
        assert {"learning_rate", "effective_batch_size", "eval_loss"} <= result[name].keys()
    assert result["best"]["eval_loss"] <= result["baseline"]["eval_loss"]
    assert result["spent"]["full_runs"] <= 20
    assert json.loads((tmp_path / "result.json").read_text()) == result
    assert (tmp_path / "report.html").stat().st_size > 1000
    from finestep.store.recipe_file import read_recipe

    assert read_recipe(tmp_path / "recipe.yaml").learning_rate == result["best"]["learning_rate"]


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"data": DataSpec(path="other")}, "data.path"),
        ({"data": DataSpec(path="d", split_seed=3)}, "data.split_seed"),
        ({"strategy": "random"}, "strategy"),
        ({"scaling": "linear"}, "scaling"),
        ({"fingerprint": {"data_sha256": "x", "model_sha256": "m", "version_torch": "2.13.0"}}, "data_sha256"),
        ({"fingerprint": {"data_sha256": "d", "model_sha256": "x", "version_torch": "2.13.0"}}, "model_sha256"),
        ({"fingerprint": {"data_sha256": "d", "model_sha256": "m", "version_torch": "3.0"}}, "version_torch"),
    ],
)
def test_a_study_refuses_to_go_on_under_other_conditions(tmp_path, changes, name):
    store = open_store(tmp_path)
    tune(store, budget=1)
    store.close()
    with pytest.raises(StudyChanged, match=name):
        open_store(tmp_path, **changes)
    open_store(tmp_path).close()


def test_a_study_can_be_opened_where_torch_is_not_installed(tmp_path):
    store = open_store(tmp_path)
    tune(store, budget=1)
    store.close()
    open_store(tmp_path, fingerprint={"data_sha256": "d", "model_sha256": "m"}).close()


def test_a_study_without_trials_is_free_to_change(tmp_path):
    open_store(tmp_path).close()
    open_store(tmp_path, scaling="linear").close()


def test_two_processes_never_share_a_study(tmp_path):
    import subprocess
    import sys

    store = open_store(tmp_path)
    code = f"from tests.flows.studies import open_store; from pathlib import Path; open_store(Path({str(tmp_path)!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert StudyBusy.__name__ in done.stderr
    store.close()


def test_optunas_own_tools_read_the_study(tmp_path):
    import optuna

    store = open_store(tmp_path)
    tune(store)
    study = optuna.load_study(study_name="test", storage=f"sqlite:///{tmp_path / 'study.db'}")
    assert study.best_value == best_trial(store.trials()).outcome.eval_loss
    assert study.best_params["learning_rate"] == best_trial(store.trials()).recipe.learning_rate
    assert study.best_trial.intermediate_values


def test_a_torn_record_is_mended(tmp_path):
    store = open_store(tmp_path)
    tune(store, budget=1)
    path = store.trial_folder(0) / "steps.jsonl"
    steps = store.steps(0)
    path.write_bytes(path.read_bytes()[:-20])
    assert store.steps(0) == steps[:-1]
    append_line(path, steps[-1].model_dump_json())
    assert store.steps(0) == steps


class Fragile(ReplayExecutor):
    """A worker that dies whenever it has a trial of one learning rate, before any step."""

    def __init__(self, *args, culprit: float, **kwargs):
        super().__init__(*args, **kwargs)
        self.culprit, self.num_deaths = culprit, 0

    def events(self):
        waiting = self._turns.waiting
        while waiting:
            if any(request.recipe.learning_rate == self.culprit for request in waiting):
                waiting.clear()
                self.num_deaths += 1
                yield Event(kind="died", data={"reason": "signal 9"})
                return
            yield from self._play(waiting.pop(0))


def test_a_trial_that_kills_its_worker_fails_alone(tmp_path):
    store = open_store(tmp_path)
    executor = Fragile(basin, card=CARD, num_train_rows=4000, at_once=4, culprit=3e-4)
    tuning = Tuning(store, executor, lambda card: Sweep("lora"), Budget(full_runs=8))
    events = list(tuning.run())
    states = {trial.recipe.learning_rate: trial.state for trial in store.trials()}
    assert states.pop(3e-4) == "failed"
    failed = next(trial for trial in store.trials() if trial.state == "failed")
    assert "the worker died 3 times" in failed.outcome.reason
    assert failed.outcome.reason.endswith("signal 9"), "how it died is said too"
    assert set(states.values()) == {"completed"}
    assert len(states) == 7
    assert any("one trial at a time" in str(event.data.get("text")) for event in events)
    assert events[-1].kind == "done"


class Failing(ReplayExecutor):
    """A worker in which every trial raises, as far as `raises` says so."""

    def __init__(self, *args, raises, **kwargs):
        super().__init__(*args, **kwargs)
        self.raises = raises

    def _play(self, request):
        reason = self.raises(request)
        if reason is None:
            yield from super()._play(request)
        else:
            yield self._end(request, Outcome(state="failed", reason=reason, log="worker.log"))


@pytest.mark.parametrize(
    ("raises", "num_trials"),
    [
        (lambda request: "ValueError: the same", 2),
        (lambda request: f"ValueError: row {request.number}", 8),
        (lambda request: "ValueError: the same" if request.number else None, 8),
    ],
    ids=["all in the same way", "each in its own way", "all but the first"],
)
def test_a_study_ends_where_every_trial_fails_in_the_same_way(tmp_path, raises, num_trials):
    store = open_store(tmp_path)
    executor = Failing(basin, card=CARD, num_train_rows=4000, raises=raises)
    events = list(Tuning(store, executor, lambda card: Sweep("lora"), Budget(full_runs=8)).run())
    assert len(store.trials()) == num_trials
    assert events[-1].kind == "done"


class Refusing(ReplayExecutor):
    """A worker that comes upon something that a user can act on."""

    def events(self):
        request = self._turns.waiting.pop(0)
        yield Event(kind="interrupted", trial=request.number, data={"step": 0})
        yield Event(kind="error", data={"error": "BadInput", "text": "`x` must be a number; got 'good'"})


def test_what_a_user_can_act_on_ends_the_study_and_leaves_its_trial_open(tmp_path):
    store = open_store(tmp_path)
    with pytest.raises(FinestepError, match="`x` must be a number") as caught:
        list(Tuning(store, Refusing(basin, card=CARD), lambda card: Sweep("lora"), Budget(full_runs=8)).run())
    assert caught.value.exit_code == 2
    assert [trial.state for trial in store.trials()] == ["running"]


def test_a_study_from_before_a_field_existed_goes_on(tmp_path):
    store = open_store(tmp_path)
    tune(store, budget=1)
    store.close()
    written = json.loads((tmp_path / "study.json").read_text())
    del written["spec"]["prefer"], written["spec"]["tuned"]
    (tmp_path / "study.json").write_text(json.dumps(written))
    open_store(tmp_path).close()
    with pytest.raises(StudyChanged, match="prefer"):
        open_store(tmp_path, prefer="speed")
