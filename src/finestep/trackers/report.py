"""The process of one tracker: it follows a study's files and sends what is new, until the study ends. Started by `launch`.

What was sent is remembered in `trackers/NAME.json` after each look, so that a study that goes on sends nothing twice.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path

from pydantic import BaseModel, Field

from finestep.disk import make_folder, read_object, write_whole
from finestep.errors import FinestepError
from finestep.trackers.feed import Course, Feed, summary_of
from finestep.trackers.known import make_sink
from finestep.trackers.sink import Sink

FOLDER = "trackers"
LOOK_EVERY_S = 1.0
MOST_FAILURES = 5
LAST_WORDS_S = 600.0
"""Longest that a tracker may take after the end of its study, e.g. to send what is left."""


class Sent(BaseModel):
    """What a tracker has of one trial."""

    step: int = 0
    evaluation: int = -1
    ended: bool = False


class Kept(BaseModel):
    """What `trackers/NAME.json` remembers."""

    trials: dict[str, Sent] = Field(default_factory=dict)
    answered: str | None = None


class Report:
    """One tracker of one study.

    Args:
        name: of the tracker, or `module:Class`.
    """

    def __init__(self, folder: Path, name: str):
        self._folder, self._name = folder, name
        self._file = folder / FOLDER / f"{name.replace(':', '.')}.json"
        self.feed = Feed(folder)
        self.sink: Sink = make_sink(name, folder, self.feed.name)
        self._kept = Kept.model_validate(read_object(self._file) or {})
        self._open: set[int] = set()

    def look(self) -> None:
        """Send what is new."""
        changed = False
        for course in self.feed.courses():
            sent = self._kept.trials.setdefault(str(course.run.number), Sent())
            if sent.ended:
                continue
            changed = self._follow(course, sent) or changed
            if self.sink.one_at_a_time and not sent.ended:
                break
        if changed:
            self.sink.flush()
            self._keep()

    def finish(self) -> None:
        """The study has ended: what is left, and its answer."""
        self.look()
        found = self.feed.answer()
        if found is not None and (told := json.dumps(found[1], sort_keys=True, default=str)) != self._kept.answered:
            self._close_open()
            self.sink.answer(*found)
            self._kept.answered = told
        self.sink.close()
        self._keep()

    def _follow(self, course: Course, sent: Sent) -> bool:
        run, outcome = course.run, course.outcome
        if run.number not in self._open:
            known = self.sink.open(run)
            course.sent_step = max(sent.step, known)
            course.sent_evaluation = max(sent.evaluation, known or -1)
            self._open.add(run.number)
        points = course.points()
        if points:
            self.sink.log(run, points)
            sent.step, sent.evaluation = course.sent_step, course.sent_evaluation
        if outcome is not None:
            self.sink.end(run, summary_of(outcome))
            sent.ended = True
            self._open.discard(run.number)
        return bool(points) or outcome is not None

    def _close_open(self) -> None:
        """A tracker that holds one run lets go of one that was interrupted."""
        if self.sink.one_at_a_time and self._open:
            self.sink.close()

    def _keep(self) -> None:
        make_folder(self._file.parent)
        write_whole(self._file, json.dumps(self._kept.model_dump()))


def main(arguments: list[str] | None = None) -> int:
    """FOLDER NAME: follow a study until standard input ends."""
    folder, name = (arguments if arguments is not None else sys.argv[1:])[:2]
    ending = threading.Event()
    threading.Thread(target=_wait_for_the_end, args=(ending,), daemon=True).start()
    failures, report = 0, None
    while not ending.wait(LOOK_EVERY_S):
        try:
            report = report or Report(Path(folder), name)
            report.look()
            failures = 0
        except Exception as error:
            failures += 1
            _say(error)
            if failures >= MOST_FAILURES or isinstance(error, ImportError | FinestepError):
                print("given up: the study goes on without this tracker", file=sys.stderr, flush=True)
                return 1
    try:
        (report or Report(Path(folder), name)).finish()
    except Exception as error:
        _say(error)
        return 1
    return 0


def _say(error: Exception) -> None:
    """Into the log of the tracker."""
    print(f"{time.strftime('%H:%M:%S')} {type(error).__name__}: {error}", file=sys.stderr, flush=True)


def _wait_for_the_end(ending: threading.Event) -> None:
    """Standard input ends with the study, however it ends; a tracker that hangs then is ended too."""
    sys.stdin.buffer.read()
    ending.set()
    time.sleep(LAST_WORDS_S)
    os._exit(1)


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # a client's own threads may hang
