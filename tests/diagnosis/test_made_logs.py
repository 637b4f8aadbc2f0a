"""Made logs, whose truth was built in: each is called what an expert could call it, and no broken one is comforted."""

from __future__ import annotations

import pytest
from benchmarks.made_logs.__main__ import outcomes

from finestep.errors import FinestepError

SEEDS = range(100, 103)
"""Other seeds than those that rules were looked at with."""


@pytest.fixture(scope="module")
def seen():
    try:
        return list(outcomes(SEEDS))
    except FinestepError as error:
        pytest.fail(f"a made log could not be read: {error}")


def test_made_logs_are_called_what_they_are(seen) -> None:
    wrong = [each for each in seen if not each.is_named]
    assert len(seen) >= 150
    assert len(wrong) <= 0.02 * len(seen), wrong


def test_no_broken_made_log_is_comforted(seen) -> None:
    assert not [each for each in seen if each.is_comforted]
