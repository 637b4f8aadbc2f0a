"""What a trial that was stopped by hand teaches: its distance from a whole run at the same share, and never more than it showed."""

from __future__ import annotations

import pytest

from finestep.recipe import Recipe
from finestep.search.by_hand import as_shown, projected
from finestep.search.observations import Objective
from finestep.trial import EvalRecord, Outcome, Trial

LOSS = Objective()


def run(number: int, rate: float, loss: float | None, *, by_hand: bool = False, fidelity: float = 1.0, **more) -> Trial:
    outcome = Outcome(state="stopped" if by_hand else "completed", eval_loss=loss, by_hand=by_hand, **more)
    return Trial(
        number=number, recipe=Recipe(learning_rate=rate), fidelity=fidelity, state=outcome.state, outcome=outcome
    )


def log(*points: tuple[int, float], metric: float | None = None) -> list[EvalRecord]:
    return [
        EvalRecord(
            step=tokens, num_tokens=tokens, eval_loss=loss, metrics={} if metric is None else {"accuracy": metric}
        )
        for tokens, loss in points
    ]


def shown(stopped: Trial, others: list[Trial], logs) -> float | None:
    trial = run(
        stopped.number,
        stopped.recipe.learning_rate,
        stopped.outcome.eval_loss,
        by_hand=True,
        projected=projected(stopped, [stopped, *others], logs),
    )
    return as_shown([trial, *others], LOSS)[0].outcome.eval_loss


def test_it_keeps_its_distance_from_the_best_whole_run_at_the_same_share():
    whole, stopped = run(0, 1e-3, 1.0), run(1, 1e-2, 3.0, by_hand=True)
    logs = {0: log((0, 4.0), (50, 2.0), (100, 1.0)), 1: log((0, 4.0), (50, 3.0))}
    assert shown(stopped, [whole], logs) == pytest.approx(1.5)
    logs = {0: log((0, 4.0), (100, 1.0)), 1: log((0, 4.0), (50, 3.0))}
    assert shown(stopped, [whole], logs) == pytest.approx(1.0 * 3.0 / 2.5), "between evaluations on a straight line"


def test_a_projection_never_wins_but_a_measurement_may():
    whole, behind, ahead = run(0, 1e-3, 1.0), run(1, 2e-3, 1.9, by_hand=True), run(1, 2e-3, 0.9, by_hand=True)
    logs = {0: log((0, 4.0), (50, 2.0), (100, 1.0)), 1: log((0, 4.0), (50, 1.9))}
    assert 1.0 < shown(behind, [whole], logs) < 1.01
    assert shown(ahead, [whole], {**logs, 1: log((0, 4.0), (50, 0.9))}) == 0.9


def test_without_a_whole_run_of_its_length_it_teaches_nothing():
    stopped, short = run(1, 1e-2, 3.0, by_hand=True), run(0, 1e-3, 1.0, fidelity=0.25)
    logs = {0: log((0, 4.0), (25, 1.0)), 1: log((0, 4.0), (50, 3.0))}
    assert shown(stopped, [short], logs) is None
    assert shown(run(1, 1e-2, None, by_hand=True), [run(0, 1e-3, 1.0)], {0: logs[0], 1: log((0, 4.0))}) is None


def test_a_metric_is_projected_too():
    whole = run(0, 1e-3, 1.0, metrics={"accuracy": 0.9})
    stopped = run(1, 1e-2, 3.0, by_hand=True, metrics={"accuracy": 0.4})
    logs = {0: [*log((50, 2.0), metric=0.6), *log((100, 1.0), metric=0.9)], 1: log((50, 3.0), metric=0.4)}
    told = projected(stopped, [stopped, whole], logs)
    assert told["accuracy"] == pytest.approx(0.7)
    objective = Objective(metric="accuracy", goal="maximize")
    trial = stopped.model_copy(update={"outcome": stopped.outcome.model_copy(update={"projected": told})})
    assert objective.value(as_shown([trial, whole], objective)[0]) == pytest.approx(0.7)
