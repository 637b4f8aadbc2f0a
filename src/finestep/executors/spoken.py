"""The way out of a process that speaks `protocol.py`: one JSON object a line on its real standard output, and nothing else."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from pydantic import BaseModel

from finestep.errors import FinestepError
from finestep.protocol import Event, EventKind, Record

QUIET = {
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
}


def be_quiet() -> None:
    """Libraries of such a process say nothing on their own, unless the user's environment asks for it."""
    os.environ.update({name: os.environ.get(name, value) for name, value in QUIET.items()})


class Line:
    """Standard output as it was; whatever else is printed goes to standard error from now on.

    Args:
        unheard: called when nobody reads any more.
    """

    def __init__(self, *, unheard: Callable[[], object]) -> None:
        self._unheard = unheard
        self._out = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8", buffering=1)
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def send(self, kind: EventKind, data: Record | None = None, *, trial: int | None = None) -> None:
        """Send an event. When nobody reads any more, training goes on to its next checkpoint and ends there."""
        values = data.model_dump() if isinstance(data, BaseModel) else dict(data or {})
        try:
            self._out.write(Event(kind=kind, trial=trial, data=values).model_dump_json() + "\n")
            self._out.flush()
        except (BrokenPipeError, ValueError):
            self._unheard()


class Silent(Line):
    """The same for all but the first process of a group: it says nothing."""

    def send(self, kind: EventKind, data: Record | None = None, *, trial: int | None = None) -> None:
        """Nothing."""


def complaint(error: FinestepError) -> dict[str, object]:
    """An error as the data of an `error` event."""
    return {"error": error.kind, "text": str(error), "place": error.place, "next_step": error.next_step}
