"""A bill: what a rival spent on a recorded task, in full runs, and which recipe it chose. It knows no rival."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from benchmarks.search.recorded import Place, Recorded


@dataclass
class Bill:
    """The runs that a rival made on a task with one seed.

    Args:
        task: what is tuned.
        seed: the seed of the rival's runs; its choice is judged by the others.
    """

    task: Recorded
    seed: int
    spent: float = 0.0
    """Cost so far, in full runs: all batch sizes train the same tokens, so that a run costs its length."""
    seen: dict[Place, float] = field(default_factory=dict)
    """Values of the runs of full length."""

    def run(self, rate: float, batch: float, *, length: float = 1.0) -> tuple[Place, float]:
        """Make a run at the measured cell nearest to a wish, and pay for it: (the cell, its value).

        A repeat is paid too: who trains by hand would not know that two wishes are one cell of a grid.
        """
        place = self.task.nearest(rate, batch, length=length)
        value = self.task.value(self.task.run(place, length=length, seed=self.seed))
        self.spent += length
        if length == 1.0:
            self.seen[place] = value
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
