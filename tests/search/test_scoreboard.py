"""The scoreboard pays for every run, judges on seeds that were not seen, and never lets a rival spend more than it says."""

import json
import math
import re
import sys
import xml.etree.ElementTree as ElementTree

import pytest
from benchmarks.scoreboard import __main__ as command
from benchmarks.scoreboard.bill import Bill, OverBudget
from benchmarks.scoreboard.picture import draw
from benchmarks.scoreboard.rivals import BOUNDS, RIVALS, Rival, playable
from benchmarks.scoreboard.scores import Reach, Score, by_task, difference, paired, play, reach, stated_over_true
from benchmarks.scoreboard.tables import geometric_mean, lines
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


def named(name):
    return next(rival for rival in (*RIVALS, *BOUNDS) if rival.name == name)


def played(*, rivals=(*RIVALS, *BOUNDS), tasks=None):
    here, _ = playable(rivals)
    return [score for task in tasks or [bowl()] for score in play(task, [one for one in here if one.package is None])]


def test_every_rival_stays_within_its_budget_and_the_far_default_is_worst():
    scores = played()
    for score in scores:
        assert math.isfinite(score.regret)
        if not score.rival.startswith("bound"):
            assert 1 <= score.cost <= score.budget + 1e-3
    one_run = {score.rival: score.regret for score in scores if score.seed == 0 and score.budget == 1}
    assert max(one_run, key=one_run.get) in ("usual default, then its multiples, batch 16", "classic sweep")
    assert next(score.regret for score in scores if (score.rival, score.budget) == ("tune", 6)) < 10


def test_a_run_that_the_budget_does_not_pay_is_refused():
    bill = Bill(bowl(), 0, 1.5)
    bill.run(2**-8, 4)
    assert bill.affords(0.125)
    assert not bill.affords()
    with pytest.raises(OverBudget):
        bill.run(2**-7, 4)
    assert bill.spent == 1


def bounds_of(task):
    """The scores of the two bounds by batch size."""
    by_batch = [bound for bound in BOUNDS if "batch" in bound.name]
    scores = played(rivals=by_batch, tasks=[task])
    return (next(score for score in scores if score.rival == bound.name) for bound in by_batch)


@pytest.mark.parametrize("best", [(-8.0, 2.0), (-6.0, 0.0)])
def test_who_knows_the_seeds_chooses_no_worse_among_the_runs_of_tune(best):
    task, ours, bound = bowl(best), named("tune"), named("bound: best of the runs of tune")
    for budget in bound.budgets:
        bill, free = Bill(task, 0, budget), Bill(task, 0)
        chosen, _ = ours.play(bill, task.recommendation(), budget)
        known, _ = bound.play(free, task.recommendation(), budget)
        assert free.spent == 0
        assert known in bill.seen
        assert task.mean(known) <= task.mean(chosen)


def test_a_bound_knows_the_best_of_its_batch_sizes_and_pays_nothing():
    one, more = bounds_of(bowl(best=(-8.0, 5.0)))  # 32 rows are more than `tune` may try
    assert one.cost == more.cost == 0
    assert one.regret >= more.regret > 1


def test_one_row_a_step_is_within_reach_of_a_short_study():
    one, more = bounds_of(bowl(best=(-8.0, 0.0)))
    assert one.regret > 1 > more.regret >= 0


@pytest.mark.parametrize(("budget", "cost"), [(2, 1.5), (3, 2.5)])
def test_short_runs_are_paid_by_their_length_and_chosen_from_full_runs_only(budget, cost):
    task = bowl()
    bill = Bill(task, 0, budget)
    chosen, _ = named("four short runs, then full ones").play(bill, task.recommendation(), budget)
    assert bill.spent == pytest.approx(cost)
    assert chosen in bill.seen


@pytest.mark.parametrize(("budget", "cost"), [(2, 1.5), (3, 3), (4, 4), (6, 6)])
def test_a_race_ends_with_full_runs_of_its_best(budget, cost):
    task = bowl()
    bill = Bill(task, 0, budget)
    chosen, _ = named("halving race about recommend").play(bill, task.recommendation(), budget)
    assert bill.spent == pytest.approx(cost)
    assert chosen in bill.seen


def test_a_classic_sweep_goes_on_to_new_rates():
    task = bowl()
    bill = Bill(task, 0, 6)
    named("classic sweep").play(bill, task.recommendation(), 6)
    assert bill.spent == 6
    assert len(bill.seen) >= 3


def test_an_optimizer_that_is_told_the_recommendation_begins_there():
    task = bowl()
    first = {}
    for name in ("recommend, then its multiples", "Optuna TPE from recommend", "Optuna GP from recommend"):
        bill = Bill(task, 0, 1)
        first[name], _ = named(name).play(bill, task.recommendation(), 1)
    assert len(set(first.values())) == 1


@pytest.mark.parametrize("rival", [rival for rival in RIVALS if rival.package], ids=lambda rival: rival.name)
def test_botorch_spends_its_budget_on_different_recipes_and_comes_nearer(rival):
    pytest.importorskip("botorch")
    task = bowl()
    bill = Bill(task, 0, 3)
    chosen, _ = rival.play(bill, task.recommendation(), 3)
    assert bill.spent == len(bill.seen) == 3
    alone = Bill(task, 0, 1)
    assert bill.regret(chosen) <= alone.regret(rival.play(alone, task.recommendation(), 1)[0])


def test_a_rival_whose_package_is_absent_is_left_out_in_words():
    absent = Rival("the absent one", lambda *_: None, package="no_such_package_here")
    here, words = playable([RIVALS[0], absent])
    assert here == [RIVALS[0]]
    assert len(words) == 1
    assert "the absent one" in words[0]
    assert "no_such_package_here" in words[0]


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


def test_an_interval_draws_whole_tasks_however_often_one_was_played():
    twice = [made("tune", 1, task=str(k), seed=seed, regret=k) for k in range(6) for seed in (0, 1)]
    once = [score for score in twice if score.seed == 0]
    none = {str(k): 0.0 for k in range(6)}
    assert paired(by_task(twice), none) == paired(by_task(once), none)


def test_a_rival_is_compared_at_the_largest_budget_that_is_not_above_that_of_tune():
    race = named("halving race about recommend")
    scores = [made("tune", budget, regret=1.0) for budget in (1, 2, 3, 4, 6)]
    scores += [made(race.name, budget, regret=budget) for budget in race.budgets]
    assert difference(scores, race, 1) is None
    assert difference(scores, race, 3) == (-2.0, -2.0, -2.0)
    short = named("four short runs, then full ones")
    scores += [made(short.name, budget, regret=budget) for budget in short.budgets]
    assert difference(scores, short, 6) == (-2.0, -2.0, -2.0)


def test_what_is_stated_is_compared_with_the_regret_of_the_same_answers():
    scores = [
        made("tune", 2, regret=4.0, stated=2.0),
        made("tune", 2, regret=90.0),
        made("tune", 2, regret=6.0, stated=8.0),
    ]
    assert stated_over_true(scores) == (5.0, 5.0, 2)
    assert stated_over_true(scores[1:2]) is None


def test_the_prior_brings_a_study_within_the_noise_no_later_than_the_whole_study():
    for one in reach(bowl()):
        assert 1 <= one.with_prior <= 12
        assert one.without >= 1


def made(rival, budget, *, task="a", seed=0, regret=1.0, stated=None, by_accuracy=False):
    return Score(rival, budget, task, by_accuracy, seed, float(budget), regret, stated)


def test_one_task_with_a_large_loss_moves_a_geometric_mean_less():
    assert geometric_mean([5.0, 5.0]) == pytest.approx(5.0)
    assert geometric_mean([0.0, 300.0]) == pytest.approx(100.0)


def test_few_tasks_are_said_to_be_few_and_get_no_interval():
    scores = [made(rival.name, budget, task=task) for task in "abc" for rival in RIVALS for budget in rival.budgets]
    text = "\n".join(lines(scores, [Reach("a", 0, 2.0, math.inf)], half="design", num_listed=40, left_out=[]))
    assert "3 tasks of the `design` half; 40 tasks are listed" in text
    assert "no interval is given" in text
    assert "not reached" in text


def test_the_picture_has_a_line_and_a_label_for_every_rival():
    scores = [made(rival.name, budget, regret=7.0 / budget) for rival in RIVALS for budget in rival.budgets]
    root = ElementTree.fromstring(draw(scores, title="A < B"))
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert len(list(root.iter("{http://www.w3.org/2000/svg}polyline"))) == len(RIVALS)
    assert {rival.name for rival in RIVALS} <= set(texts)
    assert "A < B" in texts
    heights = [
        float(element.get("y"))
        for element in root.iter("{http://www.w3.org/2000/svg}text")
        if element.text in {r.name for r in RIVALS}
    ]
    assert all(abs(a - b) > 10 for a, b in zip(sorted(heights), sorted(heights)[1:], strict=False))


def test_the_page_and_the_picture_are_written_from_scores_that_were_kept(tmp_path, monkeypatch, capsys):
    scores = [
        made(rival.name, budget, task=task, regret=ord(task) / budget)
        for task in "abcdefg"
        for rival in RIVALS
        for budget in rival.budgets
    ]
    kept, page, picture = tmp_path / "scores.json", tmp_path / "page.md", tmp_path / "picture.svg"
    command.write_scores(kept, (scores, [Reach("a", 0, 1.0, math.inf)]))
    assert command.read(kept) == (scores, [Reach("a", 0, 1.0, math.inf)])
    json.loads(kept.read_text())
    page.write_text("# Before\n<!-- written by benchmarks.scoreboard -->\nof last year\n<!-- end -->\nAfter\n")
    told = ["scoreboard", "--read", str(kept), "--write", str(page), "--picture", str(picture)]
    monkeypatch.setattr(sys, "argv", told)
    assert command.main() == 0
    text = page.read_text()
    assert text.startswith("# Before")
    assert text.endswith("After\n")
    assert "of last year" not in text
    assert "7 tasks of the `design` half" in text
    assert re.search(r"\| tune \| 100\.0 \| 50\.0 \|", text)
    assert picture.read_text().startswith("<svg")
    assert "7 tasks" in capsys.readouterr().out
