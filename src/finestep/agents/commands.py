"""Commands of finestep as an agent runs them: each in a process of its own, its answer one JSON object; a study goes on by itself."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from finestep.disk import make_folder, read_object, write_whole
from finestep.store.study_folder import is_locked

PROGRAM = (sys.executable, "-m", "finestep")
STARTED, OUTPUT = "agent.json", "agent.log"
"""In a study's folder: which process runs it, and what it prints."""
SHOWN_OF_A_LOG = 2000


class CommandFailed(Exception):
    """A command ended with an error; `told` is its JSON: kind, message, place, next_step, exit_code."""

    def __init__(self, told: Mapping[str, object]):
        self.told = dict(told)
        super().__init__(json.dumps(self.told))


def words_of(name: str, places: Sequence[object], options: Mapping[str, object]) -> list[str]:
    """A command line; options that are None or False are left out, lists are repeated."""
    words = [name, *(str(place) for place in places if place is not None)]
    for option, value in options.items():
        flag = "--" + option.replace("_", "-")
        if value is True:
            words.append(flag)
        elif isinstance(value, list | tuple):
            words += [word for one in value for word in (flag, str(one))]
        elif value is not None and value is not False:
            words += [flag, str(value)]
    return words


async def answer_of(words: Sequence[str]) -> dict[str, object]:
    """Run a command to its end and read the last line of its output.

    Raises:
        CommandFailed: it ended with an error.
    """
    process = await asyncio.create_subprocess_exec(
        *PROGRAM, *words, "--json", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, errors = await process.communicate()
    last = out.decode("utf-8", errors="replace").strip().rpartition("\n")[2]
    try:
        found = json.loads(last)
    except ValueError:
        found = None
    if process.returncode == 0 and isinstance(found, dict):
        return found
    told = found.get("error") if isinstance(found, dict) else None
    said = errors.decode("utf-8", errors="replace").strip()[-SHOWN_OF_A_LOG:]
    raise CommandFailed({**(told or {"kind": "Failed", "message": said}), "exit_code": process.returncode})


def start(words: Sequence[str], folder: Path) -> int:
    """Start a study that goes on whatever becomes of this program; the number of its process.

    Raises:
        CommandFailed: a process works on the folder already.
    """
    if is_locked(folder) or process_of(folder) is not None:
        raise CommandFailed({"kind": "StudyBusy", "message": "a process works on this study", "place": str(folder)})
    make_folder(folder)
    with (folder / OUTPUT).open("ab") as output:
        process = subprocess.Popen(
            [*PROGRAM, *words, "--json"], stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    write_whole(folder / STARTED, json.dumps({"pid": process.pid, "words": list(words)}))
    return process.pid


def stop(folder: Path) -> bool:
    """Ask a study that was started here to write a checkpoint and end; False when nothing runs.

    Raises:
        CommandFailed: it runs, but was not started by an agent, so that its process is not known.
    """
    pid = process_of(folder)
    if pid is None and not is_locked(folder):
        return False
    if pid is None:
        raise CommandFailed(
            {
                "kind": "NotOurs",
                "message": "this study was started elsewhere",
                "place": str(folder),
                "next_step": "stop it where it was started: Ctrl-C, or SIGTERM",
            }
        )
    os.kill(pid, signal.SIGTERM)
    return True


def process_of(folder: Path) -> int | None:
    """The process that was started here for a study, while it lives."""
    pid = (read_object(folder / STARTED) or {}).get("pid")
    return pid if isinstance(pid, int) and _is_finestep(pid) else None


def last_words(folder: Path) -> str:
    """The end of what a study has printed."""
    try:
        text = (folder / OUTPUT).read_bytes()[-SHOWN_OF_A_LOG:]
    except OSError:
        return ""
    return text.decode("utf-8", errors="replace")


def _is_finestep(pid: int) -> bool:
    """The process lives and is one of ours: numbers of processes are given again, and a child that has ended must be fetched."""
    with contextlib.suppress(OSError):
        os.waitpid(pid, os.WNOHANG)
    try:
        return b"finestep" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return sys.platform != "linux" and _answers(pid)


def _answers(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True
