"""Several trials under way at the same time, each told as a generator that says None while it waits."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from finestep.executors.detached import POLL_S
from finestep.protocol import Event, TrialRequest

Run = Iterator[Event | None]
IDLE_S = 0.5
"""So often who listens may look at what else waits, while nothing happens."""


class AtOnce:
    """Takes trials and runs up to so many at a time; after a stop, those that still wait are interrupted.

    Args:
        run: the events of one trial, from `started` to `finished`, `interrupted` or `error`; None: nothing new now.
        most: trials at the same time.

    Attributes:
        stopped: trials that the user has stopped; `run` ends them with what they have shown.
    """

    def __init__(self, run: Callable[[TrialRequest], Run], *, most: int = 1):
        self._run, self._most = run, most
        self._waiting: list[TrialRequest] = []
        self._running: list[Run] = []
        self.is_stopping = False
        self.stopped: set[int] = set()
        self._is_pausing = False

    def begin(self) -> None:
        """Go on after a pause."""
        self._is_pausing = False

    def submit(self, request: TrialRequest) -> None:
        """Take a trial."""
        self._waiting.append(request)

    def events(self) -> Iterator[Event]:
        """Run what waits, and what is submitted meanwhile."""
        said = time.monotonic()
        while self._waiting or self._running:
            yield from self._begin()
            is_idle = True
            for run in list(self._running):
                try:
                    event = next(run)
                except StopIteration:
                    self._running.remove(run)
                    continue
                if event is not None:
                    is_idle = False
                    yield event
                    if event.kind == "error":
                        return  # the last event; `close` ends what else is running
            if is_idle and self._running:
                if time.monotonic() - said > IDLE_S:
                    said = time.monotonic()
                    yield Event(kind="idle")
                time.sleep(POLL_S)

    def stop(self) -> None:
        """Start no further trial. Safe in a signal handler."""
        self.is_stopping = True

    def pause(self) -> None:
        """Start no further trial until `begin`; those that run go on to their end."""
        self._is_pausing = True

    def _begin(self) -> Iterator[Event]:
        while self._waiting and (self._starts_none or len(self._running) < self._most):
            request = self._waiting.pop(0)
            if self._starts_none:
                yield Event(kind="interrupted", trial=request.number, data={"step": 0})
            else:
                self._running.append(self._run(request))

    @property
    def _starts_none(self) -> bool:
        return self.is_stopping or self._is_pausing
