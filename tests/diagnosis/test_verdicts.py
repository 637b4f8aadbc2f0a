"""Whole logs get the right verdict, and clean noise gets none."""

from __future__ import annotations

import csv
import itertools
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from finestep.diagnosis.catalogue import CATALOGUE
from finestep.diagnosis.chance import accumulation_factor, chance_level
from finestep.diagnosis.comparison import compare
from finestep.diagnosis.early_stopping import paired_gain, should_stop, smallest_gain
from finestep.diagnosis.robust import noise_sd, sorted_median, spike_scores, trend
from finestep.diagnosis.simulated import Setting, simulated_log
from finestep.diagnosis.training_log import RunContext, TrainingLog, eval_series, train_series
from finestep.diagnosis.verdict import diagnose_log
from finestep.flows.diagnose import diagnose_file

LONG = Setting(num_rows=300, num_evaluations=8, epochs=2.0)
EXPECTED = {
    "clean": "healthy", "diverged": "diverged", "collapsed": "diverged", "overfitting": "overfitting",
    "spike": "spike_recovered",
    "overflow": "dead_gradients", "hidden_nan": "hidden_nan", "nothing_trained": "nothing_trained", "leak": "too_good",
    "data_changed": "data_changed", "shuffled_labels": "stuck_at_chance",
}  # fmt: skip


@pytest.mark.parametrize("fault", sorted(EXPECTED))
@pytest.mark.parametrize("noise", ["gaussian", "student", "correlated"])
def test_a_planted_fault_is_named(fault: str, noise: str) -> None:
    codes = {
        diagnose_log(simulated_log(fault, seed=seed, setting=replace(LONG, noise=noise))).verdict.code
        for seed in range(5)
    }
    assert codes == {EXPECTED[fault]}


@pytest.mark.parametrize(("fault", "code"), [("too_low", "learning_rate_too_low"), ("memorised", "memorised")])
def test_a_fault_of_many_epochs_is_named(fault: str, code: str) -> None:
    setting = replace(LONG, epochs=10.0, num_evaluations=0 if fault == "memorised" else 8)
    assert {diagnose_log(simulated_log(fault, seed=seed, setting=setting)).verdict.code for seed in range(5)} == {code}


def test_clean_noise_sets_off_no_alarm() -> None:
    alarms = total = 0
    for rows, noise, sd, evals in itertools.product(
        (40, 200), ("gaussian", "student", "correlated"), (0.02, 0.1, 0.3), (0, 8)
    ):
        for seed in range(4):
            setting = Setting(num_rows=rows, noise=noise, noise_sd=sd, num_evaluations=evals)
            findings = diagnose_log(simulated_log("clean", seed=seed, setting=setting)).findings
            alarms += any(finding.severity in ("warning", "error") for finding in findings)
            total += 1
    assert alarms <= 0.02 * total


def test_a_single_poisoned_batch_is_no_trouble() -> None:
    setting = Setting(num_rows=300, rows_apart=1, noise_sd=0.03)
    diagnosis = diagnose_log(simulated_log("poisoned_batch", setting=setting))
    assert diagnosis.label == "healthy"
    assert "bad_batch" in [finding.code for finding in diagnosis.findings]


def test_an_absurd_rate_is_blamed_for_numbers_that_break() -> None:
    log = TrainingLog(
        "x", "x", "x", train_series(loss=[4.3, 0, 0, 0, 0], grad_norm=[np.inf] * 5, learning_rate=[9e29] * 5)
    )
    assert diagnose_log(log).verdict.code == "diverged"


def test_too_few_rows_are_not_judged() -> None:
    log = TrainingLog("x", "x", "x", train_series(loss=[2.0]), (eval_series([1], [2.0]),))
    assert diagnose_log(log).label == "too_little_information"


def test_losses_of_reinforcement_learning_say_nothing_without_a_reward() -> None:
    rng = np.random.default_rng(0)
    log = TrainingLog(
        "x", "x", "x", train_series(loss=rng.normal(0, 1, 200)), context=RunContext(objective="reinforcement")
    )
    diagnosis = diagnose_log(log)
    assert diagnosis.label == "too_little_information"
    assert "reward" in diagnosis.verdict.advice


def test_a_high_rate_is_normal_for_p_tuning() -> None:
    stuck = simulated_log("shuffled_labels", setting=replace(LONG, peak=2e-2))
    as_lora = diagnose_log(stuck).verdict.code
    as_p_tuning = diagnose_log(replace(stuck, context=replace(stuck.context, method="p-tuning"))).verdict.code
    assert (as_lora, as_p_tuning) == ("stuck_high_rate", "stuck_at_chance")


@pytest.mark.parametrize("scale", [0.01, 1.0, 16.0])
def test_verdicts_do_not_depend_on_the_unit_of_the_loss(scale: float) -> None:
    log = simulated_log("overfitting", setting=LONG)
    evaluation = replace(log.evaluation, loss=log.evaluation.loss * scale)
    scaled = replace(log, train=replace(log.train, loss=log.train.loss * scale), evaluations=(evaluation,))
    assert diagnose_log(scaled).label == "overfitting"


def test_every_code_has_a_label_and_a_page() -> None:
    page = (Path(__file__).parents[2] / "docs" / "diagnose.md").read_text()
    missing = [code for code in CATALOGUE if f"`{code}`" not in page]
    assert missing == []


def test_chance_levels() -> None:
    near = {"tolerance": 0.01, "vocabulary_size": None}
    assert chance_level(10.373, num_labels=None, **near).words == "ln 32000, a guess among 32000 tokens"
    assert chance_level(4.344, num_labels=77, **near).kind == "labels"
    assert chance_level(2.0, num_labels=None, **near) is None
    assert accumulation_factor(16 * np.log(50257)) == (16, 50257)
    assert accumulation_factor(2.5) is None


def test_early_stopping_uses_paired_errors() -> None:
    rng = np.random.default_rng(0)
    before = rng.normal(1.0, 0.4, 200)
    gain, error = paired_gain(before, before - 0.01 + rng.normal(0, 0.02, 200))
    assert gain == pytest.approx(0.01, abs=0.005)
    assert error < 0.4 / np.sqrt(200) / 5
    assert smallest_gain(error) == pytest.approx(2 * error)
    assert smallest_gain(0.0) == 0.002
    assert should_stop([2, 1.5, 1.6, 1.7, 1.8], patience=3, min_gain=0.0)
    assert not should_stop([2, 1.5, 1.6, 1.7, 1.4], patience=3, min_gain=0.0)


def test_a_sweep_by_hand_says_what_to_try_next() -> None:
    runs = []
    for peak, floor in ((1e-5, 1.5), (1e-4, 1.2)):
        log = simulated_log("clean", setting=replace(LONG, peak=peak, floor=floor))
        runs.append(diagnose_log(replace(log, name=f"{peak:g}")))
    runs.append(diagnose_log(replace(simulated_log("diverged", setting=replace(LONG, peak=2e-4)), name="0.0002")))
    comparison = compare(runs)
    assert [row.name for row in comparison.rows] == ["0.0001", "1e-05", "0.0002"]
    assert "cliff" in comparison.advice


def test_robust_statistics_agree_with_slow_twins() -> None:
    rng = np.random.default_rng(1)
    x = rng.standard_normal(300)
    scores = spike_scores(x)
    for index in (20, 64, 150, 299):
        past = x[max(0, index - 64) : index]
        centre = np.median(past)
        slow = (x[index] - centre) / (1.4826 * np.median(np.abs(past - centre)))
        assert scores[index] == pytest.approx(slow)
    ordered = sorted(x[:63].tolist())
    assert sorted_median(ordered) == pytest.approx(np.median(ordered))
    assert noise_sd(x + np.linspace(0, 5, 300)) == pytest.approx(1.0, rel=0.2)
    assert trend(np.linspace(0, 1, 80)).t > 100
    assert abs(trend(x).t) < 4


@pytest.mark.skipif("FINESTEP_SHARED_DATA" not in os.environ, reason="needs the labelled logs")
def test_verdicts_agree_with_labels_made_by_hand() -> None:
    folder = Path(os.environ["FINESTEP_SHARED_DATA"]) / "logs"
    with (folder / "labels.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["confidence"] != "low"]
    agreed = sum(diagnose_file(folder / "raw" / row["file"]).label == row["primary_label"] for row in rows)
    assert agreed >= 0.85 * len(rows)
