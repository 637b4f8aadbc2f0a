"""The default strategy as `tune` uses it: baseline, preference for speed, metrics, the study's own unit."""

import math

import pytest

from finestep.errors import BadInput
from finestep.recipe import Recipe
from finestep.search.ask_tell import ended
from finestep.search.further_fields import dimensions, parse_tuned, with_starts
from finestep.search.leader import leader, worth_keeping
from finestep.search.observations import Objective
from finestep.search.search import Search
from finestep.search.strategy import apply_proposal
from finestep.search.study_space import (
    batch_range,
    lengths,
    metric_noise_percent,
    no_prior,
    objective_of,
    search_prior,
    search_space,
)
from finestep.search.unit import Reading, unit_of
from finestep.study import DataSpec, ModelSpec, StartingPoint, StudySpec, TunedField
from finestep.trial import Cost, Outcome, Trial

START = StartingPoint(learning_rate=2e-3, learning_rate_sd=1.0, batch_size=16, batch_size_sd=1.0)


def spec(**changes):
    values = {"name": "t", "model": ModelSpec(path="m"), "data": DataSpec(path="d"), "recipe": Recipe(), "start": START}
    return StudySpec.model_validate({**values, "strategy": "auto", **changes})


def automatic(study=None, *, budget=6.0, start=START, num_rows=4000, num_eval_rows=200):
    study = study or spec()
    space = search_space(study, start, num_rows=num_rows)
    return Search.of_study(study, space, search_prior(start), num_eval_rows=num_eval_rows, budget_runs=budget)


def bowl(recipe, fidelity, *, best=3e-3, steep=1.0):
    x = math.log2(recipe.learning_rate / best) - 0.4 * math.log2(recipe.effective_batch_size / 16)
    v = math.log2(recipe.effective_batch_size / 32) - 0.4 * math.log2(fidelity)
    return math.nan if x > 3.5 else 2.0 * fidelity**-0.05 * math.exp(steep * (0.003 * x * x + 0.002 * v * v))


def play(strategy, budget=6.0, *, function=bowl, metric=None, seconds=None, start=Recipe()):
    trials = []
    while found := strategy.propose(trials, remaining_runs=budget - sum(t.fidelity for t in trials)):
        first = found[0]
        asked = apply_proposal(start, first)
        made = Trial(
            number=len(trials),
            recipe=asked,
            fidelity=first.fidelity,
            stage=first.stage,
            why=first.why,
            is_baseline=first.is_baseline,
        )
        done = ended(made, function(made.recipe, made.fidelity), metric=metric)
        if seconds is not None and done.outcome.eval_loss is not None:
            cost = Cost(num_train_tokens=1000, elapsed_s=seconds(made.recipe))
            done = done.model_copy(update={"outcome": done.outcome.model_copy(update={"cost": cost})})
        trials.append(done)
    return trials


def test_the_baseline_comes_first_and_the_search_finds_better():
    trials = play(automatic())
    assert trials[0].stage == "baseline"
    assert (trials[0].recipe.learning_rate, trials[0].recipe.effective_batch_size) == (2e-4, 16)
    assert [t.stage for t in trials].count("baseline") == 1
    best = leader(spec(), trials)
    assert best.outcome.eval_loss < 2.0 * 1.005
    assert sum(t.fidelity for t in trials) <= 6.0 + 1e-9


@pytest.mark.parametrize("lanes", [4, 8, 32])
def test_the_baseline_is_not_run_twice_where_the_search_begins_at_the_same_place(lanes):
    start = StartingPoint(learning_rate=2e-4, learning_rate_sd=1.0, batch_size=16, batch_size_sd=1.0)
    search = automatic(spec(start=start), budget=100.0, start=start)
    found = search.propose([], remaining_runs=100, max_proposals=lanes)
    assert found[0].is_baseline
    assert len({(p.learning_rate, p.effective_batch_size, p.fidelity) for p in found}) == len(found) <= lanes
    assert len(found) >= min(lanes, 8) - 1


@pytest.mark.parametrize("budget", [2.0, 3.0])
def test_a_small_budget_leaves_the_baseline_out(budget):
    assert all(t.stage != "baseline" for t in play(automatic(budget=budget), budget))
    assert all(t.stage != "baseline" for t in play(automatic(spec(with_baseline=False))))


def test_a_study_that_goes_on_with_more_runs_makes_no_baseline_afterwards():
    begun = play(automatic(budget=2.0), 2.0)
    proposals = automatic(budget=6.0).propose(begun, remaining_runs=4.0, max_proposals=4)
    assert proposals
    assert all(proposal.stage != "baseline" for proposal in proposals)


def surrounded(*, above):
    """Full runs at one batch size whose best is the middle one; `above` is the loss of the one at the higher rate."""
    rates_and_losses = ((1.5e-3, 2.02), (3e-3, 2.0), (6e-3, above))
    return [
        ended(Trial(number=number, recipe=Recipe(learning_rate=rate, effective_batch_size=16)), loss)
        for number, (rate, loss) in enumerate(rates_and_losses)
    ]


def test_a_study_ends_once_its_best_run_stands_between_worse_ones():
    strategy = automatic(spec(with_baseline=False))
    assert strategy.propose(surrounded(above=2.02), remaining_runs=10.0) == []
    assert strategy.propose(surrounded(above=1.99), remaining_runs=10.0)
    assert strategy.propose(surrounded(above=2.02)[:2], remaining_runs=10.0)


def test_a_worse_run_at_another_batch_size_does_not_bound_the_rate_unless_any_likely_slope_puts_it_there():
    def beside(rate):
        runs = [(1.5e-3, 16, 2.02), (3e-3, 16, 2.0), (rate, 8, 2.02)]
        recipes = [Recipe(learning_rate=lr, effective_batch_size=batch) for lr, batch, _ in runs]
        trials = [ended(Trial(number=i, recipe=recipe), runs[i][2]) for i, recipe in enumerate(recipes)]
        return automatic(spec(with_baseline=False)).propose(trials, remaining_runs=10.0)

    assert beside(3e-3)
    assert beside(6e-3) == []


def test_a_baseline_far_from_the_centre_does_not_change_what_is_tried_before_the_first_full_run():
    def tried(with_baseline):
        trials = [t for t in play(automatic(spec(with_baseline=with_baseline)), 6.0) if t.stage != "baseline"]
        first_full = next(i for i, t in enumerate(trials) if t.fidelity == 1.0)
        return [(t.recipe.learning_rate, t.recipe.effective_batch_size, t.fidelity) for t in trials[: first_full + 1]]

    assert tried(True) == tried(False)


def test_a_baseline_near_the_centre_is_a_run_of_the_search_itself():
    near = StartingPoint(learning_rate=2e-4, learning_rate_sd=1.0, batch_size=16, batch_size_sd=1.0)
    strategy = automatic(spec(start=near), start=near)
    baseline = Trial(number=0, recipe=Recipe(learning_rate=2e-4, effective_batch_size=16), stage="baseline")
    assert strategy.visible([baseline]) == [baseline]
    assert automatic().visible([baseline]) == []


@pytest.mark.parametrize("steep", [1.0, 40.0])
def test_the_prior_may_be_sixteen_times_off_on_usual_and_on_steep_losses(steep):
    off = START.model_copy(update={"learning_rate": 3e-3 / 16})
    trials = play(
        automatic(spec(start=off), start=off, budget=10.0), 10.0, function=lambda r, f: bowl(r, f, steep=steep)
    )
    found = leader(spec(), trials).recipe
    assert bowl(found, 1.0, steep=1.0) < 2.0 * 1.01


def test_a_steep_study_is_seen_in_its_own_unit():
    def measured(steep):
        recipes = [Recipe(learning_rate=rate, effective_batch_size=16) for rate in (4e-4, 8e-4, 1.6e-3, 3.2e-3)]
        trials = [Trial(number=i, recipe=recipe) for i, recipe in enumerate(recipes)]
        return [ended(t, bowl(t.recipe, 1.0, steep=steep)) for t in trials]

    usual, steep = measured(1.0), measured(40.0)
    assert unit_of(usual, Objective(), search_prior(START)) == 1.0
    unit = unit_of(steep, Objective(), search_prior(START))
    assert 10 < unit < 40
    seen = [t.outcome.eval_loss for t in Reading.of(steep, Objective(), search_prior(START)).losses(steep)]
    assert sorted(range(4), key=seen.__getitem__) == sorted(range(4), key=lambda i: steep[i].outcome.eval_loss)
    assert max(seen) / min(seen) - 1 < 0.15


def test_a_little_steeper_is_a_little_noisier():
    prior = search_prior(START)
    readings = [Reading(Objective(), unit, Objective(), unit) for unit in (1.0, 1.1, 6.0, 30.0)]
    noise = [reading.prior(prior).noise / prior.noise for reading in readings]
    assert noise == pytest.approx([1.0, 1.1, 4.0, 4.0])


def test_a_short_run_shows_its_loss_where_a_share_of_rows_is_optimised():
    accuracy = Objective(metric="accuracy", goal="maximize")

    def measured(number, rate, fidelity, loss, share):
        outcome = Outcome(state="completed", eval_loss=loss, metrics={"accuracy": share})
        recipe = Recipe(learning_rate=rate, effective_batch_size=16)
        return Trial(number=number, recipe=recipe, fidelity=fidelity, state="completed", outcome=outcome)

    short = [
        measured(0, 1e-4, 0.125, 4.3, 0.02),
        measured(1, 2e-4, 0.125, 4.1, 0.02),
        measured(2, 4e-4, 0.125, 3.8, 0.01),
    ]
    full = [measured(3, 1e-4, 1.0, 2.4, 0.5), measured(4, 2e-4, 1.0, 2.5, 0.7)]
    prior = search_prior(START)
    reading = Reading.of([*short, *full], accuracy, prior)
    seen = [t.outcome.eval_loss for t in reading.losses([*short, *full])]
    assert seen[0] > seen[1] > seen[2]  # by loss, where the accuracy says nothing yet
    assert seen[3] > seen[4]  # by accuracy, whatever the loss
    noisy = reading.prior(prior, metric_noise=60.0)
    assert noisy.noise == pytest.approx(60.0 / reading.unit)
    assert noisy.short_noise_share * noisy.noise == pytest.approx(min(reading.short_unit, 4.0) * prior.noise)
    as_loss = Reading.of([*short, *full], Objective(), prior)
    assert as_loss.prior(prior).short_noise_share == 1.0


def test_the_answer_is_in_per_cent_of_the_loss_whatever_the_unit():
    trials = play(automatic(), budget=8.0, function=lambda r, f: bowl(r, f, steep=40.0))
    answer = automatic().answer(trials)
    by_batch = {row.effective_batch_size: row for row in answer.trade_offs}
    far = by_batch[max(by_batch)]
    assert far.excess_percent > 5.0
    assert answer.expected_regret > 0
    assert f"{answer.expected_regret:.2g} %" in answer.sentence


def test_a_study_with_one_trial_or_only_failures_has_a_clear_answer():
    strategy = automatic()
    one = [ended(Trial(number=0, recipe=Recipe(learning_rate=2e-3)), 2.0)]
    assert strategy.answer(one).trial == 0
    failed = play(strategy, function=lambda recipe, fidelity: None)
    answer = strategy.answer(failed)
    assert answer.trial is None
    assert answer.learning_rate is None
    assert "every trial failed" in answer.sentence
    assert len(failed) <= 8
    assert strategy.answer([]).sentence == "no trial has finished yet"


def test_speed_is_preferred_where_it_costs_little():
    def seconds(recipe):
        return 1000 / (recipe.effective_batch_size if recipe.effective_batch_size <= 64 else 64)

    def flat(recipe, fidelity):
        return bowl(recipe, fidelity) * math.exp(-0.0019 * math.log2(recipe.effective_batch_size / 32) ** 2)

    quality, speed = spec(), spec(prefer="speed")
    kept = automatic(quality).answer(play(automatic(quality), function=flat, seconds=seconds))
    trials = play(automatic(speed), function=flat, seconds=seconds)
    fast = automatic(speed).answer(trials)
    assert fast.effective_batch_size >= kept.effective_batch_size
    assert trials[fast.trial].fidelity == 1.0
    row = next(r for r in fast.trade_offs if r.effective_batch_size == fast.effective_batch_size)
    assert row.excess_percent <= 0.1
    assert fast.trial in worth_keeping(speed, trials)


def test_a_metric_is_maximised_with_the_noise_of_its_rows():
    study = spec(objective="accuracy", goal="maximize")
    strategy = automatic(study)
    trials = play(strategy, function=lambda r, f: 1 - 0.1 * bowl(r, f, steep=20) / 2, metric="accuracy")
    best = trials[strategy.answer(trials).trial]
    assert best.outcome.metrics["accuracy"] > 0.89
    assert leader(study, trials).outcome.metrics["accuracy"] >= best.outcome.metrics["accuracy"]
    few = metric_noise_percent(objective_of(study, trials), trials, num_eval_rows=100)
    many = metric_noise_percent(objective_of(study, trials), trials, num_eval_rows=10_000)
    assert few > 5 * many > 0


def test_a_perfect_metric_and_one_in_hundreds_are_no_trouble():
    study = spec(objective="accuracy", goal="maximize")
    trials = [
        ended(Trial(number=n, recipe=Recipe(learning_rate=1e-3 * 2**n)), 1.0, metric="accuracy") for n in range(3)
    ]
    assert automatic(study).answer(trials).trial == 0
    in_hundreds = spec(objective="bleu", goal="maximize")
    scores = [
        ended(Trial(number=n, recipe=Recipe(learning_rate=1e-3 * 2**n)), 30.0 + n, metric="bleu") for n in range(3)
    ]
    assert objective_of(in_hundreds, scores).ceiling > 100
    assert leader(in_hundreds, scores).number == 2


def test_the_space_follows_the_data():
    assert batch_range(8, rows=1800) == (4, 64)
    assert batch_range(16, rows=10**6, num_devices=8) == (8, 128)
    assert batch_range(16, rows=30)[1] <= 2
    assert lengths(20_000)[0] == 1 / 32
    assert lengths(20) == (1.0,)
    space = search_space(spec(), START, num_rows=4000)
    assert space.learning_rates[0] < START.learning_rate / 16
    assert space.learning_rates[-1] <= 0.1
    assert no_prior(Recipe()).learning_rate == 2e-4


def test_tuned_fields_join_the_space_and_the_recipe():
    tuned = parse_tuned("rank=8/16/64,warmup,schedule", Recipe())
    recipe = with_starts(Recipe(), tuned)
    assert recipe.schedule.warmup_ratio == 0.05
    made = {d.name: d for d in dimensions(tuned, recipe)}
    assert made["lora.rank"].values == (8, 16, 64)
    assert made["lora.rank"].start == 16
    study = spec(tuned=tuned, recipe=recipe)

    def function(recipe, fidelity):
        return bowl(recipe, fidelity) * (1.0 if recipe.schedule.name == "cosine" else 1.03)

    strategy = automatic(study, budget=8.0)
    trials = play(strategy, 8.0, function=function, start=recipe)
    assert leader(study, trials).recipe.schedule.name == "cosine"
    assert strategy.answer(trials).changes["schedule.name"] == "cosine"


@pytest.mark.parametrize(
    ("text", "method", "message"),
    [
        ("ranc", "lora", "did you mean `rank`"),
        ("rank", "full", "needs an adapter"),
        ("rank=8/x", "lora", "values with `/`"),
        ("rank=0/8", "lora", "`lora.rank`: input should be greater"),
        ("schedule=linear/cosin", "lora", "`schedule.name`: input should be .linear"),
        ("rank,rank", "lora", "once"),
    ],
)
def test_what_cannot_be_tuned_is_said(text, method, message):
    with pytest.raises(BadInput, match=message):
        parse_tuned(text, Recipe(method=method))


def test_epochs_cost_what_they_take():
    tuned = parse_tuned("epochs", Recipe())
    assert tuned == (TunedField(name="num_epochs", values=(0.5, 1.0, 2.0, 3.0)),)
    assert dimensions(tuned, Recipe())[0].costs


def test_weights_are_kept_while_they_may_still_be_the_answer():
    losses = {0: 2.0, 1: 2.005, 2: 2.4}
    trials = [ended(Trial(number=n, recipe=Recipe(learning_rate=1e-3 * 2**n)), loss) for n, loss in losses.items()]
    short = ended(Trial(number=3, recipe=Recipe(learning_rate=5e-3), fidelity=0.125), 1.0)
    diverged = Trial(number=4, recipe=Recipe(), state="diverged", outcome=Outcome(state="diverged"))
    assert worth_keeping(spec(), [*trials, short, diverged]) == {0}
    assert worth_keeping(spec(), []) == set()
