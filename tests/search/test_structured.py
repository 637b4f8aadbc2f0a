"""The search as a user sees it: where it proposes, when it ends, what it says."""

import math

import numpy as np
import pytest

from finestep.errors import BadInput
from finestep.recipe import Recipe
from finestep.search.ask_tell import AskTell, ended, recipe_of
from finestep.search.observations import Objective
from finestep.search.prior import SearchPrior
from finestep.search.space import Dimension, SearchSpace
from finestep.search.structured import WORTH, StructuredSearch, _worth_of_full
from finestep.trial import Cost, Outcome, Trial

SPACE = SearchSpace.between((1e-5, 1e-2), (8, 128), fidelities=(0.125, 0.4, 1.0))
PRIOR = SearchPrior(learning_rate=2e-4, batch_size=32)


def bowl(rate, batch, fidelity=1.0, *, best=4e-4, best_batch=48.0):
    """Loss with its optimum at `best`, moving with length as in the literature; NaN beyond the cliff."""
    x = math.log2(rate / best) - 0.35 * math.log2(batch / best_batch) + 0.1 * math.log2(fidelity)
    v = math.log2(batch / best_batch) - 0.5 * math.log2(fidelity)
    return math.nan if x > 3.5 else 2.0 * fidelity**-0.06 * math.exp(0.003 * x * x + 0.0025 * v * v)


def trial(number, rate, batch=32, *, fidelity=1.0, value=2.0, state="completed", **recipe):
    outcome = None if state == "running" else Outcome(state=state, eval_loss=value if state == "completed" else None)
    made = Recipe(learning_rate=rate, effective_batch_size=batch, **recipe)
    return Trial(number=number, recipe=made, fidelity=fidelity, state=state, outcome=outcome)


def play(search, budget, function=bowl):
    loop = AskTell(search, budget_runs=budget)
    while proposal := loop.ask():
        loop.tell(proposal, function(proposal.learning_rate, proposal.effective_batch_size, proposal.fidelity))
    return loop


def test_finds_the_best_within_three_runs_when_the_prior_is_two_fold_off():
    loop = play(StructuredSearch(SPACE, PRIOR), 3.0)
    answer = loop.answer()
    assert answer.trial is not None
    assert bowl(answer.learning_rate, answer.effective_batch_size) / 2.0 - 1 < 0.005
    assert sum(t.fidelity for t in loop.trials) <= 3.0 + 1e-9
    assert answer.rate.low <= 4e-4 * 1.5
    assert answer.rate.high >= 4e-4 / 1.5


def test_a_prior_sixteen_fold_off_is_overruled_by_the_data():
    prior = SearchPrior(learning_rate=2.5e-5, batch_size=32)
    answer = play(StructuredSearch(SPACE, prior), 8.0).answer()
    assert bowl(answer.learning_rate, answer.effective_batch_size) / 2.0 - 1 < 0.01


def test_full_runs_that_still_fall_at_the_edge_lead_far_beyond_it():
    prior = SearchPrior(learning_rate=1.2e-5, batch_size=32)
    space = SPACE.model_copy(update={"fidelities": (1.0,)})
    trials = [trial(i, rate, value=bowl(rate, 32)) for i, rate in enumerate((1.2e-5, 2.5e-5, 5e-5))]
    (following,) = StructuredSearch(space, prior).propose(trials, remaining_runs=5)
    assert following.learning_rate > 2 * 5e-5


def test_the_same_trials_give_the_same_proposals():
    trials = [trial(0, 2e-4, fidelity=0.125), trial(1, 8e-4, fidelity=0.125, value=2.01)]
    search = StructuredSearch(SPACE, PRIOR, seed=3)
    assert search.propose(trials, remaining_runs=3, max_proposals=3) == search.propose(
        trials, remaining_runs=3, max_proposals=3
    )


def test_starts_at_the_prior_with_the_shortest_length():
    (first,) = StructuredSearch(SPACE, PRIOR).propose([], remaining_runs=3)
    assert first.fidelity == 0.125
    assert 5e-5 < first.learning_rate < 1e-3


def test_several_proposals_at_once_are_different():
    trials = [trial(0, 2e-4, fidelity=0.125)]
    found = StructuredSearch(SPACE, PRIOR, stop_below=0.0).propose(trials, remaining_runs=9, max_proposals=6)
    assert len({(p.learning_rate, p.effective_batch_size, p.fidelity) for p in found}) == 6


def test_many_lanes_start_full_runs_at_once_when_the_budget_allows():
    search = StructuredSearch(SPACE, PRIOR)
    many = search.propose([], remaining_runs=20, max_proposals=8)
    assert sum(p.fidelity < 1.0 for p in many) == 2
    places = {(p.learning_rate, p.effective_batch_size) for p in many if p.fidelity == 1.0}
    assert len(places) >= 4
    poor = search.propose([], remaining_runs=2.5, max_proposals=8)
    assert sum(p.fidelity for p in poor) <= 2.5
    assert sum(p.fidelity < 1.0 for p in poor) > 2


def test_a_cluster_is_filled_in_the_first_wave_with_half_of_the_budget_at_most():
    search = StructuredSearch(SPACE, PRIOR)

    def places(found):
        return {(p.learning_rate, p.effective_batch_size, p.fidelity) for p in found}

    rich = search.propose([], remaining_runs=300, max_proposals=64)
    assert len(rich) == len(places(rich)) == 64
    poorer = search.propose([], remaining_runs=41, max_proposals=64)
    assert 10 <= sum(p.fidelity for p in poorer) <= 22
    whole = StructuredSearch(SPACE.model_copy(update={"fidelities": (1.0,)}), PRIOR)
    wave = whole.propose([], remaining_runs=300, max_proposals=64)
    running = [
        trial(number, p.learning_rate, p.effective_batch_size, state="running" if number else "completed")
        for number, p in enumerate(wave)
    ]
    assert len(wave) == 64
    assert len(whole.propose(running, remaining_runs=236, max_proposals=1)) == 0, "the second wave waits for results"


def test_running_trials_are_not_proposed_again():
    search = StructuredSearch(SPACE, PRIOR)
    (first,) = search.propose([], remaining_runs=5)
    running = Trial(number=0, recipe=recipe_of(first), fidelity=first.fidelity)
    (second,) = search.propose([running], remaining_runs=5)
    assert (second.learning_rate, second.effective_batch_size) != (first.learning_rate, first.effective_batch_size)


def test_one_divergence_moves_the_next_proposals_left():
    search = StructuredSearch(SPACE, SearchPrior(learning_rate=1e-2, batch_size=32))
    (before,) = search.propose([], remaining_runs=5)
    diverged = trial(0, 1e-2, fidelity=0.125, state="diverged")
    (after,) = search.propose([diverged], remaining_runs=5)
    assert after.learning_rate < before.learning_rate / 1.9


def test_out_of_memory_does_not_teach_about_the_learning_rate():
    search = StructuredSearch(SPACE, PRIOR)
    (fresh,) = search.propose([], remaining_runs=5)
    killed = trial(0, 1e-2, SPACE.batch_sizes[-1], fidelity=0.125, state="out_of_memory")
    assert search.propose([killed], remaining_runs=5)[0].learning_rate == fresh.learning_rate


def test_a_batch_that_memory_does_not_hold_is_left_out_with_all_larger_ones():
    search, trials = StructuredSearch(SPACE, PRIOR), []
    while len(trials) < 12 and (wanted := search.propose(trials, remaining_runs=30)):
        batch = wanted[0].effective_batch_size
        state = "out_of_memory" if batch >= 32 else "completed"
        place = (wanted[0].learning_rate, batch)
        trials.append(
            trial(len(trials), *place, fidelity=wanted[0].fidelity, state=state, value=2.0 + len(trials) / 100)
        )
    tried = [one.recipe.effective_batch_size for one in trials]
    failed = [batch for batch in tried if batch >= 32]
    assert failed
    assert failed == sorted(set(failed), reverse=True)


def test_the_answer_has_no_rate_for_a_batch_that_memory_does_not_hold():
    search, done = StructuredSearch(SPACE, PRIOR), [trial(0, 2e-4, 16), trial(1, 2e-4, 64, state="out_of_memory")]
    assert [row.effective_batch_size for row in search.answer(done).trade_offs] == [8, 16, 32]
    assert min(row.excess_percent for row in search.answer(done).trade_offs) == 0.0
    larger = [*done, trial(2, 1e-4, 64, value=1.5)]
    assert [row.effective_batch_size for row in search.answer(larger).trade_offs] == [8, 16, 32, 64], "it was chosen"


def test_what_is_predicted_fits_into_memory():
    short = [trial(0, 2e-4, 16, fidelity=0.125), trial(1, 2e-4, 32, fidelity=0.125, state="out_of_memory")]
    assert StructuredSearch(SPACE, PRIOR).answer(short).effective_batch_size < 32


def test_a_nan_result_never_ranks():
    trials = [trial(0, 2e-4, value=2.0), trial(1, 4e-4, value=math.nan)]
    assert StructuredSearch(SPACE, PRIOR).answer(trials).trial == 0


def test_a_study_whose_trials_all_failed_ends_with_a_clear_answer():
    trials = [trial(i, 1e-2 / 2**i, state="diverged") for i in range(6)]
    search = StructuredSearch(SPACE, PRIOR)
    assert search.propose(trials, remaining_runs=5) == []
    answer = search.answer(trials)
    assert answer.trial is None
    assert "every trial failed" in answer.sentence


def test_a_study_without_or_with_one_trial_has_an_answer():
    search = StructuredSearch(SPACE, PRIOR)
    assert search.answer([]).sentence == "no trial has finished yet"
    answer = search.answer([trial(0, 2e-4)])
    assert answer.trial == 0
    assert not answer.settled
    assert answer.expected_regret is answer.expected_gain is None, "no per cent was earned"
    assert "not settled: the best rate is between" in answer.sentence
    assert "%" not in answer.sentence


def test_a_per_cent_is_stated_once_the_best_stands_between_worse_ones():
    search = StructuredSearch(SPACE, PRIOR)
    low, best, high = trial(0, 1e-4, value=2.02), trial(1, 2e-4, value=2.0), trial(2, 4e-4, value=2.03)
    fell = ended(trial(3, 8e-4), None)
    for settled, trials in (
        (False, [low, best]),
        (False, [best, high, fell]),
        (False, [low, best, trial(2, 2e-4, value=2.01)]),
        (True, [low, best, high]),
        (True, [low, best, fell]),
    ):
        numbered = [one.model_copy(update={"number": index}) for index, one in enumerate(trials)]
        answer = search.answer(numbered)
        assert answer.settled is settled
        assert (answer.expected_regret is not None) is settled
        assert ("not settled" in answer.sentence) is not settled


def test_the_plain_best_is_chosen_and_a_smaller_rate_inside_the_noise_is_told():
    trials = [trial(0, 4e-4, value=2.0000), trial(1, 2e-4, value=2.0004)]
    answer = StructuredSearch(SPACE, PRIOR).answer(trials)
    assert (answer.trial, answer.as_good) == (0, 1)
    clear = [trial(0, 4e-4, value=2.0000), trial(1, 2e-4, value=2.01)]
    answer = StructuredSearch(SPACE, PRIOR).answer(clear)
    assert (answer.trial, answer.as_good) == (0, None)
    equal = [trial(0, 4e-4, value=2.0), trial(1, 2e-4, value=2.0)]
    assert StructuredSearch(SPACE, PRIOR).answer(equal).trial == 1


def test_a_short_trial_is_never_the_choice_when_a_full_one_finished():
    trials = [trial(0, 2e-4, value=2.0), trial(1, 4e-4, fidelity=0.4, value=1.5)]
    assert StructuredSearch(SPACE, PRIOR).answer(trials).trial == 0


def test_an_empty_budget_proposes_nothing_and_short_runs_leave_room_for_a_full_one():
    search = StructuredSearch(SPACE, PRIOR)
    assert search.propose([trial(0, 2e-4)], remaining_runs=0.05) == []
    loop = play(search, 1.2)
    assert sum(t.fidelity == 1.0 for t in loop.trials) == 1


def test_the_search_stops_by_itself_when_more_is_not_worth_it():
    loop = play(StructuredSearch(SPACE, PRIOR, stop_below=0.3), 50.0)
    assert sum(t.fidelity for t in loop.trials) < 10


def test_maximised_metric_with_categorical_and_integer_dimensions():
    extras = (
        Dimension(name="schedule.name", values=("linear", "cosine"), scale="choice"),
        Dimension(name="lora.rank", values=(4, 16, 64), default=16, scale="log"),
    )
    space = SPACE.model_copy(update={"extras": extras, "fidelities": (1.0,)})
    objective = Objective(metric="accuracy", goal="maximize")
    loop = AskTell(StructuredSearch(space, PRIOR, objective), budget_runs=6)
    while proposal := loop.ask():
        assert proposal.changes["schedule.name"] in ("linear", "cosine")
        assert proposal.changes["lora.rank"] in (4, 16, 64)
        error = 0.1 * bowl(proposal.learning_rate, proposal.effective_batch_size) / 2.0
        loop.tell(proposal, 1 - error - (0.02 if proposal.changes["schedule.name"] == "linear" else 0.0))
    assert loop.answer().changes["schedule.name"] == "cosine"


def test_prefer_speed_takes_a_faster_batch_that_costs_little():
    def timed(number, batch, value, seconds):
        made = trial(number, 4e-4, batch, value=value)
        return made.model_copy(
            update={"outcome": made.outcome.model_copy(update={"cost": Cost(elapsed_s=seconds, num_train_tokens=1000)})}
        )

    trials = [timed(0, 32, 2.0, 10.0), timed(1, 64, 2.0004, 5.0), timed(2, 128, 2.02, 1.0)]
    answer = StructuredSearch(SPACE, PRIOR).answer(trials)
    assert answer.fastest(max_excess_percent=0.5).effective_batch_size == 64


def test_bad_spaces_say_what_is_wrong():
    with pytest.raises(BadInput, match="rising"):
        SearchSpace(learning_rates=(2e-4, 1e-4), batch_sizes=(8,))
    with pytest.raises(BadInput, match="last of `fidelities`"):
        SearchSpace(learning_rates=(1e-4,), batch_sizes=(8,), fidelities=(0.5,))
    with pytest.raises(BadInput, match="`learning_rate`: input should be less than or equal to 10"):
        SearchSpace.between((1, 100), (8, 8))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "schedule.decay", "values": ("cosine",), "scale": "choice"}, "there is no such field"),
        ({"name": "effective_batch_size", "values": (8, 16)}, "their own ranges"),
        ({"name": "lora.rank", "values": (8, "many"), "scale": "log"}, "valid integer; got 'many'|unable to parse"),
        ({"name": "schedule.name", "values": ("linear", "cosine")}, "scale `linear` needs numbers"),
        ({"name": "optimizer.weight_decay", "values": (0.0, 0.1), "scale": "log"}, "numbers > 0"),
        ({"name": "lora.rank", "values": (8, 16), "default": 7}, "`default` must be among"),
    ],
)
def test_a_dimension_that_no_recipe_can_have_is_refused(values, message):
    with pytest.raises(BadInput, match=message):
        Dimension(**values)


def test_a_loop_of_ones_own_pays_for_its_epochs():
    epochs = Dimension(name="num_epochs", values=(1, 4), default=4, scale="log", effect=4.0, costs=True)
    space = SPACE.model_copy(update={"extras": (epochs,), "fidelities": (1.0,)})
    loop = AskTell(StructuredSearch(space, PRIOR, stop_below=0.0), budget_runs=3)
    asked = []
    while proposal := loop.ask():
        asked.append(proposal.changes["num_epochs"])
        loop.tell(proposal, bowl(proposal.learning_rate, proposal.effective_batch_size) * asked[-1] ** -0.1)
    assert 1 in asked
    assert 4 * 3 - 1 < sum(asked) <= 4 * 3


def test_telling_an_unknown_proposal_is_an_error():
    loop = AskTell(StructuredSearch(SPACE, PRIOR), budget_runs=2)
    proposal = loop.ask()
    loop.tell(proposal, 2.0)
    with pytest.raises(BadInput, match="was not told yet"):
        loop.tell(proposal, 2.0)


def test_a_hundred_trials_still_give_a_finite_answer():
    rng = np.random.default_rng(0)
    trials = []
    for number in range(100):
        rate, batch = float(rng.choice(SPACE.learning_rates)), int(rng.choice(SPACE.batch_sizes))
        value = bowl(rate, batch)
        trials.append(trial(number, rate, batch, value=value, state="diverged" if math.isnan(value) else "completed"))
    answer = StructuredSearch(SPACE, PRIOR).answer(trials)
    assert math.isfinite(answer.expected_regret)
    assert answer.expected_regret < 0.3


def test_the_stated_regret_is_of_the_setting_and_not_of_the_luck_of_a_seed():
    noisy = PRIOR.model_copy(update={"noise": 1.0})
    rates = SPACE.learning_rates[::3]
    cells = [(rate, batch) for rate in rates for batch in (32, 64) if math.isfinite(bowl(rate, batch))]
    trials = [trial(i, rate, batch, value=bowl(rate, batch)) for i, (rate, batch) in enumerate(cells)]
    answer = StructuredSearch(SPACE, noisy).answer(trials)
    assert 0 < answer.expected_regret < 0.7 * noisy.noise


def test_a_short_run_must_beat_the_result_and_the_knowledge_of_a_full_run():
    gains, knowledge = np.array([0.2, 0.05]), np.array([0.15, 0.3])
    assert _worth_of_full(gains, knowledge) == pytest.approx(0.35)
    assert _worth_of_full(None, knowledge) == pytest.approx(0.3)
    assert _worth_of_full(None, np.zeros(2)) == WORTH


def test_no_per_cent_and_no_measurement_is_stated_that_was_not_earned():
    search = StructuredSearch(SPACE, PRIOR)
    told = search.answer([trial(0, 4e-4, 32, value=2.0), trial(1, 2e-4, 32, value=2.001)]).stated()
    assert not told.settled
    assert {row.excess_percent for row in told.trade_offs} == {None}
    sources = {row.effective_batch_size: row.learning_rate.source for row in told.trade_offs}
    assert sources.pop(32) == "measured here"
    assert set(sources.values()) == {"predicted from other batch sizes"}
