"""The scoreboard pays for every run, judges on seeds that were not seen, and never lets a rival spend more than it says."""

import math

import pytest
from benchmarks.scoreboard.__main__ import paired, play
from benchmarks.scoreboard.bill import Bill
from benchmarks.scoreboard.rivals import RIVALS
from benchmarks.search.recorded import Place, Recorded, Run

FACTS = {"name": "small", "family": "llama", "num_parameters": 1_000_000, "num_layers": 4, "hidden_size": 128}
ROWS = {"name": "rows", "format": "alpaca", "task": "causal", "num_rows": 400, "num_eval_rows": 64}
LENGTHS = (0.125, 1 / 3, 1.0)


def bowl(best=(-8.0, 2.0)):
    """A made-up LoRA task: three seeds, the optimum at a rate of 2^-8 and 4 rows."""

    def runs(rate, batch, length):
        off = 0.15 * (rate - best[0] - 0.4 * (batch - best[1])) ** 2 + 0.05 * (batch - best[1]) ** 2
        return {seed: Run(math.exp(off + 0.01 * seed - 0.3 * math.log(length)), None) for seed in range(3)}

    places = [Place(float(rate), float(batch)) for rate in range(-12, -4) for batch in range(6)]
    recipe = {"method": "lora", "num_epochs": 1}
    card = {"name": "bowl", "objective": "eval_loss", "method": "lora", "recipe": recipe, "half": "design"}
    card |= {"model_facts": FACTS, "data_facts": ROWS}
    measured = {
        length: {place: runs(place.log_rate, place.log_batch, length) for place in places} for length in LENGTHS
    }
    return Recorded(card, measured)


def test_every_rival_stays_within_its_budget_and_the_far_default_is_worst():
    task = bowl()
    scores = play(task)
    for score in scores:
        assert math.isfinite(score.regret)
        if not score.rival.startswith("bound"):
            assert 1 <= score.cost <= score.budget + 1e-9
    regrets = {score.rival: score.regret for score in scores if score.seed == 0}
    assert max(regrets, key=regrets.get) == "usual default, batch 16"
    assert regrets["tune 6"] < 10


def test_a_bound_knows_the_best_of_its_batch_sizes_and_pays_nothing():
    task = bowl(best=(-8.0, 0.0))
    found = {score.rival: score for score in play(task) if score.seed == 0 and score.rival.startswith("bound")}
    one, more = found.values()
    assert one.cost == more.cost == 0
    assert one.regret >= more.regret > 1


@pytest.mark.parametrize("rival", [rival for rival in RIVALS if "short" in rival.name], ids=lambda rival: rival.name)
def test_short_runs_are_paid_by_their_length_and_chosen_from_full_runs_only(rival):
    task = bowl()
    bill = Bill(task, 0)
    chosen, _ = rival.play(bill, task.recommendation())
    assert bill.spent == pytest.approx(4 / 8 + 2)
    assert chosen in bill.seen


def test_the_regret_is_that_of_the_other_seeds():
    task = bowl()
    bill = Bill(task, 0)
    assert bill.full_runs([(2**-8, 4), (2**-6, 4)]) == Place(-8.0, 2.0)
    fresh = (math.exp(0.01) + math.exp(0.02)) / 2
    best = (1 + math.exp(0.01) + math.exp(0.02)) / 3
    assert bill.regret(Place(-8.0, 2.0)) == pytest.approx(100 * (fresh / best - 1))


def test_an_interval_holds_the_mean_and_grows_with_the_spread():
    ours = {str(k): float(k) for k in range(10)}
    even = paired(ours, {name: value + 1 for name, value in ours.items()})
    uneven = paired(ours, {name: 2 * value for name, value in ours.items()})
    assert even == pytest.approx((-1.0, -1.0, -1.0))
    assert uneven[1] < uneven[0] < uneven[2]
