"""Trackers of a test's own: one that keeps what it gets, one that hangs, one that fails. Named as `tests.trackers.sinks:Keeping`."""

from __future__ import annotations

import json
import time
from pathlib import Path

KEPT = "kept.jsonl"


class Keeping:
    """Writes every call as a line into the study's folder."""

    one_at_a_time = False

    def __init__(self, folder: Path, study: str):
        self._file = folder / KEPT

    def open(self, run) -> int:
        self._say("open", run.number, {"name": run.name, "group": run.group, **dict(run.config)})
        return 0

    def log(self, run, points) -> None:
        for point in points:
            self._say("point", run.number, {"step": point.step, "at": point.at, **dict(point.values)})

    def end(self, run, summary) -> None:
        self._say("end", run.number, dict(summary))

    def answer(self, run, summary) -> None:
        self._say("answer", run.number, dict(summary))

    def flush(self) -> None: ...

    def close(self) -> None: ...

    def _say(self, kind: str, number: int, values: dict) -> None:
        with self._file.open("a") as file:
            file.write(json.dumps({"kind": kind, "number": number, **values}, default=str) + "\n")


class Hanging(Keeping):
    """Never comes back from the first point."""

    def log(self, run, points) -> None:
        self._say("hangs", run.number, {})
        time.sleep(3600)


class Failing(Keeping):
    """Its service is down."""

    def open(self, run) -> int:
        raise ConnectionError("the service does not answer")
