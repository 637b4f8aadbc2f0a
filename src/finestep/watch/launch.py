"""The live page beside a study: a process of its own, which ends a moment after the study."""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import sys
from pathlib import Path
from typing import Self

from finestep.disk import open_anew
from finestep.watch.beside import TOKEN
from finestep.watch.serve import DEFAULT_PORT, Address, check_server_installed, listening

NICENESS = 5
LOG = "watch.log"
HOST = "127.0.0.1"


class PageBeside:
    """A context in which the page of a study is served; training does not wait for it.

    Attributes:
        address: where it is; None: no page was wanted.
    """

    def __init__(self, folder: Path, *, wanted: bool):
        self._folder, self._wanted = folder, wanted
        self._process: subprocess.Popen[bytes] | None = None
        self.address: str | None = None
        if wanted:
            check_server_installed()

    def __enter__(self) -> Self:
        if not self._wanted:
            return self
        token = secrets.token_urlsafe(24)
        with listening(HOST, DEFAULT_PORT) as listener, open_anew(self._folder / LOG) as log:
            self.address = Address(HOST, listener.getsockname()[1], token).url
            own = str(Path(__file__).resolve().parent.parent.parent)
            paths = os.pathsep.join([own, *filter(None, [os.environ.get("PYTHONPATH")])])
            self._process = subprocess.Popen(
                [sys.executable, "-m", "finestep.watch.beside", str(self._folder), str(listener.fileno())],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                pass_fds=(listener.fileno(),),
                start_new_session=True,
                preexec_fn=_be_nice,
                env={**os.environ, TOKEN: token, "PYTHONPATH": paths},
            )
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()


def _be_nice() -> None:
    """Training comes first."""
    with contextlib.suppress(OSError):
        os.nice(NICENESS)
