"""The search for the largest micro-batch, and what a pack may hold."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finestep.probe import Lever, MemoryCurve, MemoryLine
from finestep.probes.limit import MOST_ROWS, bisect
from finestep.rules.memory_lines import choose_curve, largest_lanes


@given(limit=st.integers(0, MOST_ROWS), start=st.integers(1, 20 * MOST_ROWS))
def test_bisection_finds_the_limit_within_a_tenth_and_never_above(limit, start):
    tried = []

    def fits(rows):
        tried.append(rows)
        return rows <= limit

    found = bisect(fits, start=start)
    assert found <= limit
    assert found >= limit - max(1, 0.1 * limit) - 1
    assert len(tried) <= 26
    assert max(tried) <= MOST_ROWS, "a prediction for a small model on a large GPU is more than anybody needs"


@given(limit=st.integers(0, 500), start=st.integers(1, 500), most=st.integers(1, 500))
def test_more_than_what_killed_an_earlier_try_is_not_tried(limit, start, most):
    tried = []

    def fits(rows):
        tried.append(rows)
        return rows <= limit

    assert bisect(fits, start=start, most=most) <= min(limit, most)
    assert max(tried) <= most


def curve(fixed: float, per_row: float, *, checkpointing: bool = False) -> MemoryCurve:
    line = MemoryLine(phase="p", fixed={"weights": fixed}, per_row={"activations": per_row})
    return MemoryCurve(lever=Lever(checkpointing=checkpointing), length=8, lines=(line,))


def test_lanes_share_the_base_and_keep_their_own_adapters():
    assert largest_lanes(curve(100, 10), 100 + 40 + 3 * 16, rows=1, num_trained=1) == 4
    assert largest_lanes(curve(100, 10), 139, rows=4, num_trained=0) == 0, "not even one trial fits"
    assert largest_lanes(curve(100, 10), 140, rows=4, num_trained=10) == 1


def test_the_first_setting_with_enough_rows_is_taken():
    curves = [curve(100, 10), curve(100, 2, checkpointing=True)]
    assert choose_curve(curves, 140, rows=4) is curves[0]
    assert choose_curve(curves, 130, rows=4) is curves[1]
    assert choose_curve(curves, 103, rows=4) is curves[1], "the one with most rows"
    assert choose_curve(curves, None, rows=4) is curves[0]


def test_a_limit_of_nothing():
    assert bisect(lambda rows: False, start=64) == 0
    assert bisect(lambda rows: rows <= 1, start=64) == pytest.approx(1)
