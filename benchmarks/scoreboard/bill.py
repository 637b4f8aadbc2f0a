"""A bill: what a rival spent on a recorded task, in full runs, and which recipe it chose. It knows no rival."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from benchmarks.search.recorded import Place, Recorded

SAME = 1e-4
"""Full runs by which a sum of lengths may miss a budget: the files round a third of a run."""


class OverBudget(Exception):
    """A rival asked for a run that its budget does not pay; the benchmark is wrong, not the task."""


@dataclass
class Bill:
    """The runs that a rival made on a task with one seed.

    Args:
        task: what is tuned.
        seed: the seed of the rival's runs; its choice is judged by the others.
        budget: the most that may be spent, in full runs.
    """

    task: Recorded
    seed: int
    budget: float = math.inf
    spent: float = 0.0
    """Cost so far, in full runs: all batch sizes train the same tokens, so that a run costs its length."""
    seen: dict[Place, float] = field(default_factory=dict)
    """Values of the runs of full length."""
    leaders: list[tuple[float, Place]] = field(default_factory=list)
    """After each run of full length: (cost so far, the best recipe so far)."""

    def affords(self, length: float = 1.0, *, keep: float = 0.0) -> bool:
        """True when a run of this length fits, with so many full runs left over."""
        return self.spent + length + keep <= self.budget + SAME

    def run(self, rate: float, batch: float, *, length: float = 1.0) -> tuple[Place, float]:
        """Make a run at the measured cell nearest to a wish, and pay for it: (the cell, its value).

        A repeat is paid too: who trains by hand would not know that two wishes are one cell of a grid.
        """
        if not self.affords(length):
            raise OverBudget(f"{self.spent:.2f} of {self.budget:.2f} full runs are spent; {length:.2f} more do not fit")
        place = self.task.nearest(rate, batch, length=length)
        value = self.task.value(self.task.run(place, length=length, seed=self.seed))
        self.spent += length
        if length == 1.0:
            self.seen[place] = value
            self.leaders.append((self.spent, self.best()))
        return place, value

    def best(self) -> Place:
        """The recipe of the best run of full length; of equal ones the first."""
        return min(self.seen, key=lambda place: self.seen[place])

    def full_runs(self, wishes: Iterable[tuple[float, float]]) -> Place:
        """Make runs of full length and choose the best."""
        for rate, batch in wishes:
            self.run(rate, batch)
        return self.best()

    def regret(self, chosen: Place) -> float:
        """Distance of the choice on fresh seeds from the best recipe; a choice that diverges on one is twice as bad as the best."""
        value = self.task.fresh(chosen, seen=self.seed)
        return self.task.regret(value if math.isfinite(value) else 2 * max(self.task.best, 1e-9))
