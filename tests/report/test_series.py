"""Shortening keeps spikes, breaks and ends; smoothing starts unbiased; axes have round numbers."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finestep import wording
from finestep.report import axes
from finestep.report.series import debiased_ema, kept_indices

VALUES = st.floats(allow_nan=True, allow_infinity=True, width=32)


def test_a_single_spike_in_a_long_run_is_kept() -> None:
    values = [1.0] * 50_000
    values[31_234], values[40_001] = 9.0, 0.1
    kept = kept_indices([values], max_points=1_000)
    assert {0, 31_234, 40_001, 49_999} <= set(kept)
    assert len(kept) <= 1_000


@given(st.lists(VALUES, min_size=1, max_size=400), st.integers(10, 60))
def test_extremes_and_ends_survive(values: list[float], max_points: int) -> None:
    kept = kept_indices([values], max_points=max_points)
    assert kept == sorted(set(kept))
    assert kept[0] == 0
    assert kept[-1] == len(values) - 1
    assert len(kept) <= max_points
    finite = [value for value in values if math.isfinite(value)]
    if finite:
        assert {min(finite), max(finite)} <= {values[i] for i in kept}
    assert any(not math.isfinite(values[i]) for i in kept) == (len(finite) < len(values))


def test_a_spike_of_either_series_is_kept() -> None:
    losses, norms = [1.0] * 5_000, [1.0] * 5_000
    losses[777], norms[4_321] = 5.0, 80.0
    assert {777, 4_321} <= set(kept_indices([losses, norms], max_points=100))


def test_a_short_series_is_kept_whole() -> None:
    assert kept_indices([[3.0, 2.0, 1.0]], max_points=10) == [0, 1, 2]
    assert kept_indices([], max_points=10) == []


def test_ema_by_hand() -> None:
    # beta = 1 - 2 / 4 = 0.5: m = 1, then 0.25 * 2 + 0.5 * 4 = 2.5 over a weight of 0.75
    assert debiased_ema([2.0, 4.0], span=3) == pytest.approx([2.0, 2.5 / 0.75])


def test_ema_of_a_constant_is_that_constant_and_skips_what_is_no_number() -> None:
    smoothed = debiased_ema([3.0, math.nan, 3.0, math.inf, 3.0], span=20)
    assert [smoothed[i] for i in (0, 2, 4)] == pytest.approx([3.0] * 3)
    assert math.isnan(smoothed[1])
    assert smoothed[3] == math.inf


def test_ema_of_span_one_is_the_series() -> None:
    assert debiased_ema([1.0, 5.0, 2.0], span=1) == [1.0, 5.0, 2.0]


def test_log_ticks_are_round_and_inside() -> None:
    ticks = axes.log_ticks(-4.1, -2.9)
    assert [f"{10**tick:.0e}" for tick in ticks] == ["1e-04", "2e-04", "5e-04", "1e-03"]
    assert axes.log_ticks(-6.0, -1.0) == [-6, -5, -4, -3, -2, -1]


@given(st.lists(st.floats(-6, 0), min_size=1, max_size=30, unique=True))
def test_cell_borders_hold_their_centre_and_do_not_overlap(centres: list[float]) -> None:
    spans = axes.borders(sorted(centres), widest=0.25)
    for centre, (low, high) in zip(sorted(centres), spans, strict=True):
        assert low <= centre <= high
    for (_, high), (low, _) in itertools.pairwise(spans):
        assert high <= low + 1e-9


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (wording.learning_rate(0.0002), "2.0e-04"),
        (wording.loss(math.nan), "NaN"),
        (wording.loss(None), "–"),
        (wording.count(19_800_000), "19.8 M"),
        (wording.count(9_999), "9,999"),
        (wording.count(12_000), "12 k"),
        (wording.duration(59.96), "1 min 00 s"),
        (wording.duration(4.2), "4.2 s"),
        (wording.duration(8_040), "2 h 14 min"),
        (wording.duration(90_000), "1 d 1 h"),
        (wording.share(0.25), "25 %"),
        (wording.share(0.004), "0.4 %"),
        (wording.name("elapsed_s"), "elapsed"),
    ],
)
def test_numbers_as_a_person_writes_them(written: str, expected: str) -> None:
    assert written == expected
