"""Sink: what a tracker is asked to do. It gets plain values, and never reads the study itself.

A class of the user's own takes its place: `--report-to my_module:MySink` (made with the study's folder and name).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

Value: TypeAlias = str | int | float | bool | None
"""What is told of an end."""


@dataclass(frozen=True)
class Run:
    """One trial as a run of a tracker.

    Attributes:
        key: the same for the same trial of the same study, whenever it is sent: letters and digits only.
        began: seconds since 1970.
    """

    number: int
    key: str
    name: str
    group: str
    config: Mapping[str, object] = field(default_factory=dict)
    began: float = 0.0


@dataclass(frozen=True)
class Point:
    """Values of one optimizer step; `at` is in seconds since 1970, and the same whenever the point is sent."""

    step: int
    at: float
    values: Mapping[str, float]


class Sink(Protocol):
    """A tracker."""

    one_at_a_time: bool
    """True where a process can hold one run only: a trial is then sent when those before it have ended."""

    def open(self, run: Run) -> int:
        """Begin a run, or go on with it; the last step that it is known to hold, 0 for none."""
        ...

    def log(self, run: Run, points: Sequence[Point]) -> None:
        """Send points, in order."""
        ...

    def end(self, run: Run, summary: Mapping[str, Value]) -> None:
        """A trial has ended: its state, its reason, its results."""
        ...

    def answer(self, run: Run, summary: Mapping[str, Value]) -> None:
        """The study has ended: what the search found, as a run of its own."""
        self.open(run)
        self.end(run, summary)

    def flush(self) -> None:
        """What was sent is safe after this."""
        ...

    def close(self) -> None:
        """The end."""
        ...
