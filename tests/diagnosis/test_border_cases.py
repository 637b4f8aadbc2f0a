"""Runs on the border of two verdicts: stopped early, resumed, at a rate of nothing, without rewards, of a few pairs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from finestep.diagnosis.training_log import RunContext, RunSettings, TrainingLog, eval_series, train_series
from finestep.diagnosis.verdict import Diagnosis, diagnose_log
from finestep.flows.diagnose import diagnose_file


def judged(loss, rate, *, context: RunContext, step=None, evaluations=(), epochs=0.4) -> Diagnosis:
    steps = np.arange(1.0, len(loss) + 1.0) if step is None else step
    rates = np.broadcast_to(rate, len(loss))
    series = train_series(step=steps, loss=loss, learning_rate=rates, epoch=np.linspace(epochs / 40, epochs, len(loss)))
    return diagnose_log(TrainingLog("r", "", "t", series, evaluations, context))


def noisy(level: np.ndarray, sd: float = 0.03) -> np.ndarray:
    return level + np.random.default_rng(3).normal(0, sd, len(level))


def test_a_run_that_was_stopped_early_is_unfinished_even_where_its_loss_looks_flat() -> None:
    level = 1.2 + 0.4 * np.exp(-np.arange(200) / 15)
    verdict = judged(noisy(level), 1e-4, context=RunContext(settings=RunSettings(max_steps=4000))).verdict
    assert verdict.code == "undertrained"
    assert "stopped at 5 % of its planned steps" in verdict.meaning
    assert "way down" not in verdict.meaning


def test_the_same_rows_of_a_whole_run_are_healthy() -> None:
    level = 1.2 + 0.4 * np.exp(-np.arange(200) / 15)
    assert (
        judged(noisy(level), np.linspace(1e-4, 0, 200), context=RunContext(settings=RunSettings(max_steps=200))).label
        == "healthy"
    )


def test_a_loss_that_stands_at_a_rate_of_nothing_is_the_rates_fault() -> None:
    verdict = judged(
        noisy(np.full(400, 3.9)), np.linspace(2e-8, 0, 400), context=RunContext(settings=RunSettings(max_steps=400))
    ).verdict
    assert verdict.code == "learning_rate_too_low"


def test_a_resumed_run_is_no_warmup_that_never_ended() -> None:
    rate = np.concatenate([np.linspace(1e-6, 1e-4, 20), np.linspace(1e-4, 1e-6, 180)])
    level = 1.2 + 0.4 * np.exp(-np.arange(200) / 30)
    run = judged(
        noisy(level), rate, context=RunContext(settings=RunSettings(max_steps=9200)), step=np.arange(9000.0, 9200.0)
    )
    assert "warmup_never_ended" not in {finding.code for finding in run.findings}


def test_without_rewards_the_metric_of_the_evaluations_decides() -> None:
    loss = noisy(np.zeros(120), 0.01)
    accuracy = 0.4 + 0.3 * np.linspace(0, 1, 24) + np.random.default_rng(0).normal(0, 0.01, 24)
    scored = eval_series(5.0 * np.arange(1, 25), np.full(24, np.nan), metrics={"accuracy": accuracy})
    context = RunContext(objective="reinforcement", settings=RunSettings(max_steps=120))
    assert judged(loss, 1e-6, context=context, evaluations=(scored,)).label == "healthy"
    assert judged(loss, 1e-6, context=context).verdict.code == "loss_not_comparable"


def test_a_few_rows_of_pairs_are_too_little() -> None:
    run = judged(
        noisy(np.full(9, 0.69)), 5e-7, context=RunContext(objective="preference", settings=RunSettings(max_steps=9))
    )
    assert run.label == "too_little_information"


def test_sixty_steps_on_next_to_nothing_of_the_data_are_a_trial() -> None:
    level, rate = 1.2 + 2.0 * np.exp(-np.arange(60) / 8), np.linspace(2e-4, 0, 60)
    tried = judged(noisy(level), rate, context=RunContext(settings=RunSettings(max_steps=60)), epochs=0.002).verdict
    assert tried.code == "undertrained"
    assert "60 steps were taken, on 0.2 % of the rows" in tried.meaning
    assert (
        judged(noisy(level), rate, context=RunContext(settings=RunSettings(max_steps=60)), epochs=1.0).label
        == "healthy"
    )
    assert (
        judged(noisy(level), rate, context=RunContext(settings=RunSettings(max_steps=60)), epochs=0.0).label
        == "healthy"
    )


def test_a_stopped_run_is_not_told_to_go_on_where_its_validation_loss_was_better_before(tmp_path: Path) -> None:
    history = [{"step": 50 * n, "epoch": 0.72 * n, "loss": loss, "learning_rate": 3e-4 * (1 - n / 56)}
               for n, loss in enumerate((1.25, 0.29, 0.24, 0.2, 0.17, 0.15, 0.137, 0.12), start=1)]  # fmt: skip
    history += [{"step": 200, "epoch": 2.9, "eval_loss": 0.3213}, {"step": 400, "epoch": 5.8, "eval_loss": 0.3256}]
    state = {"log_history": history, "max_steps": 2760, "global_step": 400, "num_train_epochs": 40}
    path = tmp_path / "trainer_state.json"
    path.write_text(json.dumps(state))
    said = diagnose_file(path)
    assert said.label != "undertrained", said.findings
    assert "past_its_best" in {finding.code for finding in said.findings}


def _log(loss: list[float], rate: float = 2e-4) -> TrainingLog:
    rows = len(loss)
    train = train_series(
        loss=loss, learning_rate=[rate * (1 - n / rows / 2) for n in range(rows)], epoch=[n / 100 for n in range(rows)]
    )
    return TrainingLog("run", "run", "made", train, context=RunContext(settings=RunSettings(max_steps=rows)))


def test_a_run_that_was_lost_for_a_while_is_unstable_though_it_came_back() -> None:
    noise = np.random.default_rng(0).normal(0, 0.2, 600)
    level = np.concatenate([np.linspace(8, 6, 200), np.full(150, 23.0), np.linspace(9, 6, 250)])
    said = diagnose_log(_log((level + noise).tolist()))
    assert said.label == "lr_too_high_unstable"
    assert said.verdict.evidence["first_step"] == pytest.approx(200, abs=25)


def test_a_fall_from_a_high_start_is_no_such_stay() -> None:
    noise = np.random.default_rng(0).normal(0, 0.05, 600)
    level = 1.5 + 10 * np.exp(-np.arange(600) / 40)
    assert diagnose_log(_log((level + noise).tolist())).label == "healthy"


def test_a_loss_that_stays_where_nothing_is_known_had_not_learned_the_data_before() -> None:
    noise = np.random.default_rng(0).normal(0, 0.05, 700)
    said = diagnose_log(_log((9.7 - 0.0001 * np.arange(700) + noise).tolist()))
    assert said.label == "no_learning", said.findings
