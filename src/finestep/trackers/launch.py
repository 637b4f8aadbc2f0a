"""Starting and ending the processes of trackers: the study never waits for one longer than a moment."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from finestep.disk import make_folder, open_anew
from finestep.trackers.report import FOLDER

WAIT_S = 5.0
"""How long the end of a study waits for all of its trackers; then they go on by themselves."""
NICENESS = 5


class Trackers:
    """A context in which trackers follow a study.

    Args:
        names: of `known.parse_trackers`.
    """

    def __init__(self, folder: Path, names: Sequence[str]):
        self._folder, self._names = folder, names
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        for name in self._names:
            place = self._folder / FOLDER
            make_folder(place)
            with open_anew(place / f"{name.replace(':', '.')}.log", append=True) as log:
                self._processes[name] = subprocess.Popen(
                    [sys.executable, "-m", "finestep.trackers.report", str(self._folder), name],
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    preexec_fn=_be_nice,
                    env={**os.environ, "PYTHONPATH": _paths()},
                )
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes.values():
            assert process.stdin is not None
            with contextlib.suppress(OSError):
                process.stdin.close()

    def ended(self) -> list[str]:
        """How the trackers ended, a sentence for each that is worth one; waits a moment for them."""
        until, said = time.monotonic() + WAIT_S, []
        for name, process in self._processes.items():
            log = self._folder / FOLDER / f"{name.replace(':', '.')}.log"
            try:
                code = process.wait(max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                said.append(f"{name} is still being written; it goes on by itself (log: {log})")
                continue
            if code:
                said.append(f"{name} did not get everything: see {log}")
        return said


def _be_nice() -> None:
    """Training comes first."""
    with contextlib.suppress(OSError):
        os.nice(NICENESS)


def _paths() -> str:
    """The tracker imports the same finestep, and what the user's folder holds."""
    own = str(Path(__file__).resolve().parent.parent.parent)
    return os.pathsep.join([own, *filter(None, [os.environ.get("PYTHONPATH")]), os.getcwd()])
