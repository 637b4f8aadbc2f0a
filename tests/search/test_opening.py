"""The first two full runs of a short study: where they go, and when the search keeps its own mind."""

import math

import pytest

from finestep.facts import DataFacts
from finestep.ready import DataCard
from finestep.recipe import Recipe
from finestep.search.ask_tell import ended
from finestep.search.calibrated import width_factor
from finestep.search.opening import DECIDES_ALL, PATH, PATH_OF_MORE, PATH_WITHOUT_PRIOR, opening_of, place_of
from finestep.search.prior import SearchPrior
from finestep.search.space import SearchSpace
from finestep.search.strategy import apply_proposal
from finestep.search.study_space import FEW_STEPS, MANY_STEPS, no_prior
from finestep.studies.strategies import make_judge
from finestep.study import Budget, DataSpec, ModelSpec, StartingPoint, StudySpec
from finestep.trial import Cost, Outcome, Trial

START = StartingPoint(learning_rate=1e-3, learning_rate_sd=1.6, batch_size=4, batch_size_sd=1.0, why="recommend")


def search(*, num_rows=300, start=START, budget=3.0, **changes):
    values = {"name": "t", "model": ModelSpec(path="m"), "data": DataSpec(path="d"), "recipe": Recipe(num_epochs=1)}
    spec = StudySpec.model_validate({**values, "start": start, "strategy": "auto", **changes})
    return make_judge(
        spec, DataCard(facts=DataFacts(name="d", num_rows=num_rows, num_eval_rows=64)), budget=Budget(full_runs=budget)
    )


def played(strategy, losses, *, budget=3.0, at_once=1):
    """Trials of a study whose runs end with these losses, and what is proposed next."""
    trials = []
    for loss in losses:
        (wish, *_) = strategy.propose(trials, remaining_runs=budget - len(trials))
        made = Trial(
            number=len(trials),
            recipe=apply_proposal(Recipe(num_epochs=1), wish),
            fidelity=wish.fidelity,
            is_baseline=wish.is_baseline,
        )
        trials.append(ended(made, loss))
    return trials, strategy.propose(trials, remaining_runs=budget - len(trials), max_proposals=at_once)


def test_the_second_run_of_a_short_study_trains_more():
    trials, (second,) = played(search(), [2.0])
    assert trials[0].recipe.effective_batch_size == 4
    assert trials[0].recipe.learning_rate == pytest.approx(1e-3, rel=0.2)
    assert second.effective_batch_size == 2
    assert second.learning_rate == pytest.approx(2e-3, rel=0.2)
    assert second.fidelity == 1.0
    assert "few steps mostly train too little" in second.why
    assert second.stage == "full runs"


@pytest.mark.parametrize("num_rows", [8 * 100, 8 * FEW_STEPS, 8 * 399])
def test_from_a_batch_of_eight_on_each_given_run_makes_more_and_smaller_steps(num_rows):
    made = search(num_rows=num_rows, start=START.model_copy(update={"batch_size": 8}))
    trials, (third,) = played(made, [2.0, 1.9])
    assert [one.recipe.effective_batch_size for one in trials] == [8, 2]
    assert trials[1].recipe.learning_rate == pytest.approx(trials[0].recipe.learning_rate / 2, rel=0.2)
    assert third.effective_batch_size == 1
    assert third.learning_rate == trials[1].recipe.learning_rate
    assert "so this run makes more of them" in third.why
    _, (other,) = played(made, [2.0, 2.1])
    assert "few steps" not in other.why


def test_it_is_repeated_where_it_pays():
    trials, (third,) = played(search(), [2.0, 1.9])
    assert third.effective_batch_size == 2
    assert third.learning_rate == pytest.approx(4 * trials[0].recipe.learning_rate, rel=0.2)


@pytest.mark.parametrize("second", [2.1, math.inf], ids=["worse", "diverged"])
def test_where_the_second_does_not_pay_the_third_makes_more_and_smaller_steps(second):
    trials, (third,) = played(search(), [2.0, second])
    assert third.effective_batch_size == 1
    assert third.learning_rate == pytest.approx(trials[0].recipe.learning_rate / 2, rel=0.2)
    assert "more at a higher rate was worse, so this run makes more and smaller steps" in third.why
    assert third.stage == "full runs"


@pytest.mark.parametrize(
    "losses", [[2.0, 2.1, 2.2], [2.0, 2.1, 1.9], [2.0, 1.9, 1.8]], ids=["none paid", "the third paid", "all paid"]
)
def test_then_the_search_decides(losses):
    trials, (wish,) = played(search(budget=5.0, with_baseline=False), losses, budget=5.0)
    places = [(one.recipe.learning_rate, one.recipe.effective_batch_size) for one in trials]
    assert (wish.learning_rate, wish.effective_batch_size) not in places
    assert "few steps mostly train too little" not in wish.why


def test_a_baseline_and_a_second_lane_change_nothing_of_it():
    trials, proposals = played(search(budget=6.0), [3.0], budget=6.0, at_once=2)
    assert trials[0].is_baseline
    assert [one.effective_batch_size for one in proposals] == [4, 2]
    assert proposals[1].learning_rate == pytest.approx(2e-3, rel=0.2)


@pytest.mark.parametrize(
    ("changes", "octaves"),
    [
        ({}, (-1, -2)),
        ({"num_rows": 1000, "start": START.model_copy(update={"batch_size": 8})}, (-1, -3)),
        ({"start": None, "with_baseline": False}, (4, -3)),
    ],
    ids=["few rows", "more rows", "no recommendation"],
)
def test_while_the_second_run_goes_on_a_free_device_takes_the_next_given_one(changes, octaves):
    made = search(budget=5.0, **changes)
    trials, (wish,) = played(made, [2.0], budget=5.0)
    going_on = Trial(number=1, recipe=apply_proposal(Recipe(num_epochs=1), wish), state="running")
    (third,) = made.propose([*trials, going_on], remaining_runs=3.0)
    first = trials[0].recipe
    assert third.learning_rate == pytest.approx(first.learning_rate * 2.0 ** octaves[0], rel=0.2)
    assert third.effective_batch_size == first.effective_batch_size * 2 ** octaves[1]
    assert "was worse" not in third.why


def test_the_step_back_is_made_where_further_fields_are_tuned_too():
    made = search(tuned=[{"name": "lora.rank", "values": [8, 16, 32, 64]}], with_baseline=False)
    trials, (third,) = played(made, [2.0, 2.1])
    assert third.effective_batch_size == 1
    assert third.learning_rate == pytest.approx(trials[0].recipe.learning_rate / 2, rel=0.2)


def test_a_second_run_that_was_not_higher_is_followed_by_no_step_back():
    made = search(start=START.model_copy(update={"learning_rate": 0.1}))  # no rate above may be tried
    trials, (third,) = played(made, [2.0, 2.1])
    assert trials[1].recipe.learning_rate < trials[0].recipe.learning_rate
    assert "more at a higher rate was worse" not in third.why


@pytest.mark.parametrize("prefer", ["quality", "speed"])
def test_the_interval_holds_the_chosen_rate(prefer):
    made = search(budget=6.0, with_baseline=False, prefer=prefer)
    trials, _ = played(made, [2.0, 1.9999, 1.99], budget=6.0)
    timed = [
        trial.model_copy(update={"outcome": trial.outcome.model_copy(update={"cost": cost_of(trial)})})
        for trial in trials
    ]
    said = made.answer(timed)
    chosen = timed[said.trial].recipe
    assert said.rate.low <= chosen.learning_rate <= said.rate.high
    assert f"trial {said.trial}:" in said.sentence


def cost_of(trial):
    """Twice the rows a step, half the time."""
    return Cost(num_train_tokens=1000, elapsed_s=100 / trial.recipe.effective_batch_size)


@pytest.mark.parametrize("batch", [1, 8], ids=["one row already", "eight devices"])
def test_a_lower_rate_is_given_only_with_a_smaller_batch(batch):
    space = SearchSpace.between((1e-5, 1e-1), (batch, 64))
    prior = SearchPrior(learning_rate=1e-3, batch_size=batch)
    assert place_of((-1.0, -2.0), prior, space) is None
    rate, same = place_of((1.0, -1.0), prior, space)
    assert 2**rate == pytest.approx(2e-3, rel=0.2)
    assert 2**same == batch


def test_after_a_run_that_diverged_the_search_goes_down():
    _, (second,) = played(search(), [float("nan")])
    assert second.learning_rate < 1e-3


@pytest.mark.parametrize(
    "changes",
    [
        {"num_rows": 4 * MANY_STEPS},
        {"start": START.model_copy(update={"learning_rate_reach": 2.0})},
        {"start": None, "num_rows": 16 * FEW_STEPS},
        {"start": START.model_copy(update={"learning_rate_sd": 2.0})},
    ],
    ids=["many steps", "the user's own rate", "many steps and no recommendation", "the rate of a file"],
)
def test_other_studies_choose_by_themselves(changes):
    made = search(**changes)
    assert not made.opening.path
    assert search().opening.path == PATH


def test_further_fields_are_tried_by_short_runs_first():
    assert opening_of(START, num_rows=4 * FEW_STEPS).path == PATH_OF_MORE
    assert opening_of(START, num_rows=4 * FEW_STEPS, num_further_fields=1) == DECIDES_ALL


def test_epochs_count_as_steps():
    assert opening_of(START, num_rows=300).path == PATH
    assert opening_of(START, num_rows=300 * 3).path == PATH_OF_MORE


def test_the_smallest_batch_size_stays_and_only_the_rate_is_doubled():
    start = START.model_copy(update={"batch_size": 1.0})
    _, (second,) = played(search(num_rows=100, start=start), [2.0])
    assert (second.effective_batch_size, second.learning_rate) == (1, pytest.approx(2e-3, rel=0.2))


def test_without_a_recommendation_the_step_is_repeated_as_long_as_it_pays():
    made = search(start=None, budget=9.0, with_baseline=False)
    trials, (fourth,) = played(made, [3.0, 2.8, 2.9], budget=9.0)
    batches = [one.recipe.effective_batch_size for one in trials]
    rates = [one.recipe.learning_rate for one in trials]
    assert made.opening.path == PATH_WITHOUT_PRIOR
    assert batches == [8, 4, 1]
    assert rates[2] == pytest.approx(16 * rates[0], rel=0.2)
    assert fourth.learning_rate < 64 * rates[0] * 0.8


def test_without_a_recommendation_a_fourth_run_is_given_where_the_third_paid():
    made = search(start=None, budget=9.0, with_baseline=False)
    trials, (fourth,) = played(made, [3.0, 2.8, 2.5], budget=9.0)
    assert fourth.learning_rate == pytest.approx(64 * trials[0].recipe.learning_rate, rel=0.2)


def test_full_fine_tuning_without_a_recommendation_steps_wider():
    made = search(start=None, recipe=Recipe(method="full", num_epochs=1), num_rows=600, with_baseline=False)
    trials, (second,) = played(made, [3.0])
    assert second.learning_rate == pytest.approx(8 * trials[0].recipe.learning_rate, rel=0.2)
    assert trials[0].recipe.effective_batch_size / second.effective_batch_size >= 4


def test_the_command_has_it_too():
    """`--no-prior` writes down the usual rate as the start of the study; it is no recommendation."""
    made = search(start=no_prior(Recipe()))
    assert made.opening.path == PATH_WITHOUT_PRIOR


def test_a_run_that_memory_could_not_hold_is_followed_by_half_its_batch():
    made = search()
    (first,) = made.propose([], remaining_runs=3.0)
    recipe = apply_proposal(Recipe(num_epochs=1), first)
    lost = Trial(number=0, recipe=recipe, state="out_of_memory", outcome=Outcome(state="out_of_memory"))
    (second,) = made.propose([lost], remaining_runs=3.0)
    assert second.effective_batch_size == first.effective_batch_size // 2


def test_without_a_recommendation_the_usual_default_is_the_first_step():
    trials, (third,) = played(search(start=None, budget=6.0), [3.0, 2.8], budget=6.0)
    assert trials[0].is_baseline
    assert trials[1].recipe.learning_rate == pytest.approx(4 * trials[0].recipe.learning_rate, rel=0.2)
    assert third.learning_rate == pytest.approx(16 * trials[0].recipe.learning_rate, rel=0.2)
    assert third.effective_batch_size == 1


def test_without_a_recommendation_small_batches_are_within_reach():
    assert search(start=None).space.batch_sizes[0] == 1


def test_the_usual_default_does_not_make_an_interval_narrower():
    trials, _ = played(search(budget=6.0), [3.0, 2.0, 1.9, 2.1], budget=6.0)
    assert trials[0].is_baseline
    own = [one for one in trials if not one.is_baseline]
    assert width_factor(trials) == width_factor(own)


def test_an_interval_ends_where_no_rate_may_be_tried():
    made = search(start=None)
    trials, _ = played(made, [3.0])
    (row, *_) = made.answer(trials).trade_offs
    assert made.space.learning_rates[0] <= row.learning_rate.low <= row.learning_rate.high
    assert row.learning_rate.high <= made.space.learning_rates[-1]


def test_the_usual_default_settles_nothing():
    """It lies far off: with it, two full runs of the search's own are not three."""
    made = search(budget=9.0)
    trials, _ = played(made, [3.0, 2.0, 2.5, 2.6], budget=9.0)
    assert trials[0].is_baseline
    assert not made.answer(trials[:3]).settled


def test_a_short_study_does_not_end_before_five_runs_of_its_own():
    losses = [3.0, 1.0, 1.5, 1.6, 1.7]
    _, more = played(search(budget=9.0), losses, budget=9.0)
    assert more
