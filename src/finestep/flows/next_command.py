"""The command that goes on with a study that is not settled: the same one with a larger budget; it runs nothing."""

from __future__ import annotations

import re
import shlex

from finestep.study import Budget

USUAL_RUNS, MORE_RUNS = 6.0, 4.0
"""Full runs that usually settle a study (docs/search.md), and how many more when it had as many."""
PROGRAM, COMMAND = "finestep", "tune"


def next_command(command: str, budget: Budget) -> str | None:
    """`command` with a larger `--budget` (and twice the `--time`, where that was given); None when it is no `finestep tune`.

    >>> next_command("finestep tune m d.jsonl --budget 2", Budget(full_runs=2))
    'finestep tune m d.jsonl --budget 6'
    """
    words = shlex.split(command)
    if words[:2] != [PROGRAM, COMMAND]:
        return None
    runs = USUAL_RUNS if budget.full_runs < USUAL_RUNS else budget.full_runs + MORE_RUNS
    words = _with_option(words, "--budget", f"{runs:g}")
    if budget.time_s is not None:
        words = _with_option(words, "--time", f"{2 * budget.time_s:g}s")
    return shlex.join(words)


def _with_option(words: list[str], name: str, value: str) -> list[str]:
    """The words with the option's value replaced, wherever it stands, or added at the end."""
    kept = list(words)
    for index, word in enumerate(words):
        if word == name and index + 1 < len(words):
            kept[index + 1] = value
            return kept
        if re.match(rf"{re.escape(name)}=", word):
            kept[index] = f"{name}={value}"
            return kept
    return [*kept, name, value]
