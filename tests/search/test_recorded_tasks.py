"""The committed surfaces of fine-tuning tasks: each loads, is whole, and has its optimum inside the grid or says that it has not."""

import json
import math

import pytest
from benchmarks.search.recorded import FOLDER, Place, Recorded, Run, load_recorded

from finestep.errors import BadInput

CARDS = sorted(path for path in FOLDER.glob("*.json") if path.stem != "tasks")
LISTED = json.loads((FOLDER / "tasks.json").read_text(encoding="utf-8"))


def _task(losses, *, objective="eval_loss"):
    """A task of full runs: (log2 rate, log2 batch) -> loss a seed."""
    full = {Place(*at): {seed: Run(loss, None) for seed, loss in enumerate(runs)} for at, runs in losses.items()}
    return Recorded({"name": "made up", "objective": objective}, {1.0: full})


@pytest.fixture(scope="module")
def tasks():
    return {task.name: task for task in load_recorded()}


@pytest.mark.parametrize("path", CARDS, ids=lambda path: path.stem)
def test_a_committed_surface_is_whole(path, tasks):
    task = tasks[path.stem]
    assert task.card.items() >= LISTED[path.stem].items()
    assert task.lengths == pytest.approx((0.125, 1 / 3, 1.0), rel=1e-3)
    whole = len(task.axis("log_rate")) * len(task.axis("log_batch"))
    for length in task.lengths:
        assert len(task.runs[length]) == whole
        assert all(0 in by_seed for by_seed in task.runs[length].values())
    assert len(task.axis("log_rate")) >= 6
    assert len(task.axis("log_batch")) >= 5
    assert task.noise_percent() > 0
    assert sum(len(by_seed) >= 3 for by_seed in task.full.values()) >= 4
    if task.card["half"] == "design":
        assert len(task.full[task.best_place]) >= 2
    assert not task.edges() or len(task.axis("log_rate")) >= 7
    assert task.recommendation().estimates["learning_rate"].value > 0
    assert "/" not in task.card["model_facts"]["name"]


@pytest.mark.parametrize("path", CARDS, ids=lambda path: path.stem)
def test_a_run_has_a_loss_unless_it_diverged_and_an_accuracy_where_that_counts(path, tasks):
    task = tasks[path.stem]
    runs = [run for places in task.runs.values() for by_seed in places.values() for run in by_seed.values()]
    assert sum(run.loss is not None for run in runs) > 0.6 * len(runs)
    assert all(math.isfinite(run.loss) and run.loss > 0 for run in runs if run.loss is not None)
    if task.by_accuracy:
        assert all(0 <= run.accuracy <= 1 for run in runs if run.loss is not None)


def test_a_choice_is_judged_by_the_seeds_that_the_search_has_not_seen():
    task = _task({(-8, 2): (1.0, 1.2, 1.3), (-7, 2): (0.9, 1.5, 1.6), (-9, 2): (2.0,)})
    assert task.best_place == Place(-8, 2)
    assert task.fresh(Place(-7, 2), seen=0) == pytest.approx(1.55)
    assert task.regret(task.fresh(Place(-8, 2), seen=0)) == pytest.approx(100 * (1.25 / (3.5 / 3) - 1))
    assert task.fresh(Place(-9, 2), seen=0) == 2.0


def test_an_optimum_at_the_edge_is_said_and_one_row_a_step_is_no_edge():
    inside = {(-8.0, 1.0): (1.0, 1.0), (-7.0, 1.0): (2.0, 2.0), (-9.0, 1.0): (2.0, 2.0)}
    others = {(rate, batch): (3.0, 3.0) for rate in (-9.0, -8.0, -7.0) for batch in (0.0, 2.0)}
    assert _task(inside | others).edges() == []
    assert _task(others | inside | {(-7.0, 2.0): (0.5, 0.5)}).edges() == ["highest rate", "highest batch"]
    assert _task(others | inside | {(-8.0, 0.0): (0.5, 0.5)}).edges() == []


def test_a_run_that_was_not_repeated_is_seen_by_every_seed():
    task = _task({(-8, 2): (1.0, 1.2), (-7, 2): (3.0,)})
    assert task.run(Place(-8, 2), seed=1).loss == 1.2
    assert task.run(Place(-7, 2), seed=1).loss == 3.0


def test_an_empty_folder_says_what_it_would_need(tmp_path):
    with pytest.raises(BadInput, match="card"):
        load_recorded(tmp_path)
