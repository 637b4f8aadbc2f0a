"""A worker process on this machine: started once, fed trials, and heard line by line.

A worker that dies is reported as an event, never as an exception; starting another one is the caller's decision.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from finestep import errors
from finestep.errors import FinestepError, WorkerFailed
from finestep.protocol import Event, SessionRequest, TrialRequest

STOP_GRACE_S = 30.0
TAIL_LINES = 12


class LocalExecutor:
    """One resident worker.

    Args:
        session: what the worker loads.
        folder: where its request and its log are kept.
    """

    def __init__(self, session: SessionRequest, *, folder: Path):
        self._session, self._folder = session, folder
        self._process: subprocess.Popen[str] | None = None
        self._open: list[int] = []
        self._log = folder / "worker.log"

    def start(self) -> dict[str, Any]:
        """Start the worker, or find it running: its `ready` answer (data card and facts).

        Raises:
            FinestepError: what the worker has to complain about, or that it died at start.
        """
        if self._process is not None and self._process.poll() is None:
            return {}
        self._folder.mkdir(parents=True, exist_ok=True)
        request = self._folder / "session.json"
        request.write_text(self._session.model_dump_json(indent=1), encoding="utf-8")
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "finestep.worker", str(request)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                encoding="utf-8",
                start_new_session=True,
                env=worker_environment(),
            )
        return self._await_ready()

    def submit(self, request: TrialRequest) -> None:
        """Hand over a trial; the worker decides which trials it trains together."""
        self._open.append(request.number)
        self._send(request.model_dump_json())

    def events(self) -> Iterator[Event]:
        """What happens, until every submitted trial has ended with `finished` or `interrupted`; or `died`, once, for all of them."""
        while self._open:
            event = self._next_event()
            if event is None:
                yield self._died()
                return
            if event.kind in {"finished", "interrupted"} and event.trial in self._open:
                self._open.remove(event.trial)
            yield event

    def stop(self) -> None:
        """Ask for a checkpoint and an end; the running trial answers `interrupted`. Safe in a signal handler."""
        self._send('{"kind": "stop"}')

    def kill(self) -> None:
        """End the worker now."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()

    def close(self) -> None:
        """End the worker in good order, and wait for it."""
        if self._process is None:
            return
        if self._process.stdin and not self._process.stdin.closed:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
        try:
            self._process.wait(STOP_GRACE_S)
        except subprocess.TimeoutExpired:
            self.kill()
            self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()
        self._process = None

    @property
    def process_id(self) -> int | None:
        """Process id of the worker, while there is one."""
        return self._process.pid if self._process else None

    def _await_ready(self) -> dict[str, Any]:
        while (event := self._next_event()) is not None:
            if event.kind == "ready":
                return event.data
            if event.kind == "error":
                self.close()
                raise error_from(event.data)
        code = self._process.wait() if self._process else None
        self._process = None
        raise WorkerFailed(
            f"the worker ended at its start ({exit_words(code)}); its last words, in {self._log}:\n{self._tail()}"
        )

    def _next_event(self) -> Event | None:
        """The next event, or None when the process is gone."""
        if self._process is None or self._process.stdout is None:
            return None
        for line in self._process.stdout:
            try:
                return Event.model_validate_json(line)
            except ValidationError:
                continue
        return None

    def _send(self, line: str) -> bool:
        if self._process is None or self._process.stdin is None or self._process.stdin.closed:
            return False
        try:
            os.write(self._process.stdin.fileno(), (line + "\n").encode())
        except (BrokenPipeError, OSError):
            return False
        return True

    def _died(self) -> Event:
        code = self._process.wait() if self._process else None
        self._process, self._open = None, []
        return Event(kind="died", data={"exit_code": code, "reason": exit_words(code), "last_words": self._tail()})

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


def error_from(data: dict[str, Any]) -> FinestepError:
    kind = getattr(errors, str(data.get("error")), FinestepError)
    error = FinestepError(str(data.get("text")))
    error.exit_code = kind.exit_code if isinstance(kind, type) and issubclass(kind, FinestepError) else 2
    return error


def exit_words(code: int | None) -> str:
    if code is None:
        return "it could not be reached"
    if code == -9:
        return "killed by signal 9; the machine may be out of memory"
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def inspect_data(session: SessionRequest, *, folder: Path) -> dict[str, Any]:
    """The data card, made by a worker that loads no model."""
    executor = LocalExecutor(session.model_copy(update={"purpose": "inspect"}), folder=folder)
    try:
        return executor.start()["card"]
    finally:
        executor.close()


def doctor_report(timeout_s: float = 60.0) -> dict[str, Any]:
    """What torch says about this machine, asked in a process of its own; {"error": ...} when it cannot be loaded."""
    code = (
        "import json, torch; cuda = torch.cuda.is_available(); print(json.dumps({'torch': torch.__version__, 'cuda': cuda, "
        "'cuda_version': torch.version.cuda, 'devices': [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] "
        "if cuda else [], 'mps': torch.backends.mps.is_available(), 'threads': torch.get_num_threads()}))"
    )
    try:
        out = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=timeout_s, check=False
        )
        return json.loads(out.stdout) if out.returncode == 0 else {"error": out.stderr.strip().splitlines()[-1:]}
    except (subprocess.TimeoutExpired, ValueError, OSError) as error:
        return {"error": [str(error)]}
