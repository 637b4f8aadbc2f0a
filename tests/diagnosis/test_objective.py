"""Preference and reinforcement learning are judged by rewards and margins, with correlation taken into account."""

from __future__ import annotations

import numpy as np
import pytest

from finestep.diagnosis.objective import gain_z
from finestep.diagnosis.training_log import RunContext, RunSettings, TrainingLog, train_series
from finestep.diagnosis.verdict import diagnose_log

ROWS = 200
DONE = np.linspace(0, 1, ROWS)


def noise(seed: int = 0, sd: float = 0.1) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, sd, ROWS)


def run(objective: str = "reinforcement", *, rate=1e-6, max_steps: int = ROWS, **columns):
    columns.setdefault("loss", noise(9, 0.01))
    columns["learning_rate"] = np.broadcast_to(rate, ROWS)
    log = TrainingLog(
        "r",
        "",
        "t",
        train_series(**columns),
        (),
        RunContext(objective=objective, settings=RunSettings(max_steps=max_steps)),
    )
    return diagnose_log(log)


@pytest.mark.parametrize(
    ("columns", "code", "label"),
    [
        ({"reward": 0.5 + noise()}, "reward_not_gained", "no_learning"),
        ({"reward": 0.5 + 0.3 * DONE + noise()}, "healthy", "healthy"),
        ({"reward": 0.8 - 0.4 * DONE + noise()}, "reward_fell", "lr_too_high_unstable"),
        ({"reward": 0.5 + noise(), "clipped_completions": np.full(ROWS, 0.95)}, "answers_cut_off", "no_learning"),
        ({"reward": 0.5 + noise(), "zero_spread_share": np.full(ROWS, 0.9)}, "no_reward_signal", "no_learning"),
    ],
)  # fmt: skip
def test_the_reward_decides(columns, code: str, label: str) -> None:
    diagnosis = run(**columns)
    assert diagnosis.verdict.code == code
    assert diagnosis.label == label


def test_cut_off_answers_come_before_anything_else() -> None:
    finding = run(
        reward=0.5 + noise(), clipped_completions=np.full(ROWS, 0.95), zero_spread_share=np.full(ROWS, 0.9)
    ).verdict
    assert "completion length" in finding.advice


def test_a_reward_that_collapses_after_a_gain_is_no_success() -> None:
    diagnosis = run(reward=0.3 + 0.6 * np.minimum(DONE / 0.4, 1) - 0.5 * (DONE > 0.7) + noise(sd=0.05))
    assert diagnosis.label == "lr_too_high_unstable"
    assert 0.3 * ROWS < diagnosis.verdict.evidence["step"] < 0.7 * ROWS


def test_the_share_of_right_answers_stands_for_a_reward_that_was_not_logged() -> None:
    assert run(accuracy=0.4 + 0.3 * DONE + noise()).label == "healthy"
    still = run(accuracy=0.4 + noise()).verdict
    assert still.code == "reward_not_gained"
    assert "accuracy" in still.meaning
    assert run(accuracy=0.4 + 0.3 * DONE + noise(), reward=0.5 + noise(1)).verdict.code == "reward_not_gained"


def test_a_wandering_reward_is_no_gain() -> None:
    """Neighbouring rewards hang together, so that the same difference means less."""
    false = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        walk = np.zeros(ROWS)
        for index in range(1, ROWS):
            walk[index] = 0.7 * walk[index - 1] + rng.normal()
        false += abs(gain_z(walk)) >= 3
    assert false <= 3


def test_margins_that_do_not_move_are_not_learned_and_a_tiny_rate_is_named() -> None:
    still = {"loss": 0.69 + noise(1, 0.02), "margin": noise(2), "pair_accuracy": 0.5 + noise(3)}
    assert run("preference", rate=5e-7, **still).label == "no_learning"
    tiny = run("preference", rate=4e-8, **still)
    assert tiny.label == "lr_too_low"
    assert "4e-07" in tiny.verdict.advice


def test_a_chosen_reward_that_falls_is_a_remark() -> None:
    diagnosis = run(
        "preference",
        loss=0.69 - 0.3 * DONE + noise(1, 0.02),
        margin=2 * DONE + noise(2),
        chosen_reward=-2 * DONE + noise(3),
    )
    assert diagnosis.label == "healthy"
    assert "chosen_reward_falls" in [finding.code for finding in diagnosis.findings]


def test_a_stop_within_warmup_says_nothing() -> None:
    diagnosis = run("preference", rate=1e-7 * DONE, max_steps=20 * ROWS, loss=0.69 + noise(1, 0.02), margin=noise(2))
    assert diagnosis.label == "too_little_information"


def test_few_rewards_are_not_judged() -> None:
    log = TrainingLog("r", "", "t", train_series(loss=[0.3, np.inf, 0.2, 0.1], reward=[-2.0, 5.8, 1.2, 10.8]), (),
                      RunContext(objective="reinforcement"))  # fmt: skip
    assert diagnose_log(log).label == "too_little_information"
