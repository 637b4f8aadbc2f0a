"""What the parts of one trial share: who it is, where it stands, how it ended. Its parts do the work (`lane.py` lists them)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from finestep.finding import Finding
from finestep.protocol import Emit, EventKind, Record, TrialRequest
from finestep.recipe import Recipe
from finestep.train.progress import Progress
from finestep.train.resident import Resident
from finestep.train.rollback import Guard
from finestep.train.row_losses import RowLosses
from finestep.train.seat import Seat
from finestep.train.tokens import TrainingData
from finestep.trial import Outcome


@dataclass
class RunState:
    """One trial in training.

    Attributes:
        best: the weights of the best evaluation so far, while they are not those of the last step.
        outcome: how it ended, or None while it has not.
    """

    resident: Resident
    request: TrialRequest
    send: Emit
    should_stop: Callable[[], bool]
    num_steps: int
    guard: Guard
    seat: Seat
    progress: Progress
    best: dict[str, torch.Tensor] = field(default_factory=dict)
    outcome: Outcome | None = None
    num_updates: int = 0
    """Steps that Adam has made: fewer than steps where some were held."""

    @property
    def recipe(self) -> Recipe:
        """What is trained."""
        return self.request.recipe

    @property
    def data(self) -> TrainingData:
        """The rows of the study."""
        return self.resident.data

    @property
    def losses(self) -> RowLosses:
        """Losses of single rows as the trial is now."""
        return RowLosses(self.resident, self.seat.rows, self.seat.number)

    def emit(self, kind: EventKind, data: Record) -> None:
        """Send a record of this trial."""
        self.send(kind, data, trial=self.request.number)

    def tell(self, findings: list[Finding]) -> None:
        """Send what a user should hear at once."""
        for finding in findings:
            if finding.severity in ("warning", "error") or finding.code == "early_warning":
                text = f"{finding.code}: {finding.meaning}"
                self.emit("note", {"text": text, "finding": finding.model_dump()})
