"""A probe process on this machine: one request in, notes and one answer out; torch never enters this process."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from finestep.errors import WorkerFailed
from finestep.executors.process import error_from, exit_words, worker_environment
from finestep.protocol import Event

TAIL_LINES = 8


def ask_probe(request: BaseModel, *, note: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """The answer of a probe process.

    Raises:
        FinestepError: what the probe complains about.
        WorkerFailed: it ended without an answer (out of memory, for example).
    """
    with tempfile.TemporaryDirectory(prefix="finestep-probe-") as folder:
        path, log = Path(folder) / "request.json", Path(folder) / "probe.log"
        path.write_text(request.model_dump_json(), encoding="utf-8")
        with log.open("wb") as errors:
            process = subprocess.Popen(
                [sys.executable, "-m", "finestep.probes", str(path)],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                encoding="utf-8",
                env=worker_environment(),
            )
        try:
            return _listen(process, note, log)
        finally:
            process.kill()
            process.wait()
            if process.stdout:
                process.stdout.close()


def _listen(process: subprocess.Popen[str], note: Callable[[str], None], log: Path) -> dict[str, Any]:
    assert process.stdout is not None
    for line in process.stdout:
        try:
            event = Event.model_validate_json(line)
        except ValidationError:
            continue
        if event.kind == "finished":
            return event.data
        if event.kind == "error":
            raise error_from(event.data)
        note(str(event.data.get("text", "")))
    last = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL_LINES:])
    raise WorkerFailed(f"the probe ended without an answer ({exit_words(process.wait())}); its last words:\n{last}")
