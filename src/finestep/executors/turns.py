"""Trials that wait their turn, for executors without a resident worker: who waits, who was stopped, and how each end is told."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path

from finestep.disk import append_line, json_text, make_folder, write_whole
from finestep.protocol import Event, TrialRequest
from finestep.study_layout import NOTES, OUTCOME
from finestep.trial import Outcome, recipe_hash

IDLE_S = 0.5
"""So often who listens may look at what else waits, while nothing happens."""
BY_HAND = "stopped by hand"


class Turns(ABC):
    """The trials that were submitted and have not begun. Its `events` runs them; after a stop or in a pause they are interrupted.

    Attributes:
        is_stopping: nothing begins any more, and what runs should end.
        stopped: trials that the user has stopped; whoever runs them ends them with what they have shown.
    """

    def __init__(self) -> None:
        self.waiting: list[TrialRequest] = []
        self.is_stopping = False
        self.stopped: set[int] = set()
        self._is_pausing = False

    @abstractmethod
    def events(self) -> Iterator[Event]:
        """Run what waits, and what is submitted meanwhile."""

    def begin(self) -> None:
        """Go on after a pause."""
        self._is_pausing = False

    def submit(self, request: TrialRequest) -> None:
        """Take a trial."""
        self.waiting.append(request)

    def stop(self) -> None:
        """Start no further trial. Safe in a signal handler."""
        self.is_stopping = True

    def pause(self) -> None:
        """Start no further trial until `begin`; what runs goes on to its end."""
        self._is_pausing = True

    @property
    def starts_none(self) -> bool:
        """True while a trial whose turn comes is given back."""
        return self.is_stopping or self._is_pausing


class TurnsExecutor:
    """What an executor answers by its turns alone (`executor.py` has the contract); `start`, `kill` and `close` are its own."""

    def __init__(self, turns: Turns):
        self._turns = turns

    def submit(self, request: TrialRequest) -> None:
        """Take a trial."""
        self._turns.submit(request)

    def events(self) -> Iterator[Event]:
        """Run the submitted trials; each ends with `finished` or `interrupted`."""
        return self._turns.events()

    def stop(self) -> None:
        """Start no further trial; what runs is interrupted where it can be. Safe in a signal handler."""
        self._turns.stop()

    def pause(self) -> None:
        """Start no further trial until the next `start`. What runs goes on: it could not be taken up where it was."""
        self._turns.pause()

    def stop_trial(self, number: int) -> None:
        """End one trial; what it has shown is its result."""
        self._turns.stopped.add(number)


def given_back(request: TrialRequest) -> Event:
    """A trial that did not begin, or keeps nothing to go on from."""
    return Event(kind="interrupted", trial=request.number, data={"step": 0})


def noted(number: int, folder: Path, text: str) -> Event:
    """Something that is worth knowing of a trial; it is on disk before it is told, as the notes of our own trainer are."""
    make_folder(folder)
    append_line(folder / NOTES, json_text({"text": text}))
    return Event(kind="note", trial=number, data={"text": text})


def finished(request: TrialRequest, outcome: Outcome) -> Event:
    """The end of a trial, with the hash of what was asked; it is on disk before it is told."""
    outcome = outcome.model_copy(update={"recipe_hash": recipe_hash(request.recipe, request.fidelity)})
    write_whole(Path(request.folder) / OUTCOME, outcome.model_dump_json())
    return Event(kind="finished", trial=request.number, data=outcome.model_dump())
