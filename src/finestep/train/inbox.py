"""What the controller sends to a worker: trials, stops, the end. Of a group of devices the first reads, and all hear the same."""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path
from queue import Empty, SimpleQueue
from time import sleep
from typing import TYPE_CHECKING

from finestep.protocol import TrialRequest
from finestep.trial import recipe_hash

if TYPE_CHECKING:
    from finestep.train.ranks import Ranks

STOP = threading.Event()
LOOK_S = 0.02


class Inbox:
    """Trial requests from standard input; a stop line, or the end of input, sets the stop flag at once.

    Attributes:
        folders: of the trials.
        hashes: of what each trial was asked to run.
        stopped: trials that the user has stopped.
    """

    def __init__(self) -> None:
        self._waiting: SimpleQueue[TrialRequest] = SimpleQueue()
        self.folders: dict[int, Path] = {}
        self.hashes: dict[int, str] = {}
        self.stopped: set[int] = set()
        self._listen()

    def should_stop(self) -> bool:
        """True once an end is wanted."""
        return STOP.is_set()

    def wait(self) -> bool:
        """Wait for a request; False when there will be no more."""
        while self._waiting.empty():
            if STOP.wait(LOOK_S):
                return False
        return True

    def take(self) -> TrialRequest | None:
        """The next request, or None when none is here yet."""
        try:
            return self._waiting.get_nowait()
        except Empty:
            return None

    def hear(self, line: str | bytes) -> bool:
        """Take up a line; False for one after which nothing is read any more."""
        message = json.loads(line)
        if message.get("kind") == "stop_trial":
            self.stopped.add(int(message["trial"]))
            return True
        if message.get("kind") != "trial":
            return False
        request = TrialRequest.model_validate(message)
        self.folders[request.number] = Path(request.folder)
        self.hashes[request.number] = recipe_hash(request.recipe, request.fidelity)
        self._waiting.put(request)
        return True

    def _listen(self) -> None:
        threading.Thread(target=self._read, daemon=True, name="inbox").start()

    def _read(self) -> None:
        for line in sys.stdin:
            if not self.hear(line):
                break
        STOP.set()


class SharedInbox(Inbox):
    """The same for a process of a group: what the first has read counts once the group has met."""

    def __init__(self, ranks: Ranks):
        self._ranks, self._lines = ranks, list[bytes]()
        super().__init__()
        ranks.news = lambda: (STOP.is_set(), list(self._lines))
        ranks.tell = self.hear

    def should_stop(self) -> bool:
        """As the group last agreed."""
        return self._ranks.stops

    def wait(self) -> bool:
        """Meet until there is a request."""
        while self._waiting.empty():
            self._ranks.meet()
            if self._ranks.stops:
                return False
            if self._waiting.empty():
                sleep(LOOK_S)
        return True

    def _listen(self) -> None:
        if self._ranks.rank == 0:
            super()._listen()

    def _read(self) -> None:
        for line in sys.stdin:
            if json.loads(line).get("kind") not in ("trial", "stop_trial"):
                break
            self._lines.append(line.strip().encode())
        STOP.set()
