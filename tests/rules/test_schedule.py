"""Laws that hold for every schedule: it climbs to the peak, never exceeds it, never rises again, and ends above its floor."""

from __future__ import annotations

import itertools
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finestep.recipe import ScheduleGroup, ScheduleName
from finestep.rules.schedule import learning_rate_at

NAMES = get_args(ScheduleName)


def rates(name: str, num_steps: int, warmup: int, floor: float = 0.0) -> list[float]:
    schedule = ScheduleGroup(name=name, min_lr_ratio=floor)
    return [
        learning_rate_at(step, peak=2e-3, num_steps=num_steps, warmup=warmup, schedule=schedule)
        for step in range(1, num_steps + 1)
    ]


@pytest.mark.parametrize("name", NAMES)
@given(st.integers(2, 200), st.integers(0, 60), st.floats(0, 0.9))
def test_up_to_the_peak_and_never_up_again(name, num_steps, warmup, floor):
    warmup = min(warmup, num_steps - 1)
    found = rates(name, num_steps, warmup, floor)
    top = max(warmup, 1) - 1
    assert found[top] == pytest.approx(2e-3)
    rising, falling = itertools.pairwise(found[: top + 1]), itertools.pairwise(found[top:])
    assert all(low < high for low, high in rising)
    assert all(later <= earlier * (1 + 1e-12) for earlier, later in falling)
    assert min(found[top:]) >= floor * 2e-3 * (1 - 1e-12)
    assert found[-1] > 0


@pytest.mark.parametrize(
    ("name", "half"), [("linear", 0.5), ("cosine", 0.5), ("constant", 1.0), ("polynomial", 0.5), ("wsd", 1.0)]
)
def test_where_it_is_at_half_of_the_run(name, half):
    assert rates(name, 1000, 0)[500] == pytest.approx(half * 2e-3, rel=2e-3)


def test_inverse_sqrt_falls_with_the_root_of_the_steps():
    found = rates("inverse_sqrt", 400, 100)
    assert found[399] == pytest.approx(found[99] / 2)
