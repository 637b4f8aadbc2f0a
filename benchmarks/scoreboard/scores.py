"""Scores of rivals on tasks, and what may be said of their differences when the task is the unit. It prints nothing."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.scoreboard.bill import Bill
from benchmarks.scoreboard.rivals import OURS, Rival, budget_of
from benchmarks.scoreboard.tuned import Stated, cost_to_noise
from benchmarks.search.recorded import Place, Recorded
from benchmarks.search.report import bootstrap

SEEDS = (0, 1)
"""Seeds of the searches; every cell about the best one has a third, and the others have at least the first."""
RESAMPLES = 4000


@dataclass(frozen=True)
class Score:
    """One rival on one task with one budget and one seed."""

    rival: str
    budget: int
    task: str
    by_accuracy: bool
    seed: int
    cost: float
    regret: float
    stated: float | None
    inside: bool | None = None
    """Whether the stated interval holds the best measured rate of the chosen batch size; None: none is stated."""
    octaves: float | None = None
    """Width of this interval."""


@dataclass(frozen=True)
class Reach:
    """Full runs that `tune` needed on one task until the best so far was as good as the best but for noise."""

    task: str
    seed: int
    with_prior: float
    without: float


def play(task: Recorded, rivals: Iterable[Rival]) -> list[Score]:
    """All rivals on one task, at each budget with each seed."""
    advice = task.recommendation()
    out = []
    for rival in rivals:
        for budget in rival.budgets:
            for seed in SEEDS:
                bill = Bill(task, seed, budget_of(rival, budget))
                chosen, stated = rival.play(bill, advice, budget)
                cost, regret = bill.spent, bill.regret(chosen)
                said = None if stated is None else stated.regret
                inside, octaves = (None, None) if stated is None else _held(task, chosen, stated)
                out.append(
                    Score(rival.name, budget, task.name, task.by_accuracy, seed, cost, regret, said, inside, octaves)
                )
    return out


def _held(task: Recorded, chosen: Place, stated: Stated) -> tuple[bool | None, float | None]:
    """(whether the stated interval of the rate is true, its octaves); None without one."""
    if stated.rates is None:
        return None, None
    low, high = map(math.log2, stated.rates)
    return low - 1e-6 <= task.best_log_rate(chosen.log_batch) <= high + 1e-6, high - low


def reach(task: Recorded) -> list[Reach]:
    """The cost of coming within the noise, with what `recommend` says and without."""
    advice = task.recommendation()
    return [
        Reach(task.name, seed, cost_to_noise(task, advice, seed=seed), cost_to_noise(task, None, seed=seed))
        for seed in SEEDS
    ]


def at(scores: Iterable[Score], rival: str, budget: int) -> list[Score]:
    """The scores of one rival at one budget."""
    return [score for score in scores if (score.rival, score.budget) == (rival, budget)]


def by_task(scores: Iterable[Score]) -> dict[str, float]:
    """Task -> mean regret over the seeds."""
    found: dict[str, list[float]] = defaultdict(list)
    for score in scores:
        found[score.task].append(score.regret)
    return {task: statistics.fmean(values) for task, values in sorted(found.items())}


def paired(ours: Mapping[str, float], theirs: Mapping[str, float]) -> tuple[float, float, float]:
    """(mean difference, its 90 % interval) by a bootstrap that draws whole tasks.

    >>> paired({"a": 1.0, "b": 2.0}, {"a": 3.0, "b": 4.0})
    (-2.0, -2.0, -2.0)
    """
    apart = np.array([ours[task] - theirs[task] for task in sorted(ours)])
    return (float(apart.mean()), *bootstrap(apart, count=RESAMPLES))


def difference(scores: Sequence[Score], rival: Rival, budget: int) -> tuple[float, float, float] | None:
    """`tune` less a rival at the largest budget that it can be played with; None where it cannot be at this one."""
    theirs = rival.at(budget)
    if theirs is None or budget not in OURS.budgets:
        return None
    return paired(by_task(at(scores, OURS.name, budget)), by_task(at(scores, rival.name, theirs)))


def intervals(scores: Iterable[Score]) -> tuple[int, int, float] | None:
    """(intervals that hold the best rate, how many there are, their mean width in octaves); None without any."""
    found = [(score.inside, score.octaves) for score in scores if score.inside is not None]
    if not found:
        return None
    return sum(bool(inside) for inside, _ in found), len(found), statistics.fmean(width or 0.0 for _, width in found)


def stated_over_true(scores: Iterable[Score]) -> tuple[float, float, int] | None:
    """(mean stated regret, mean true regret, number of answers) of those that state one; None where none does."""
    both = [(score.stated, score.regret) for score in scores if score.stated is not None]
    if not both:
        return None
    stated, true = zip(*both, strict=True)
    return statistics.fmean(stated), statistics.fmean(true), len(both)


def median_cost(costs: Iterable[float]) -> tuple[float, int, int]:
    """(median, how many reached the aim, how many there are); tasks whose noise is unknown are left out."""
    known = [cost for cost in costs if not math.isnan(cost)]
    return (statistics.median(known) if known else math.nan), sum(map(math.isfinite, known)), len(known)
