"""What the report says about a study: gains, ties, edges, and studies with little or nothing in them."""

from __future__ import annotations

import math

import pytest

from finestep.errors import BadInput
from finestep.language.catalogue import translated
from finestep.recipe import Recipe
from finestep.report.basin import edge_warning
from finestep.report.page import render_page
from finestep.report.page_data import page_data, page_json
from finestep.report.told import Told
from finestep.report.view import batch_product, build_view
from finestep.result import Spent
from finestep.studies.choose import baseline_trial
from finestep.trial import Cost, EvalRecord, Outcome, StepRecord, Trial

from .synthetic_study import make_trials, make_view

EMPTY = {"title": "t", "steps": {}, "evaluations": {}, "facts": {}, "notes": []}


def trial(number: int, rate: float, loss: float | None, **changes: object) -> Trial:
    """One trial that completed, or diverged when it has no loss."""
    state = "completed" if loss is not None else "diverged"
    recipe = Recipe(learning_rate=rate, effective_batch_size=changes.pop("batch", 16), seed=changes.pop("seed", 0))  # type: ignore[arg-type]
    outcome = Outcome(state=state, eval_loss=math.nan if loss is None else loss)
    return Trial(number=number, recipe=recipe, state=state, outcome=outcome, **changes)  # type: ignore[arg-type]


def view(trials: list[Trial], *, best: int | None, baseline: int | None = None, **changes: object):
    return build_view(trials=trials, best=best, baseline=baseline, **{**EMPTY, **changes})  # type: ignore[arg-type]


def test_gain_without_repeats_says_that_noise_is_unknown() -> None:
    verdict = view([trial(0, 1e-4, 2.0), trial(1, 1e-3, 1.5)], best=1, baseline=0).compared
    assert verdict.figure == "25.0 % lower"
    assert "noise unknown" in verdict.sentence


def test_gain_within_the_noise_between_seeds_is_a_tie() -> None:
    trials = [trial(0, 1e-4, 2.00), trial(1, 1e-3, 1.99), trial(2, 1e-3, 2.01, seed=1)]
    assert view(trials, best=1, baseline=0).compared.figure == "tie"
    apart = [trial(0, 1e-4, 2.00), trial(1, 1e-3, 1.50), trial(2, 1e-3, 1.51, seed=1)]
    assert view(apart, best=1, baseline=0).compared.figure == "25.0 % lower"


def test_runs_of_different_length_are_not_compared() -> None:
    verdict = view([trial(0, 1e-4, 2.0, fidelity=0.25), trial(1, 1e-3, 1.5)], best=1, baseline=0).compared
    assert verdict.figure == "–"
    assert "25 % of a full run" in verdict.sentence


def test_a_choice_that_another_setting_measured_below_is_called_chosen_not_best() -> None:
    trials = [trial(0, 1e-4, 2.0), trial(1, 1e-3, 1.51), trial(2, 2e-3, 1.5), trial(3, 1e-3, 1.4, seed=1)]
    shown = view(trials, best=1)
    assert shown.charts.basin.best_name == "chosen"
    assert shown.titles.basin == "Chosen: 1.0e-03 at batch 16; 2.0e-03 at batch 16 measured 0.0100 lower"
    assert '"best_name":"chosen"' in render_page(shown)
    ranks = [Recipe(learning_rate=1e-3, effective_batch_size=16, lora={"rank": rank}) for rank in (8, 16)]
    tuned = [trial(1, 1e-3, 1.51), trial(2, 1e-3, 1.5)]
    tuned = [one.model_copy(update={"recipe": recipe}) for one, recipe in zip(tuned, ranks, strict=True)]
    assert view(tuned, best=1).titles.basin == "Chosen: 1.0e-03 at batch 16; run 2 there measured 0.0100 lower"
    repeated = view(trials[:2] + trials[3:], best=1)
    assert (repeated.charts.basin.best_name, repeated.titles.basin) == (
        "best",
        "Best: 1.0e-03 at batch 16; no run diverged",
    )


def test_a_diverged_baseline_is_not_a_gain() -> None:
    verdict = view([trial(0, 1e-1, None), trial(1, 1e-3, 1.5)], best=1, baseline=0).compared
    assert verdict.figure == "–"
    assert "diverged" in verdict.sentence


@pytest.mark.parametrize(
    ("rates", "best", "said"),
    [
        ([1e-4, 1e-3], 1, "above 1.0e-03"),
        ([1e-4, 1e-3], 0, "below 1.0e-04"),
        ([1e-4, 1e-3, 1e-2], 1, ""),
        ([1e-3], 0, "below or above"),
    ],
)
def test_optimum_on_the_edge_is_said(rates: list[float], best: int, said: str) -> None:
    trials = [trial(i, rate, 2.0 if i != best else 1.0) for i, rate in enumerate(rates)]
    warning = edge_warning(trials, trials[best])
    assert said in warning
    assert bool(warning) == bool(said)


def test_a_diverged_run_bounds_the_optimum_and_a_crash_does_not() -> None:
    trials = [trial(0, 1e-4, 2.0), trial(1, 1e-3, 1.0)]
    assert edge_warning([*trials, trial(2, 1e-2, None)], trials[1]) == ""
    crash = Trial(number=2, recipe=Recipe(learning_rate=1e-2), state="failed", outcome=Outcome(state="failed"))
    assert "above" in edge_warning([*trials, crash], trials[1])


def test_another_batch_size_bounds_the_range_but_not_its_line() -> None:
    trials = [trial(0, 1e-4, 2.0), trial(1, 1e-3, 1.0), trial(2, 1e-2, 3.0, batch=64)]
    assert edge_warning(trials, trials[1]).startswith("At batch 16 no learning rate above")
    assert "on the edge" in edge_warning(trials[:2], trials[1])


def test_diverged_runs_are_never_in_a_line() -> None:
    basin = make_view().charts.basin
    drawn = {point.trial for line in basin.lines for point in line.points}
    fallen = {run.trial for run in basin.fallen}
    assert drawn == {0, 1, 2, 3, 5, 6, 7, 8, 10}
    assert fallen == {4, 9, 11, 12}


def test_a_completed_run_without_a_number_does_not_rank() -> None:
    odd = Trial(number=0, recipe=Recipe(), state="completed", outcome=Outcome(state="completed", eval_loss=math.nan))
    shown = view([odd, trial(1, 1e-3, 1.5)], best=1)
    assert [run.trial for run in shown.charts.basin.fallen] == [0]
    assert shown.rows[0].loss == "NaN"
    assert page_data(shown)["trials"]["loss"] == ["NaN", 1.5]
    with pytest.raises(BadInput, match="finite validation loss"):
        view([odd], best=0)


def test_one_bad_run_does_not_flatten_the_plot() -> None:
    losses = [1.30, 1.25, 1.22, 1.24, 1.28, 9.0]
    basin = view([trial(i, 10 ** (-4 + i / 3), loss) for i, loss in enumerate(losses)], best=2).charts.basin
    assert basin.y_range[1] < 2
    assert [point.trial for line in basin.lines for point in line.points if point.off_scale] == [5]


def test_map_colours_by_rank_and_prints_seed_spread() -> None:
    trials = [trial(0, 1e-4, 1.3), trial(1, 1e-3, 1.20), trial(2, 1e-3, 1.22, seed=1), trial(3, 1e-2, 900.0)]
    cells = view([*trials, trial(4, 1e-1, None)], best=1).charts.maps[0].cells
    assert [cell.quantile for cell in cells] == [0.5, 0.0, 1.0, None]
    assert cells[1].label == "1.210 ± 0.014"
    assert cells[3].kind == "diverged"


def test_map_cells_do_not_overlap_and_never_mix_fidelities() -> None:
    for measured in make_view().charts.maps:
        for a in measured.cells:
            for b in measured.cells:
                apart = a.x1 <= b.x0 + 1e-9 or b.x1 <= a.x0 + 1e-9 or a.y1 <= b.y0 + 1e-9 or b.y1 <= a.y0 + 1e-9
                assert a is b or apart
    assert [measured.fidelity for measured in make_view().charts.maps] == [1.0, 0.25]


def test_batch_product_says_a_remainder() -> None:
    recipe = Recipe(effective_batch_size=24, num_devices=2)
    exact = Trial(number=0, recipe=recipe, outcome=Outcome(state="completed", cost=Cost(micro_batch_size=4)))
    rest = Trial(number=0, recipe=recipe, outcome=Outcome(state="completed", cost=Cost(micro_batch_size=5)))
    assert batch_product(exact) == "4 micro × 3 accumulation × 2 devices"
    assert batch_product(rest).endswith("the last micro-batch smaller")
    assert batch_product(Trial(number=0, recipe=recipe)) == "micro-batch not recorded"


def test_nan_becomes_null_with_a_marker() -> None:
    records = [_step(1, 2.0, 1.0), _step(2, math.nan, math.inf), _step(3, 1.5, 0.9)]
    evaluations = [EvalRecord(step=3, num_tokens=300, eval_loss=math.inf)]
    shown = view([trial(0, 1e-3, 1.0)], best=0, steps={0: records}, evaluations={0: evaluations})
    data = page_data(shown)
    curve = data["curves"][0]
    assert curve["loss"] == [2.0, None, 1.5]
    assert curve["grad_norm"] == [1.0, None, 0.9]
    assert curve["evals"][0]["loss"] is None
    assert [bad["what"] for bad in curve["bad"]] == ["loss NaN", "grad norm Infinity", "validation loss Infinity"]


@pytest.mark.parametrize("facts", [{"loss": math.nan, "size": math.inf, "count": 3, "flag": True}])
def test_facts_that_are_no_numbers_are_said(facts: dict[str, float]) -> None:
    shown = dict(view([], best=None, facts=facts).facts)
    assert shown == {"loss": "NaN", "size": "Infinity", "count": "3", "flag": "True"}


def test_numbers_of_no_trial_are_refused() -> None:
    with pytest.raises(BadInput, match="`baseline` must be the number of a trial"):
        view([trial(0, 1e-3, 1.0)], best=0, baseline=7)


def test_a_study_with_one_trial_renders() -> None:
    text = render_page(view([trial(0, 1e-3, 1.25)], best=0, baseline=0))
    assert "the usual default itself is the best run" in text
    assert "was tried" in text


def test_a_study_without_a_finished_trial_renders() -> None:
    running = Trial(number=0, recipe=Recipe())
    text = render_page(view([running], best=None, steps={0: [_step(1, 2.0, 1.0)]}))
    assert "No run has ended with a result yet" in (text)
    assert "No run was started" in (render_page(view([], best=None)))


def test_a_study_where_all_diverged_renders() -> None:
    text = render_page(view([trial(0, 1e-1, None), trial(1, 1.0, None)], best=None, baseline=0))
    assert "Every run diverged: search at lower learning rates" in text
    assert "2 of 2 runs diverged" in text


def test_a_large_study_stays_small() -> None:
    trials = [trial(i, 10 ** (-5 + 3 * i / 150), 1.0 + i / 1000) for i in range(150)]
    steps = {t.number: [_step(k, 2.0 - k / 1000, 1.0) for k in range(1, 131)] for t in trials}
    shown = view(trials, best=0, steps=steps)
    assert len(shown.rows) == 150
    assert "Curves of 120 of 150 runs" in render_page(shown)
    assert len(page_json(shown)) < 1_500_000


def test_all_trials_are_in_the_table_in_order() -> None:
    assert [row.number for row in make_view().rows] == [t.number for t in make_trials()]


def _step(step: int, loss: float, norm: float) -> StepRecord:
    return StepRecord(
        step=step,
        loss=loss,
        learning_rate=1e-3,
        grad_norm=norm,
        clipped=norm > 1,
        num_tokens=100,
        num_loss_tokens=100,
        elapsed_s=float(step),
    )


def test_the_cost_is_told_against_the_budget() -> None:
    spent = Spent(tokens=19_800_000, elapsed_s=8_040.0, full_runs=5.92, budget_full_runs=6.0)
    told = [f"{figure.value} {figure.name}".strip() for figure in make_view(spent=spent).spent]
    assert told == ["19.8 M training tokens", "2 h 14 min", "5.92 of at most 6 full runs"]


def test_one_training_run_is_no_search() -> None:
    trained = make_trials()[6].model_copy(update={"number": 0, "stage": "training"})
    view = make_view(trials=[trained], best=0, baseline=None)
    assert view.verdict.headline.startswith("Trained at learning rate")
    data = page_data(view)
    assert not data["is_search"]
    assert data["basin"]["warning"] == ""


def test_losses_above_zero_have_no_axis_below_zero() -> None:
    assert view([trial(0, 1e-4, 0.9), trial(1, 1e-3, 0.02), trial(2, 1e-2, 0.5)], best=1).charts.basin.y_range[0] >= 0
    below = view([trial(0, 1e-4, -3.0), trial(1, 1e-3, -4.0), trial(2, 1e-2, -3.5)], best=1).charts.basin.y_range
    assert below[0] < -4


def test_what_another_trainer_clipped_is_not_claimed() -> None:
    records = {0: [_step(1, 2.0, 3.0), _step(2, 1.5, 0.9)]}
    told = Told(is_own=False)
    shown = view([trial(0, 1e-3, 1.0), trial(1, 1e-2, 2.0)], best=0, steps=records, told=told)
    assert (shown.charts.curves[0].clip, shown.charts.curves[0].clipped_share) == (None, None)
    assert "clip" not in shown.titles.gradients.lower()


def test_what_was_stopped_by_hand_stands_beside_no_whole_run() -> None:
    """Half of a run is no short run: in the figures it would look like a bad rate, and as a default it would flatter the best."""
    half = trial(2, 3e-3, 4.2, is_baseline=True)
    half = half.model_copy(
        update={"state": "stopped", "outcome": half.outcome.model_copy(update={"state": "stopped", "by_hand": True})}
    )
    shown = view([trial(0, 1e-3, 1.5), trial(1, 2e-3, 1.6), half], best=0)
    assert {point.trial for line in shown.charts.basin.lines for point in line.points} == {0, 1}
    assert page_data(shown)["trials"]["by_hand"] == [2]
    assert baseline_trial(shown.table.trials) is None
    leading = view([trial(0, 1e-3, 1.5), half], best=2)
    assert view([trial(0, 1e-3, 1.5, fidelity=0.25), half], best=None).titles.basin.endswith(
        "1 run of other lengths has"
    )
    assert {point.trial for line in leading.charts.basin.lines for point in line.points} == {0, 2}


def test_short_runs_alone_are_not_called_nothing() -> None:
    trials = [
        trial(0, 1e-3, 2.0, fidelity=0.25),
        trial(1, 2e-3, 1.9, fidelity=0.25),
        trial(2, 9e-3, None, fidelity=0.25),
    ]
    title = view(trials, best=None).titles.basin
    assert title == "No run of full length has ended; 2 runs of other lengths have; 1 of 3 runs diverged"
    assert translated(title) == "还没有完整长度的运行结束；其他长度的已有2 个运行；3 个运行中有 1 个发散"
    assert view(trials[2:], best=None).titles.basin.startswith("No run has a validation loss yet")
