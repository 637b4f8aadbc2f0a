"""The smallest strategy: one recipe, once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from finestep.recipe import Recipe
from finestep.search.strategy import Proposal
from finestep.trial import Trial


@dataclass(frozen=True)
class Single:
    """Proposes `recipe` if it has not been tried."""

    recipe: Recipe

    def propose(self, trials: Sequence[Trial], *, remaining_runs: float, max_proposals: int = 1) -> list[Proposal]:
        """The recipe as it is, until there is a trial."""
        if trials or remaining_runs <= 0:
            return []
        return [
            Proposal(
                learning_rate=self.recipe.learning_rate,
                effective_batch_size=self.recipe.effective_batch_size,
                stage="training",
                why="the recipe as it is",
            )
        ]
