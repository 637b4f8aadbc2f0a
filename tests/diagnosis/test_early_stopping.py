"""Early stopping judged on the same rows: noise does not reset patience, and slow progress does."""

from __future__ import annotations

import numpy as np
import pytest

from finestep.diagnosis.early_stopping import is_progress, paired_gain

UNITS = np.random.default_rng(1).integers(3, 40, 200).astype(float)
START = np.random.default_rng(2).gamma(3.0, 0.7, 200) * UNITS


def later(drop: float, *, noise: float = 0.02, seed: int = 0) -> np.ndarray:
    """The rows some steps later: `drop` nats a token lower on average, with a little noise of their own."""
    return START - UNITS * (drop + noise * np.random.default_rng(seed).standard_normal(len(UNITS)))


def test_the_error_of_a_gain_matches_repeated_draws() -> None:
    drops, errors = zip(
        *[paired_gain(START, later(0.0, noise=0.1, seed=seed), UNITS) for seed in range(300)], strict=True
    )
    assert np.mean(errors) == pytest.approx(np.std(drops), rel=0.15)


def test_pairing_removes_the_spread_between_rows() -> None:
    _, paired = paired_gain(START, later(0.0), UNITS)
    unpaired = (START / UNITS).std() * np.sqrt(2 / len(UNITS))
    assert paired < unpaired / 5


def test_noise_is_no_progress() -> None:
    false = sum(is_progress(START, later(0.0, noise=0.1, seed=seed), UNITS) for seed in range(1000))
    assert false <= 40  # one side of two standard errors: 2.3 %, and a little for its own error


def test_a_real_drop_is_progress_and_small_drops_add_up() -> None:
    assert is_progress(START, later(0.02), UNITS)
    steps = [0.0016 * k for k in range(1, 6)]
    assert [is_progress(START, later(drop, noise=0.0), UNITS) for drop in steps] == [False, True, True, True, True]


def test_the_first_evaluation_and_one_after_a_broken_one_are_progress() -> None:
    assert is_progress(None, START, UNITS)
    assert is_progress(np.full(200, np.nan), START, UNITS)
    assert not is_progress(START, np.full(200, np.nan), UNITS)


def test_the_user_may_ask_for_more() -> None:
    assert not is_progress(START, later(0.02), UNITS, min_gain=0.05)
