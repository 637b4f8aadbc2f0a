"""Trials that run one after the other: the queue of executors without a resident worker."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from finestep.protocol import Event, TrialRequest


class InTurn:
    """Takes trials and runs each to its end; after a stop, those that still wait are interrupted.

    Args:
        run: the events of one trial, from `started` to `finished` or `interrupted`.

    Attributes:
        stopped: trials that the user has stopped; `run` ends them with what they have shown.
    """

    def __init__(self, run: Callable[[TrialRequest], Iterator[Event]]):
        self._run = run
        self.waiting: list[TrialRequest] = []
        self.is_stopping = False
        self.stopped: set[int] = set()
        self._is_pausing = False

    def begin(self) -> None:
        """Go on after a pause."""
        self._is_pausing = False

    def submit(self, request: TrialRequest) -> None:
        """Take a trial."""
        self.waiting.append(request)

    def events(self) -> Iterator[Event]:
        """Run what waits, and what is submitted meanwhile."""
        while self.waiting:
            request = self.waiting.pop(0)
            if self.is_stopping or self._is_pausing:
                yield Event(kind="interrupted", trial=request.number, data={"step": 0})
                continue
            yield from self._run(request)

    def stop(self) -> None:
        """Start no further trial. Safe in a signal handler."""
        self.is_stopping = True

    def pause(self) -> None:
        """Start no further trial until `begin`; the one that runs goes on to its end."""
        self._is_pausing = True
