"""A command that outlives its controller: started in a process group of its own, found again by its lock, never run twice.

It knows a folder and a script, and nothing of what the script does.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from finestep.disk import open_anew, remove, set_aside, write_whole, writing

OUTPUT, EXIT_CODE, LOCK, SCRIPT = "output.log", "exit_code", "command.lock", "command.sh"
POLL_S = 0.05
GRACE_S = 10.0
READ_BYTES = 4_000_000
"""Of a long output, the last so many bytes are read."""


class Detached:
    """The command of one trial.

    Every process of its group holds the lock in its folder, so that a later controller sees whether it still runs.

    Args:
        folder: where script, output, exit code and lock are kept.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def output(self) -> Path:
        """What it printed."""
        return self.folder / OUTPUT

    @property
    def is_over(self) -> bool:
        """True when it ended by itself, in this session or in an earlier one."""
        return (self.folder / EXIT_CODE).exists()

    def is_running(self) -> bool:
        """True while a process of its group is alive."""
        if self._process is not None:
            self._process.poll()
        try:
            with (self.folder / LOCK).open("r+", encoding="utf-8") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return False
        except FileNotFoundError:
            return False
        except OSError:
            return True

    def set_aside_another(self, script: str) -> None:
        """What another script left here is no result of this one."""
        try:
            is_own = (self.folder / SCRIPT).read_text(encoding="utf-8") == script
        except (OSError, ValueError):
            is_own = False
        if not is_own and not self.is_running():
            for name in (EXIT_CODE, OUTPUT, SCRIPT):
                if (self.folder / name).exists():
                    set_aside(self.folder / name, "stale")

    def launch(self, script: str, *, environment: Mapping[str, str] | None = None) -> None:
        """Start it. It goes on when this process dies."""
        write_whole(self.folder / SCRIPT, script)
        remove(self.folder / EXIT_CODE)
        lock = open_anew(self.folder / LOCK)
        fcntl.flock(lock, fcntl.LOCK_EX)
        with open_anew(self.output) as output, writing(self.folder):
            self._process = subprocess.Popen(
                ["sh", str(self.folder / SCRIPT)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=(lock.fileno(),),
                env=None if environment is None else {**os.environ, **environment},
            )
        with writing(self.folder / LOCK):
            lock.write(str(self._process.pid).encode())
            lock.close()

    def seconds(self) -> float:
        """How long it has run, or ran: from its start to its last word."""
        return max(self.output.stat().st_mtime - self.began(), 0.0)

    def began(self) -> float:
        """When it was started, by the clock of its disk."""
        return (self.folder / SCRIPT).stat().st_mtime

    def exit_code(self) -> int | None:
        """Its exit code; None when it was killed."""
        try:
            return int((self.folder / EXIT_CODE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    def forget_end(self) -> None:
        """Let it run again."""
        remove(self.folder / EXIT_CODE)

    def tail(self) -> str:
        """The end of what it printed, a progress bar as lines."""
        try:
            with self.output.open("rb") as file:
                file.seek(max(0, self.output.stat().st_size - READ_BYTES))
                return file.read().decode("utf-8", errors="replace").replace("\r", "\n")
        except OSError:
            return ""

    def end(self) -> None:
        """Ask its whole group to end, and make it."""
        leader = self._leader()
        for number in (signal.SIGTERM, signal.SIGKILL):
            end = time.monotonic() + GRACE_S
            if leader:
                signal_group(leader, number)
            while self.is_running() and time.monotonic() < end:
                time.sleep(POLL_S)
        self.reap()
        (self.folder / EXIT_CODE).unlink(missing_ok=True)

    def kill(self) -> None:
        """End it now, if it was started here. Safe in a signal handler."""
        if self._process is not None and self._process.poll() is None:
            signal_group(self._process.pid, signal.SIGKILL)

    def reap(self) -> None:
        """Wait for the ended command, if it was started here, so that no zombie stays."""
        if self._process is not None:
            self._process.wait()
            self._process = None

    def _leader(self) -> int:
        return int((self.folder / LOCK).read_text(encoding="utf-8") or 0)


def signal_group(leader: int, number: signal.Signals) -> None:
    """Send a signal to a process group; one that is gone is no error."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, number)
