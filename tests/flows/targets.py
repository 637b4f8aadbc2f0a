"""Processes that tests kill. Each writes its number beside its folder: what `Popen` knows may be the launcher of a fork."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path


def start(module: str, folder: Path, *words: object) -> subprocess.Popen:
    """Start a target on a folder; what it complains about is beside it too."""
    _number(folder).unlink(missing_ok=True)
    return subprocess.Popen(
        [sys.executable, "-m", module, str(folder), *map(str, words)],
        stdout=subprocess.DEVNULL,
        stderr=folder.with_suffix(".err").open("ab"),
    )


def say_number(folder: Path) -> None:
    """Called by a target when it begins."""
    _number(folder).write_text(str(os.getpid()))


def pid_of(folder: Path) -> int:
    """The process that works on the folder."""
    return int(_number(folder).read_text())


def kill(folder: Path, process: subprocess.Popen) -> None:
    """SIGKILL for the target, and wait until it is gone."""
    os.kill(pid_of(folder), signal.SIGKILL)
    process.wait(10)


def complaints(folder: Path) -> str:
    return folder.with_suffix(".err").read_text()[-2000:]


def _number(folder: Path) -> Path:
    return folder.with_suffix(".pid")
