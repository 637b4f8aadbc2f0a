"""`python -m benchmarks.scoreboard [--half design] [--json OUT]`: regret and cost of `tune` and of what a user would do instead.

Every rival is told the same: what `recommend` says of the task. It plays each measured task once a seed; the recipe that it chose
is judged on the other seeds, against the best recipe of the task in the mean of its seeds. Costs are in full runs, which are tokens:
all batch sizes see the same. The unit is the surface: intervals are of a paired bootstrap over surfaces.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.scoreboard.bill import Bill
from benchmarks.scoreboard.rivals import BOUNDS, BUDGETS, RIVALS
from benchmarks.search.recorded import FOLDER, Recorded, load_recorded

SEEDS = (0, 1)
"""Seeds of the searches; every cell about the best one has a third, and the others have at least the first."""
RESAMPLES = 4000
LEVEL = 0.90


@dataclass(frozen=True)
class Score:
    """One rival on one task with one seed."""

    rival: str
    budget: float
    task: str
    by_accuracy: bool
    seed: int
    cost: float
    regret: float
    stated: float | None


def main() -> None:
    """Play, print the tables and write the scores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=Path, default=FOLDER, help="folder of recorded tasks")
    parser.add_argument("--half", choices=("design", "untouched"), default="design")
    parser.add_argument("--json", type=Path, help="write every score here")
    options = parser.parse_args()
    tasks = load_recorded(options.tasks, half=options.half)
    scores = [score for task in tasks for score in play(task)]
    print("\n".join(report(scores)))
    if options.json:
        options.json.write_text(json.dumps([asdict(score) for score in scores], indent=1) + "\n", encoding="utf-8")


def play(task: Recorded) -> list[Score]:
    """All rivals and bounds on one task."""
    advice = task.recommendation()
    out = []
    for rival in (*RIVALS, *BOUNDS):
        for seed in SEEDS:
            bill = Bill(task, seed)
            chosen, stated = rival.play(bill, advice)
            regret = bill.regret(chosen)
            out.append(Score(rival.name, rival.budget, task.name, task.by_accuracy, seed, bill.spent, regret, stated))
    return out


def report(scores: Sequence[Score]) -> list[str]:
    """The tables as Markdown: tasks judged by loss (per cent) and by accuracy (points) apart."""
    out = []
    for by_accuracy, unit in ((False, "% of the loss"), (True, "points of accuracy")):
        here = [score for score in scores if score.by_accuracy == by_accuracy]
        if here:
            num_tasks = len({score.task for score in here})
            out += [f"\n**{num_tasks} tasks, regret in {unit}**\n", *table(here), "", *differences(here)]
    return out


def table(scores: Sequence[Score]) -> list[str]:
    """A row a rival: what it cost, and its regret over the tasks."""
    lines = ["| rival | cost | mean | median | worst task | stated |", "|---|---|---|---|---|---|"]
    for rival in (*RIVALS, *BOUNDS):
        mine = [score for score in scores if score.rival == rival.name]
        values = list(by_task(mine).values())
        cost = "-" if rival in BOUNDS else f"{statistics.fmean(score.cost for score in mine):.1f}"
        stated = [score.stated for score in mine if score.stated is not None]
        lines.append(
            f"| {rival.name} | {cost} | {statistics.fmean(values):.1f} | "
            f"{statistics.median(values):.1f} | {max(values):.1f} | {f'{statistics.fmean(stated):.1f}' if stated else '-'} |"
        )
    return lines


def differences(scores: Sequence[Score]) -> list[str]:
    """`tune` less each rival that costs no more than its budget: mean and interval; below zero `tune` is better."""
    lines = ["| tune against | " + " | ".join(f"budget {budget}" for budget in BUDGETS) + " |"]
    lines.append("|---" * (1 + len(BUDGETS)) + "|")
    for rival in RIVALS:
        if rival.name.startswith("tune"):
            continue
        theirs = by_task([score for score in scores if score.rival == rival.name])
        cells = []
        for budget in BUDGETS:
            ours = by_task([score for score in scores if score.rival == f"tune {budget}"])
            cells.append("" if rival.budget > budget else interval_words(paired(ours, theirs)))
        lines.append(f"| {rival.name} | " + " | ".join(cells) + " |")
    return lines


def by_task(scores: Sequence[Score]) -> dict[str, float]:
    """Task -> mean regret over the seeds."""
    found: dict[str, list[float]] = defaultdict(list)
    for score in scores:
        found[score.task].append(score.regret)
    return {task: statistics.fmean(values) for task, values in sorted(found.items())}


def paired(ours: Mapping[str, float], theirs: Mapping[str, float]) -> tuple[float, float, float]:
    """(mean difference, its interval) by a bootstrap that draws whole tasks.

    >>> paired({"a": 1.0, "b": 2.0}, {"a": 3.0, "b": 4.0})
    (-2.0, -2.0, -2.0)
    """
    apart = np.array([ours[task] - theirs[task] for task in sorted(ours)])
    drawn = np.random.default_rng(0).integers(len(apart), size=(RESAMPLES, len(apart)))
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(apart[drawn].mean(axis=1), [tail, 1 - tail])
    return float(apart.mean()), float(low), float(high)


def interval_words(found: tuple[float, float, float]) -> str:
    mean, low, high = found
    return f"{mean:+.1f} ({low:+.1f} to {high:+.1f})"


if __name__ == "__main__":
    main()
