"""What every search strategy offers: from the trials so far, the next ones; it keeps no state of its own.

Being a pure function of the study's trials is what makes resuming and many workers free.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from pydantic import BaseModel, ConfigDict, Field

from finestep.recipe import Recipe
from finestep.trial import Trial


class Proposal(BaseModel):
    """One trial that a strategy wants, and why."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    learning_rate: float = Field(gt=0)
    effective_batch_size: int = Field(ge=1)
    fidelity: float = Field(1.0, gt=0, le=1)
    stage: str = Field(description="Short name of the phase, e.g. `baseline`, `learning-rate scan`.")
    why: str = Field("", description="One sentence for the terminal and the report.")
    is_baseline: bool = Field(False, description="The conservative default, to compare with.")
    changes: Mapping[str, object] = Field(
        default_factory=dict, description="Other fields of the recipe, by dotted name."
    )

    @property
    def fields(self) -> dict[str, object]:
        """All that it asks of the recipe, by dotted name."""
        pair = {"learning_rate": self.learning_rate, "effective_batch_size": self.effective_batch_size}
        return {**pair, **self.changes}


class Strategy(Protocol):
    """Chooses trials."""

    def propose(self, trials: Sequence[Trial], *, remaining_runs: float, max_proposals: int = 1) -> list[Proposal]:
        """The next trials to run; an empty list means that the search is done.

        Args:
            trials: all trials of the study, in order of creation, running ones included.
            remaining_runs: budget left, in full runs (a trial costs its fidelity).
            max_proposals: at most this many at once.
        """
        ...


def apply_proposal(start: Recipe, proposal: Proposal) -> Recipe:
    """The starting recipe with what the strategy wants.

    >>> wanted = Proposal(learning_rate=1e-4, effective_batch_size=8, stage="full runs")
    >>> apply_proposal(Recipe(lora={"rank": 4}), wanted).lora.rank
    4
    """
    wanted = proposal.fields
    if start.micro_batch_size is not None:
        wanted["micro_batch_size"] = min(start.micro_batch_size, proposal.effective_batch_size)
    return start.with_fields(wanted)
