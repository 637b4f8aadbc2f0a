"""One worker process: started with a session, spoken to line by line."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from finestep import errors
from finestep.disk import IN_OUTPUT, make_folder, open_anew, write_whole, writing
from finestep.errors import FinestepError, WorkerFailed, WorkerLost
from finestep.protocol import Event, SessionRequest
from finestep.ready import Ready

STOP_GRACE_S = 30.0
TAIL_LINES = 12


class WorkerProcess:
    """A worker, its request and its log.

    Args:
        session: what the worker loads.
        folder: where its request and its log are kept.
        module: what is started; it speaks `protocol.py`.
        environment: variables of this worker alone, e.g. which GPUs it sees.
    """

    def __init__(
        self,
        session: SessionRequest,
        *,
        folder: Path,
        module: str = "finestep.worker",
        environment: Mapping[str, str] | None = None,
    ):
        self.is_ready = False
        suffix = "" if session.worker == 1 else f"-{session.worker}"
        self._log = folder / f"worker{suffix}.log"
        request = folder / f"session{suffix}.json"
        make_folder(folder)
        session = session.model_copy(update={"log": str(self._log)})
        write_whole(request, session.model_dump_json(indent=1))
        with open_anew(self._log, append=True) as log, writing(self._log):
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, str(request)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                encoding="utf-8",
                start_new_session=True,
                env={**worker_environment(), **(environment or {})},
            )

    def await_ready(self) -> Ready:
        """Wait for its `ready` answer: the data, the machine, how trials share it.

        Raises:
            FinestepError: what the worker has to complain about, or that it died at start.
        """
        while (event := self.next_event()) is not None:
            if event.kind == "ready":
                self.is_ready = True
                return Ready.model_validate(event.data)
            if event.kind == "error":
                self.close()
                raise self._error(event)
        raise self._lost_at_start(self._process.wait())

    def _lost_at_start(self, code: int) -> FinestepError:
        """A worker that ended before it was ready: a fault of the machine where a signal ended it, or where its last words say so."""
        said = IN_OUTPUT.search(self._tail())
        if code < 0 or said is not None:
            what = f"the worker was lost while it loaded ({said[0] if said else exit_words(code)})"
            return WorkerLost(
                what, place=str(self._log), next_step="the same command goes on, with more room if it needs it"
            )
        last = next((line.strip() for line in reversed(self._tail().splitlines()) if line.strip()), "it said nothing")
        return WorkerFailed(
            f"the worker ended at its start ({exit_words(code)}): {last[-300:]}; all it said is in {self._log}"
        )

    def _error(self, event: Event) -> FinestepError:
        """What the worker complains about; of what no user can act on also where the whole traceback is."""
        if event.data.get("error") != WorkerFailed.__name__:
            return error_from(event.data)
        return WorkerFailed(f"{event.data.get('text')} (the whole traceback is in {self._log})")

    def is_alive(self) -> bool:
        """True while the process runs."""
        return self._process.poll() is None

    def next_event(self) -> Event | None:
        """The next event, or None when the process is gone."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            try:
                return Event.model_validate_json(line)
            except ValidationError:
                continue
        return None

    def send(self, line: str) -> None:
        """Write a line to it; a process that is gone is noticed by who listens. Safe in a signal handler."""
        assert self._process.stdin is not None
        if not self._process.stdin.closed:
            with contextlib.suppress(BrokenPipeError, OSError):
                os.write(self._process.stdin.fileno(), (line + "\n").encode())

    def stop(self) -> None:
        """Ask for a checkpoint and an end; a worker that still loads has nothing to write. Safe in a signal handler."""
        if self.is_ready:
            self.send('{"kind": "stop"}')
        else:
            self.kill()

    def kill(self) -> None:
        """End the process now."""
        if self.is_alive():
            self._process.kill()

    def end_input(self) -> None:
        """Let it end in good order."""
        assert self._process.stdin is not None
        if not self._process.stdin.closed:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()

    def close(self) -> None:
        """End the process in good order, and wait for it."""
        self.end_input()
        try:
            self._process.wait(STOP_GRACE_S)
        except subprocess.TimeoutExpired:
            self.kill()
            self._process.wait()

    def death(self, cause: str | None = None) -> Event:
        """What is left to say of a process that is gone; `cause` is what it said itself."""
        code = self._process.wait()
        reason = f"{cause}; the whole traceback is in {self._log}" if cause else exit_words(code)
        return Event(kind="died", data={"exit_code": code, "reason": reason, "last_words": self._tail()})

    def _tail(self) -> str:
        try:
            return "\n".join(self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL_LINES:])
        except OSError:
            return ""


def worker_environment() -> dict[str, str]:
    """The worker imports the same finestep as the controller, keeps freed memory, and waits without spinning.

    Large tensors page-fault anew when glibc gives memory back; threads that spin starve each other on a busy machine.
    """
    package_parent = str(Path(errors.__file__).resolve().parent.parent)
    paths = [package_parent, *filter(None, [os.environ.get("PYTHONPATH")])]
    defaults = {
        "MALLOC_TRIM_THRESHOLD_": "100000000000",
        "MALLOC_TOP_PAD_": "268435456",
        "MALLOC_MMAP_MAX_": "0",
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    return {**defaults, **os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}


def error_from(data: dict[str, object]) -> FinestepError:
    kind = getattr(errors, str(data.get("error")), FinestepError)
    error = FinestepError(str(data.get("text")))
    if isinstance(kind, type) and issubclass(kind, FinestepError):
        error.exit_code, error.named = kind.exit_code, kind.__name__
    place, onward = data.get("place"), data.get("next_step")
    error.place = str(place) if place is not None else None
    error.next_step = str(onward) if onward is not None else None
    return error


def exit_words(code: int | None) -> str:
    if code is None:
        return "it could not be reached"
    if code == -9:
        return "killed by signal 9; the machine may be out of memory"
    return f"signal {-code}" if code < 0 else f"exit code {code}"
