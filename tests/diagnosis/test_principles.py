"""What a verdict must not do: contradict itself, depend on how densely a log is written, or take a blip for a trend."""

from __future__ import annotations

import numpy as np
import pytest

from finestep.diagnosis.comparison import compare
from finestep.diagnosis.training_log import RunContext, TrainingLog, eval_series, train_series
from finestep.diagnosis.verdict import diagnose_log
from finestep.flat import from_flat

RNG = np.random.default_rng(0)


def a_log(loss, *, evaluations=None, rate=None, norms=None, name="run", **context) -> TrainingLog:
    """One row a step; `evaluations` are losses at even distances, the first before the first step."""
    count = len(loss)
    rates = np.linspace(1e-3, 0, count) if rate is None else np.full(count, rate)
    columns = {"loss": loss, "learning_rate": rates, "epoch": np.linspace(0, context.pop("epochs", 1.0), count)}
    if norms is not None:
        columns["grad_norm"] = norms
    series = ()
    if evaluations is not None:
        series = (eval_series(np.linspace(0, count, len(evaluations)).round(), evaluations),)
    context.setdefault("max_steps", count)
    return TrainingLog(name, "", "test", train_series(**columns), series, from_flat(RunContext, context))


def codes(log: TrainingLog) -> list[str]:
    return [finding.code for finding in diagnose_log(log).findings]


def noisy(curve):
    return np.asarray(curve) * (1 + 0.03 * RNG.standard_normal(len(curve)))


def exploding(highest: float, burst: float, count: int = 120) -> TrainingLog:
    """Falls in three steps from 8 to 4.5, goes up to `highest` for some steps, and comes down below 4.5."""
    loss = noisy(np.concatenate([[8.0, 6.0, 4.5], np.full(6, highest), 2.2 + 4 * np.exp(-np.arange(count - 9) / 15)]))
    norms = np.concatenate([[2.0, 2.0], np.full(7, burst), np.full(count - 9, 1.0)]) * RNG.uniform(0.8, 1.2, count)
    return a_log(loss, norms=norms)


def test_first_steps_that_explode_are_named_although_the_run_recovers():
    finding = diagnose_log(exploding(11.0, 40.0)).verdict
    assert finding.code == "unstable"
    assert finding.evidence["gradient_burst"] > 20
    assert 4 <= finding.evidence["step"] <= 9


@pytest.mark.parametrize(("highest", "burst"), [(4.6, 40.0), (11.0, 2.0), (7.5, 40.0)])
def test_a_burst_without_a_climb_above_the_untrained_model_is_no_explosion(highest, burst):
    assert "unstable" not in codes(exploding(highest, burst))


def test_a_rate_that_is_too_low_shows_in_the_validation_loss_where_batches_are_noisy():
    """The response to the summed rate is straight; single batches scatter by 10 % of the loss."""
    for seed in range(10):
        rng = np.random.default_rng(seed)
        spent = np.cumsum(np.linspace(1, 0, 113)) / np.cumsum(np.linspace(1, 0, 113))[-1]
        true = 8.2 - 2.4 * spent**1.4
        evaluations = np.interp(np.linspace(0, 112, 7), np.arange(113), true)
        log = a_log(true * (1 + 0.08 * rng.standard_normal(113)), evaluations=evaluations, rate=None)
        assert codes(log)[0] == "learning_rate_too_low"


def falling(last_fall: float) -> np.ndarray:
    """Seven evaluations of which the last is `last_fall` below the one before."""
    return np.array([8.2, 3.2, 2.8, 2.55, 2.42, 2.30, 2.30 * (1 - last_fall)])


def test_the_fall_at_the_end_of_a_decay_is_not_called_undertrained():
    curve = noisy(2.2 + 4 * np.exp(-np.arange(120) / 12))
    assert "undertrained" not in codes(a_log(curve, evaluations=falling(0.05)))
    assert "undertrained" in codes(a_log(curve, evaluations=falling(0.05), rate=1e-3))
    assert "undertrained" in codes(a_log(curve, evaluations=falling(0.12)))


def test_one_evaluation_above_the_lowest_among_many_is_a_blip():
    curve = noisy(1 + 2 * np.exp(-np.arange(300) / 60))
    evaluations = 1 + 2 * np.exp(-np.arange(40) / 8)
    assert codes(a_log(curve, evaluations=[*evaluations, 1.1 * evaluations[-1]]))[0] != "overfitting"
    assert codes(a_log(curve, evaluations=[3.0, 1.6, 1.2, 1.4]))[0] == "overfitting"


def test_no_one_is_told_to_train_longer_what_has_been_learned_by_heart_or_is_lost():
    memorised = a_log(noisy(3 * np.exp(-np.arange(400) / 90) + 0.01), rate=1e-3, epochs=24.0)
    assert codes(memorised)[0] == "memorised"
    lost = a_log(noisy(np.concatenate([[1.6, 1.6, 2.0], np.full(9, 10.4)])), rate=5.0)
    assert codes(lost)[0] == "diverged"
    assert "undertrained" not in codes(memorised) + codes(lost)
    assert "beyond that of any method: lower it to about 2e-04" in diagnose_log(lost).verdict.advice


def test_runs_of_different_tasks_are_not_taken_for_a_sweep():
    few = [
        diagnose_log(a_log(noisy(start * np.exp(-np.arange(80) / 60)), rate=rate, name=name))
        for name, start, rate in (("a", 0.7, 1e-4), ("b", 5.2, 2e-4), ("c", 2.0, 4e-4))
    ]
    advice = compare(few).advice
    assert "hardly runs of one task" in advice
    assert "settled" not in advice
