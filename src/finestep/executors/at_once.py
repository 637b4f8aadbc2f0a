"""Several trials under way at the same time, each told as a generator that says None while it waits."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from finestep.executors.detached import POLL_S
from finestep.executors.turns import IDLE_S, Turns, given_back
from finestep.protocol import Event, TrialRequest

Run = Iterator[Event | None]


class AtOnce(Turns):
    """Takes trials and runs up to so many at a time.

    Args:
        run: the events of one trial, from `started` to `finished`, `interrupted` or `error`; None: nothing new now.
        most: trials at the same time.
    """

    def __init__(self, run: Callable[[TrialRequest], Run], *, most: int = 1):
        super().__init__()
        self._run, self._most = run, most
        self._running: list[Run] = []

    def events(self) -> Iterator[Event]:
        """Run what waits, and what is submitted meanwhile."""
        said = time.monotonic()
        while self.waiting or self._running:
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

    def _begin(self) -> Iterator[Event]:
        while self.waiting and (self.starts_none or len(self._running) < self._most):
            request = self.waiting.pop(0)
            if self.starts_none:
                yield given_back(request)
            else:
                self._running.append(self._run(request))
