"""The winner is the plain minimum or maximum of what finished; what is no finite number never wins and moves nobody."""

import itertools
import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from finestep.cli.main import app
from finestep.recipe import Recipe
from finestep.search.leader import leader, worth_keeping
from finestep.search.observations import observe
from finestep.search.prior import SearchPrior
from finestep.search.space import SearchSpace
from finestep.search.structured import StructuredSearch
from finestep.search.study_space import objective_of
from finestep.search.sweep import best_trial
from finestep.search.unit import Reading
from finestep.store.study_store import StudyStore
from finestep.studies.strategies import make_judge
from finestep.study import DataSpec, ModelSpec, SearchSpec, StudySpec
from finestep.trial import Outcome, Trial
from tests.flows.studies import CARD

FINITE = st.floats(allow_nan=False, allow_infinity=False)
NOT_FINITE = st.sampled_from([math.nan, math.inf, -math.inf])


def spec(objective="eval_loss", goal="minimize"):
    return StudySpec(
        name="n",
        model=ModelSpec(path="m"),
        data=DataSpec(path="d"),
        recipe=Recipe(),
        objective=objective,
        goal=goal,
    )


def trial(number, value, *, metric=None, state="completed"):
    outcome = Outcome(state=state, eval_loss=1.0 if metric else value, metrics={metric: value} if metric else {})
    rate = 1e-5 * 1.1 ** ((number * 7) % 11)
    return Trial(number=number, recipe=Recipe(learning_rate=rate), state=state, outcome=outcome)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(FINITE, min_size=1, max_size=8),
    st.lists(NOT_FINITE, max_size=3),
    st.sampled_from([(None, "minimize"), ("score", "minimize"), ("score", "maximize")]),
)
def test_the_leader_is_the_plain_best_whatever_the_sign_and_size(values, others, what):
    metric, goal = what
    study = spec(metric or "eval_loss", goal)
    good = [trial(number, value, metric=metric) for number, value in enumerate(values)]
    bad = [trial(len(values) + i, value, metric=metric) for i, value in enumerate(others)]
    best = min(values) if goal == "minimize" else max(values)

    found = leader(study, [*bad, *good])

    assert values[found.number] == best
    rates = [one.recipe.learning_rate for one, value in zip(good, values, strict=True) if value == best]
    assert found.recipe.learning_rate == min(rates)
    assert found.number in worth_keeping(study, [*good, *bad])
    if metric is None:
        assert best_trial([*bad, *good]).number == found.number
    objective = objective_of(study, good)
    losses = [objective.log_loss(value) for value in values]
    assert all(map(math.isfinite, losses))
    order = sorted(range(len(values)), key=lambda i: objective.rank(values[i]))
    assert all(losses[a] <= losses[b] for a, b in itertools.pairwise(order))


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.one_of(FINITE, st.floats(1.0, 1.0 + 1e-12)), min_size=1, max_size=6),
    st.sampled_from([(None, "minimize"), ("score", "minimize"), ("score", "maximize")]),
    st.sampled_from(["auto", "random", "tpe"]),
)
def test_whoever_searches_the_plain_best_is_chosen(values, what, strategy):
    metric, goal = what
    study = spec(metric or "eval_loss", goal).model_copy(update={"search": SearchSpec(strategy=strategy)})
    trials = [trial(number, value, metric=metric) for number, value in enumerate(values)]

    answer = make_judge(study, CARD).answer(trials)

    assert values[answer.trial] == (min(values) if goal == "minimize" else max(values))
    assert answer.trial in worth_keeping(study, trials)


@pytest.mark.parametrize("shift", [0.0, -3.0, -1e6])
def test_the_search_sees_a_basin_below_zero(shift):
    rates = [1e-5 * 2**k for k in range(7)]
    trials = [
        Trial(
            number=i,
            recipe=Recipe(learning_rate=rate, effective_batch_size=16),
            state="completed",
            outcome=Outcome(state="completed", eval_loss=shift + 2.0 + 0.02 * (i - 3) ** 2),
        )
        for i, rate in enumerate(rates)
    ]
    objective = objective_of(spec(), trials)
    space = SearchSpace.between((1e-5, 1e-3), (16, 16), fidelities=(1.0,))
    seen = observe(trials, space, objective)
    assert seen.excess.argmin() == 3
    assert all(seen.excess[i] > seen.excess[3] for i in range(7) if i != 3)
    reading = Reading.of(trials, objective, SearchPrior(learning_rate=8e-5))
    answer = StructuredSearch(space, reading.prior(SearchPrior(learning_rate=8e-5))).answer(reading.losses(trials))
    assert answer.trial == 3


COMMAND = (
    "awk 'BEGIN {{{{ x = log({{learning_rate}} / {best}) / log(2); printf \"loss %.12g\", {scale} * (x * x - 5) }}}}'"
)


@pytest.mark.parametrize(("strategy", "scale"), [("sweep", 1.0), ("auto", 1.0), ("tpe", 1.0), ("auto", 1e-13)])
def test_a_command_with_results_below_zero_finds_the_true_best(tmp_path, strategy, scale):
    command = COMMAND.format(best=6e-4, scale=scale)
    done = CliRunner().invoke(
        app,
        [
            "tune",
            "--command",
            command,
            "--result",
            "eval_loss=loss ([-+.e0-9]+)",
            "--rows",
            "400",
            "--json",
            "--strategy",
            strategy,
            "--budget",
            "9",
            "--out",
            str(tmp_path / "study"),
        ],
    )
    result = json.loads(done.stdout.splitlines()[-1])
    losses = [one["eval_loss"] for one in result["trials"] if one["fidelity"] == 1.0]
    assert min(losses) < 0
    best = result["best"]
    assert best["eval_loss"] == min(losses)
    assert abs(math.log2(best["learning_rate"] / 6e-4)) < 1.2


def test_optuna_counts_only_what_may_win(tmp_path):
    import optuna

    store = StudyStore(tmp_path, spec(), {})
    for loss, fidelity, more in (
        (2.0, 1.0, {}),
        (1.0, 0.25, {}),
        (0.5, 1.0, {"kl_at_end": 1.0, "kl_limit": 0.1}),
        (math.nan, 1.0, {}),
        (-math.inf, 1.0, {}),
    ):
        added = store.add(Recipe(), fidelity=fidelity, stage="s", why="w")
        ended = store.finish(added.number, Outcome(state="completed", eval_loss=loss, **more))
        assert ended.state == ("completed" if math.isfinite(loss) else "diverged")
    store.close()
    assert "nan" in ended.outcome.reason or "inf" in ended.outcome.reason
    study = optuna.load_study(study_name="n", storage=f"sqlite:///{tmp_path}/study.db")
    assert study.best_trial.number == 0


def test_a_metric_that_is_no_number_is_named(tmp_path):
    done = CliRunner().invoke(
        app,
        [
            "tune",
            "--command",
            "echo loss 1.5 score nan {learning_rate}",
            "--result",
            "eval_loss=loss ([0-9.]+)",
            "--result",
            "score=score ([a-z]+)",
            "--objective",
            "max:score",
            "--rows",
            "64",
            "--strategy",
            "random",
            "--budget",
            "2",
            "--out",
            str(tmp_path / "study"),
        ],
    )
    assert done.exit_code == 1
    assert "`score` is nan" in done.output


def test_the_names_of_the_last_version_still_serve_scripts(tmp_path):
    from finestep.flows.show import show_study
    from finestep.studies.strategies import make_judge as old_name

    store = StudyStore(tmp_path, spec(), {})
    for loss in (2.0, 1.0, math.nan):
        store.finish(
            store.add(Recipe(), fidelity=1.0, stage="s", why="w").number, Outcome(state="completed", eval_loss=loss)
        )
    store.close()
    assert show_study(tmp_path)["best"]["trial"] == 1
    assert old_name is make_judge
