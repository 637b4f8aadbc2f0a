"""A question to a process on this machine: one request in, notes and one answer out; torch never enters this process."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

from pydantic import BaseModel, ValidationError

from finestep.disk import open_anew, write_whole, writing
from finestep.errors import WorkerFailed
from finestep.executors.process import error_from, exit_words, worker_environment
from finestep.protocol import Event

TAIL_LINES = 8


def ask(
    module: str,
    request: BaseModel,
    *,
    note: Callable[[str], None] = lambda _: None,
    timeout_s: float | None = None,
) -> dict[str, object]:
    """The answer of `python -m module request.json`.

    Raises:
        FinestepError: what the process complains about.
        WorkerFailed: it ended without an answer (out of memory, for example), or took longer than `timeout_s`.
    """
    with writing(tempfile.gettempdir()):
        temporary = tempfile.TemporaryDirectory(prefix="finestep-")
    with temporary as folder:
        path, log = Path(folder) / "request.json", Path(folder) / "process.log"
        write_whole(path, request.model_dump_json())
        with open_anew(log) as errors, writing(log):
            process = subprocess.Popen(
                [sys.executable, "-m", module, str(path)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                encoding="utf-8",
                env=worker_environment(),
            )
        clock = threading.Timer(timeout_s, process.kill) if timeout_s else None
        if clock:
            clock.start()
        try:
            return _listen(process, note, log)
        except WorkerFailed:
            if clock and not clock.is_alive():
                raise WorkerFailed(f"it took longer than {timeout_s:g} s") from None
            raise
        finally:
            if clock:
                clock.cancel()
            process.kill()
            process.wait()
            if process.stdout:
                process.stdout.close()


def _listen(process: subprocess.Popen[str], note: Callable[[str], None], log: Path) -> dict[str, object]:
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
    raise WorkerFailed(f"the process ended without an answer ({exit_words(process.wait())}); its last words:\n{last}")
