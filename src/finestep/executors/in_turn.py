"""Trials that run one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from finestep.executors.turns import Turns, given_back
from finestep.protocol import Event, TrialRequest


class InTurn(Turns):
    """Takes trials and runs each to its end.

    Args:
        run: the events of one trial, from `started` to `finished` or `interrupted`.
    """

    def __init__(self, run: Callable[[TrialRequest], Iterator[Event]]):
        super().__init__()
        self._run = run

    def events(self) -> Iterator[Event]:
        """Run what waits, and what is submitted meanwhile."""
        while self.waiting:
            request = self.waiting.pop(0)
            if self.starts_none:
                yield given_back(request)
            else:
                yield from self._run(request)
