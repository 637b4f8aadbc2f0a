"""TuneEvent: something that happened in a study, for a terminal, a log or a program."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from finestep.ready import Ready
from finestep.trial import EvalRecord, StepRecord, Trial

EventKind = Literal[
    "ready", "trial_started", "step", "evaluation", "note", "trial_finished", "saved", "interrupted", "done"
]


@dataclass(frozen=True)
class TuneEvent:
    """Something that happened.

    Attributes:
        trial: whose event it is; None: the study's.
        record: of `step` and `evaluation`.
        ready: of `ready`: what the trainer found.
        trials: of `ready`: the trials that the study has already.
        is_finished: of `ready`: nothing is left to do.
        data: further values as the trainer says them, e.g. `text` of a note.
    """

    kind: EventKind
    trial: Trial | None = None
    record: StepRecord | EvalRecord | None = None
    ready: Ready | None = None
    trials: tuple[Trial, ...] = ()
    is_finished: bool = False
    data: Mapping[str, object] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """What a note says, in words."""
        return str(self.data.get("text", ""))

    @property
    def num_steps(self) -> int:
        """Of a trial that has started: the optimizer steps of the whole run."""
        return _whole(self.data.get("num_steps"))

    @property
    def from_step(self) -> int:
        """Of a trial that has started: the step that it goes on from; 0 for a new one."""
        return _whole(self.data.get("from_step"))


def _whole(value: object) -> int:
    return int(value) if isinstance(value, int | float) else 0
