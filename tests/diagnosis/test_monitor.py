"""The live monitor speaks once, at the right time, and not on clean runs; the guard follows the table."""

from __future__ import annotations

import itertools
import json
import math
import random

import pytest

from finestep.diagnosis.guard import MAX_INTERVENTIONS, Probes, decide
from finestep.diagnosis.monitor import LiveMonitor
from finestep.diagnosis.simulated import Setting, simulated_log
from finestep.trial import EvalRecord, Intervention, StepRecord

STEPS = Setting(num_rows=300, rows_apart=1, noise_sd=0.05, num_evaluations=8)


def record(step: int, loss: float = 1.0, *, grad_norm: float = 1.0, num_loss_tokens: int = 10, **rest) -> StepRecord:
    return StepRecord(
        step=step, loss=loss, learning_rate=1e-4, grad_norm=grad_norm, clipped=False, num_tokens=10,
        num_loss_tokens=num_loss_tokens, elapsed_s=0.0, **rest,
    )  # fmt: skip


def evaluation(step: int, loss: float) -> EvalRecord:
    return EvalRecord(step=step, num_tokens=1, eval_loss=loss)


def watched(fault: str, *, seed: int = 0, setting: Setting = STEPS, monitor: LiveMonitor | None = None):
    log = simulated_log(fault, seed=seed, setting=setting)
    monitor = monitor or LiveMonitor(chance_loss=10.0, planned_steps=setting.num_rows, base_eval_loss=2.5)
    evals = dict(zip(log.evaluation.step.tolist(), log.evaluation.loss.tolist(), strict=True)) if log.evaluation else {}
    findings = []
    for step, loss, norm in zip(log.train.step, log.train.loss, log.train.grad_norm, strict=True):
        findings += monitor.step(record(int(step), float(loss), grad_norm=float(norm)))
        if step in evals:
            findings += monitor.evaluation(evaluation(int(step), evals[step]))
    return findings


@pytest.mark.parametrize(
    ("fault", "code"),
    [("diverged", "diverged"), ("collapsed", "diverged"), ("overfitting", "overfitting"), ("poisoned_batch", "bad_batch"),
     ("overflow", "dead_gradients"), ("leak", "too_good")],
)  # fmt: skip
def test_a_fault_is_said_while_it_happens(fault: str, code: str) -> None:
    for seed in range(5):
        codes = [finding.code for finding in watched(fault, seed=seed)]
        assert code in codes
        assert len(codes) == len(set(codes))


def test_a_spike_that_heals_is_only_noticed() -> None:
    findings = watched("spike", setting=Setting(num_rows=150, rows_apart=1, noise_sd=0.05, num_evaluations=0))
    assert [finding.code for finding in findings] == ["spike_recovered"]


def test_clean_runs_are_left_alone() -> None:
    alarms = total = 0
    for noise, sd, rows in itertools.product(("gaussian", "student", "correlated"), (0.02, 0.1, 0.3), (100, 500)):
        for seed in range(4):
            findings = watched(
                "clean", seed=seed, setting=Setting(num_rows=rows, rows_apart=1, noise=noise, noise_sd=sd)
            )
            alarms += any(finding.severity in ("warning", "error") for finding in findings)
            total += 1
    assert alarms <= 0.02 * total


def test_a_loss_of_next_to_nothing_may_rise() -> None:
    rng = random.Random(0)
    monitor, findings = LiveMonitor(chance_loss=0.7), []
    for step in range(1, 400):
        level = 0.7 * math.exp(-step / 20) + (0.004 if step < 200 else 0.012)
        findings += monitor.step(record(step, level * math.exp(rng.gauss(0, 0.5))))
        assert monitor.harm[1] == 0.0
    assert [finding for finding in findings if finding.severity in ("warning", "error")] == []


def test_a_jump_into_another_level_does_harm_within_a_few_steps() -> None:
    rng = random.Random(0)
    monitor = LiveMonitor(chance_loss=10.0)
    losses = [(4 * math.exp(-s / 20) + 1) * math.exp(rng.gauss(0, 0.35)) for s in range(60)]
    for step, loss in enumerate(losses, start=1):
        monitor.step(record(step, loss))
        assert monitor.harm[1] == 0.0
    assert monitor.is_calm
    for step in range(61, 69):
        monitor.step(record(step, 9 * math.exp(rng.gauss(0, 0.35))))
    start, harm = monitor.harm
    assert start == 61
    assert harm > 6
    assert not monitor.is_calm


def test_nan_is_said_with_its_cause() -> None:
    (finding,) = LiveMonitor(chance_loss=10.0).step(record(1, math.nan, num_loss_tokens=0))
    assert finding.code == "non_finite_loss"
    assert "no token" in finding.meaning


def test_a_loss_scaler_may_skip_a_few_steps() -> None:
    monitor = LiveMonitor(chance_loss=10.0, has_loss_scaler=True)
    few = [
        f for step in range(1, 40) for f in monitor.step(record(step, grad_norm=math.inf if step % 10 == 0 else 1.0))
    ]
    many = [f for step in range(40, 60) for f in monitor.step(record(step, grad_norm=math.inf))]
    assert [f.code for f in few] == []
    assert [f.code for f in many] == ["fp16_overflow"]


def test_frozen_weights_are_said() -> None:
    monitor = LiveMonitor(chance_loss=10.0)
    findings = [f for step in range(1, 20) for f in monitor.step(record(step, 2.0 + 0.1 * (step % 3), update_norm=0.0))]
    assert [f.code for f in findings] == ["nothing_trained"]


def test_a_bf16_stall_is_told_from_frozen_weights() -> None:
    monitor = LiveMonitor(chance_loss=10.0, weights_in_bf16=True)
    findings = [f for step in range(1, 20) for f in monitor.step(record(step, 2.0, update_norm=0.0))]
    assert [f.code for f in findings] == ["bf16_stall"]


def test_a_run_that_never_beats_its_base_is_said() -> None:
    monitor = LiveMonitor(chance_loss=10.0, planned_steps=40, base_eval_loss=1.0)
    findings = []
    for step in range(1, 41):
        findings += monitor.step(record(step, 1.5))
        findings += monitor.evaluation(evaluation(step, 1.3 - step / 1000)) if step % 10 == 0 else []
    assert [f.code for f in findings] == ["worse_than_base"]


def test_probes_warn_before_the_loss_moves() -> None:
    monitor = LiveMonitor(chance_loss=10.0)
    assert monitor.probe(10, 0.8) == []
    assert [f.code for step in (20, 30, 40, 50) for f in monitor.probe(step, 0.3)] == ["early_warning"]


def test_a_checkpoint_keeps_the_monitor() -> None:
    monitor = LiveMonitor(chance_loss=10.0, planned_steps=300, base_eval_loss=2.5)
    watched("clean", monitor=monitor)
    other = LiveMonitor(chance_loss=10.0)
    other.restore(json.loads(json.dumps(monitor.state())))
    jumps = [[[f.code for f in each.step(record(step, 30.0))] for step in (301, 302)] for each in (monitor, other)]
    assert jumps == [[[], ["diverged"]]] * 2


def test_one_exploded_batch_is_odd_and_two_are_a_lost_run() -> None:
    def codes(losses: list[float]) -> list[str]:
        monitor = LiveMonitor(chance_loss=7.0)
        calm = [2.0 + 0.1 * (step % 5) for step in range(60)]
        return [f.code for step, loss in enumerate([*calm, *losses], start=1) for f in monitor.step(record(step, loss))]

    assert codes([16.0, 2.0, 2.1, 2.0, 2.2]) == ["bad_batch"]
    assert codes([16.0, 18.0, 17.0]) == ["diverged"]


CALM = [record(step) for step in range(1, 41)]


@pytest.mark.parametrize(
    ("records", "probes", "action", "cause"),
    [
        ([*CALM, record(41, math.nan, num_loss_tokens=0)], Probes(), "skip_batch", "batch"),
        ([*CALM, record(41, math.nan)], Probes(replay_loss=math.nan), "skip_batch", "batch"),
        ([*CALM, record(41, math.nan)], Probes(replay_loss=1.1), "retry", "accident"),
        ([*CALM, record(41, 9.0)], Probes(replay_loss=8.0), "skip_batch", "batch"),
        ([*CALM, record(41, 9.0)], Probes(replay_loss=1.1), "retry", "accident"),
        ([*CALM, *[record(s, grad_norm=3.0) for s in range(41, 53)], record(53, 9.0)], Probes(replay_loss=1.1), "lower_rate",
         "rate"),
        ([*CALM, record(41, 9.0)], Probes(probe_loss_good=1.0, probe_loss_now=4.0), "lower_rate", "rate"),
        ([*CALM, record(41, 9.0)], Probes(probe_loss_good=1.0, probe_loss_now=1.01), "skip_batch", "batch"),
        ([*CALM, record(41, 9.0)], Probes(row_losses=(1, 1, 1, 1, 1, 1, 60)), "skip_batch", "batch"),
        ([*CALM, record(41, 9.0, grad_norm=50.0)], Probes(), "skip_batch", "batch"),
        ([*CALM, *[record(s, grad_norm=3.0) for s in range(41, 53)], record(53, 9.0)], Probes(), "lower_rate", "rate"),
        ([*CALM, record(41, 9.0)], Probes(), "lower_rate", "unknown"),
    ],
)  # fmt: skip
def test_the_guard_tells_rate_batch_and_accident_apart(records, probes, action, cause) -> None:
    decision = decide(records, probes)
    assert (decision.action, decision.cause) == (action, cause)
    assert (decision.rate_factor < 1) == (action == "lower_rate")


def done(step: int, action: str) -> Intervention:
    return Intervention(step=step, back_to=step - 1, action=action, cause="unknown")


def test_the_guard_learns_from_what_it_did() -> None:
    trouble = [*CALM, record(41, 9.0)]
    assert decide(trouble, earlier=[done(41, "retry")]).action == "lower_rate"
    assert decide(trouble, earlier=[done(41, "lower_rate")]).action == "skip_batch"
    assert decide(trouble, earlier=[done(41, "skip_batch")]).action == "lower_rate"
    assert decide(trouble, Probes(replay_loss=1.1), earlier=[done(10, "retry")]).action == "lower_rate"
    assert decide(trouble, earlier=[done(5 * n, "lower_rate") for n in range(MAX_INTERVENTIONS)]).action == "stop"


def one_row_a_step(losses: list[float]) -> list[str]:
    """What is said of a classifier of three labels that sees one row a step."""
    monitor = LiveMonitor(chance_loss=math.log(3), planned_steps=len(losses), is_of_labels=True)
    found = [monitor.step(record(n, loss, num_loss_tokens=1)) for n, loss in enumerate(losses, start=1)]
    return [finding.code for findings in found for finding in findings if finding.severity == "error"]


def test_single_rows_that_are_guessed_wrong_are_no_explosion() -> None:
    """Early in a run a label that was just learned is said of every row: sure, and wrong on two in three."""
    rng = random.Random(3)
    wrong = [2.6, 2.9, 0.1, 2.5, 2.8, 3.1, 0.2, 0.1, 2.4, 2.7]
    learned = [rng.choice([0.05, 0.1, 0.3, 2.3]) for _ in range(100)]
    assert one_row_a_step([1.1, 0.9, 1.2, *wrong, *learned]) == []


def test_a_run_that_went_through_a_bad_patch_and_learned_is_not_called_lost() -> None:
    """The first losses of a run on 180 labelled rows at a rate of 0.01, which ended with an accuracy of 0.84."""
    measured = [
        1.1, 1.21, 1.14, 1.33, 2.52, 0.82, 0.76, 1.2, 0.54, 1.3, 0.97, 0.43, 0.02, 0.04, 0.0, 0.0, 8.58, 0.12, 8.2, 6.31,
        6.28, 2.27, 0.92, 0.87, 0.24, 8.03, 6.97, 0.08, 6.74, 0.01, 5.57, 4.9, 5.0, 0.15, 3.18, 0.4, 1.54, 2.22, 1.21, 1.37,
        2.19, 1.16, 1.2, 0.7, 1.69, 1.71, 1.44, 2.21, 0.96, 2.03, 0.65, 1.54, 1.6, 1.37, 0.93, 0.99, 1.15, 1.67, 0.77, 1.63,
    ]  # fmt: skip
    assert one_row_a_step(measured) == []


def test_a_classifier_that_is_lost_is_said_at_one_row_a_step_too() -> None:
    rng = random.Random(3)
    lost = [rng.choice([0.0, 14.0, 9.0]) for _ in range(40)]
    assert "diverged" in one_row_a_step([1.1, 0.9, 1.2, *lost])
