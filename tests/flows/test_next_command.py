"""The command that goes on: the same words with a larger budget, however the first ones were written."""

from __future__ import annotations

import pytest

from finestep.flows.next_command import next_command
from finestep.study import Budget


@pytest.mark.parametrize(
    ("command", "budget", "expected"),
    [
        ("finestep tune", Budget(full_runs=1), "finestep tune --budget 6"),
        (
            "finestep tune m 'my data.jsonl' --budget=2 --json",
            Budget(full_runs=2),
            "finestep tune m 'my data.jsonl' --budget=6 --json",
        ),
        ("finestep tune m d --budget 6", Budget(full_runs=6), "finestep tune m d --budget 10"),
        ("finestep tune m d --time 1h", Budget(full_runs=6, time_s=3600), "finestep tune m d --time 7200s --budget 10"),
        ("finestep train m d", Budget(full_runs=1), None),
        ("python loop.py", Budget(full_runs=1), None),
    ],
)
def test_the_budget_grows(command, budget, expected):
    found = next_command(command, budget)
    assert found is None if expected is None else sorted(found.split()) == sorted(expected.split())
