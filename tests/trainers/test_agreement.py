"""The log of a framework beside what it was asked: what is caught, and what is no fault."""

from __future__ import annotations

import math

import pytest

from finestep.trainers.agreement import Agreement, same_training
from finestep.trainers.frameworks import FRAMEWORKS
from finestep.trainers.live_log import Said, TrainRow
from finestep.trainers.plan import TrialPlan


def plan(**more):
    values = {
        "learning_rate": 1e-3,
        "micro_batch": 4,
        "accumulation": 4,
        "num_devices": 1,
        "num_steps": 20,
        "warmup_steps": 2,
    }
    return TrialPlan(**{**values, **more}, num_epochs=1.0, seed=0, output="")


def rates(asked, *, shift, steps=20, warmup=2, cosine=False):
    """What a linear or cosine schedule logs: the rate that a step used, or the one of the next."""
    for step in range(1, steps + 1):
        at = step - 1 + shift
        down = (steps - at) / max(steps - warmup, 1)
        if cosine:
            down = 0.5 * (1 + math.cos(math.pi * (1 - down)))
        yield TrainRow(step, 2.0, asked * (at / warmup if at < warmup else down))


def judge(rows, *, name="trl", **asked):
    agreement = Agreement(plan(**asked), FRAMEWORKS[name])
    found = next((broken for row in rows if (broken := agreement.broken_by(row))), None)
    return found or agreement.broken_at_end()


@pytest.mark.parametrize(("name", "shift"), [("trl", 0), ("llamafactory", 0), ("ms-swift", 1), ("litgpt", 1)])
@pytest.mark.parametrize("warmup", [0, 1, 2, 5])
@pytest.mark.parametrize("cosine", [False, True])
@pytest.mark.parametrize("steps", [6, 20, 60])
def test_a_run_that_does_as_it_was_told_passes(name, shift, warmup, cosine, steps):
    rows = rates(1e-3, shift=shift, warmup=warmup, cosine=cosine, steps=steps)
    assert judge(rows, name=name, warmup_steps=warmup, num_steps=steps) is None


@pytest.mark.parametrize("shift", [0, 1])
def test_an_offset_of_one_step_is_no_fault(shift):
    assert judge(rates(1e-3, shift=1 - shift), name=("trl", "ms-swift")[shift]) is None


def test_another_rate_is_seen_before_the_run_is_over():
    for used in (3e-3, 2e-4):
        agreement = Agreement(plan(), FRAMEWORKS["trl"])
        caught = [row.step for row in rates(used, shift=0) if agreement.broken_by(row)]
        assert caught
        assert caught[0] <= 8


def test_the_words_name_both_rates():
    said = judge(rates(3e-3, shift=0, warmup=0), warmup_steps=0) or ""
    assert "0.003 at step 1" in said
    assert "0.001 was asked for" in said


def test_a_warmup_of_another_length_and_a_run_of_another_length_are_faults():
    assert judge(rates(1e-3, shift=0, warmup=8)) is not None
    assert "warmup of 5 steps" in (judge(rates(1e-3, shift=0, warmup=5)) or "")
    assert "ends at step 12" in (judge(list(rates(1e-3, shift=0, warmup=2, steps=20))[:12]) or "")


@pytest.mark.parametrize(
    ("said", "word"),
    [
        (Said(batch=32), "32 rows a step"),
        (Said(num_steps=24), "24 steps"),
        (Said(batch=16, num_steps=21), ""),
        (Said(), ""),
    ],
)
def test_batch_and_steps_are_compared(said, word):
    found = Agreement(plan(), FRAMEWORKS["trl"]).broken_by_what_it_said(said)
    assert (found is None) == (word == "")
    assert word in (found or "")


def test_a_log_without_rates_says_so():
    agreement = Agreement(plan(), FRAMEWORKS["trl"])
    assert all(agreement.broken_by(TrainRow(step, 2.0)) is None for step in range(1, 21))
    assert agreement.broken_at_end() is None
    assert "could not be compared" in agreement.words()


def test_twins_have_the_same_losses_after_the_first_updates_too():
    run = [3.5, 3.4, 3.2, 3.0, 2.9]
    assert same_training(run, run)
    assert same_training(run, run[:4])
    assert not same_training(run, [3.5, 3.4, 3.2, 3.01, 2.9])
    assert not same_training(run[:3], run[:3])
    assert not same_training([0.0] * 9, [0.0] * 9)
