"""RandomSearch: points drawn evenly in log learning rate and log batch size; the yardstick that needs no model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from finestep.search.space import SearchSpace
from finestep.search.strategy import Proposal
from finestep.trial import Trial


@dataclass(frozen=True)
class RandomSearch:
    """Full-length runs at random points of the space; the n-th point depends on the seed and n alone.

    Args:
        space: its learning rates give the range, its batch sizes and further fields the choices.
    """

    space: SearchSpace
    seed: int = 0

    def propose(self, trials: Sequence[Trial], *, remaining_runs: float, max_proposals: int = 1) -> list[Proposal]:
        """The next points, while a full run can be paid."""
        count = min(max_proposals, int(remaining_runs + 1e-9))
        return [self.point(len(trials) + more) for more in range(count)]

    def point(self, number: int) -> Proposal:
        """The point with this number."""
        chance = np.random.default_rng([self.seed, number])
        low, high = np.log(self.space.learning_rates[0]), np.log(self.space.learning_rates[-1])
        return Proposal(
            learning_rate=float(f"{np.exp(chance.uniform(low, high)):.3g}"),
            effective_batch_size=int(chance.choice(np.array(self.space.batch_sizes))),
            stage="random",
            why="a random point",
            changes={d.name: d.values[int(chance.integers(len(d.values)))] for d in self.space.extras},
        )
