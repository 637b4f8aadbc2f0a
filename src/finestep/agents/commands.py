"""Commands of finestep as an agent runs them: each in a process of its own, its answer one JSON object; a study goes on by itself."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from finestep.agents.next_steps import in_tools
from finestep.disk import make_folder, read_object, write_whole, writing
from finestep.store.commands import Command, ask
from finestep.store.running import read_running
from finestep.store.study_folder import is_locked
from finestep.study_layout import READY, RUNNING, SPEC

PROGRAM = (sys.executable, "-m", "finestep")
STARTED, OUTPUT = "agent.json", "agent.log"
"""In a study's folder: which process runs it, and what it prints."""
SHOWN_OF_A_LOG = 2000
CHECKED_WITHIN_S, EARLY_END_S, LOOK_EVERY_S = 45.0, 6.0, 0.1
"""How long a start is watched: until its checks are made, then for an early end."""


class CommandFailed(Exception):
    """A command ended with an error; `told` is its JSON: kind, message, place, next_step, exit_code."""

    def __init__(self, told: Mapping[str, object]):
        self.told = in_tools(told)
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


async def start(words: Sequence[str], folder: Path) -> int:
    """Start a study that goes on whatever becomes of this program; the number of its process.

    It comes back when the study has made its checks and goes on, or has ended already.

    Raises:
        CommandFailed: a process works on the folder already, or the one that was started has ended with an error.
    """
    if is_locked(folder) or process_of(folder) is not None:
        step = "wait_for_study until it has ended, stop_study ends it, or give another folder as `out`"
        raise CommandFailed(
            {"kind": "StudyBusy", "message": "a process works on this study", "place": str(folder), "next_step": step}
            | {"exit_code": 3}
        )
    make_folder(folder)
    with writing(folder / OUTPUT), (folder / OUTPUT).open("ab") as output:
        began, log_from = time.time(), output.tell()
        process = subprocess.Popen(
            [*PROGRAM, *words, "--json"], stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    told = {"pid": process.pid, "words": list(words), "began": began, "log_from": log_from}
    write_whole(folder / STARTED, json.dumps(told))
    await _until_it_goes_on(folder, process, began)
    if process.poll() is not None and (failure := failure_of(folder)) is not None:
        raise CommandFailed(failure)
    return process.pid


async def _until_it_goes_on(folder: Path, process: subprocess.Popen[bytes], began: float) -> None:
    """Until a process has ended, has loaded model and data, or has made its checks and lived on for some seconds."""
    until = time.monotonic() + CHECKED_WITHIN_S
    checked_at: float | None = None
    while process.poll() is None and time.monotonic() < until:
        if _is_newer(folder / READY, began):
            return
        if checked_at is None and _is_newer(folder / RUNNING, began):
            checked_at = time.monotonic()
        if checked_at is not None and time.monotonic() > checked_at + EARLY_END_S:
            return
        await asyncio.sleep(LOOK_EVERY_S)


def _is_newer(path: Path, began: float) -> bool:
    try:
        return path.stat().st_mtime >= began
    except OSError:
        return False


def has_begun(folder: Path) -> bool:
    """The process that was started here has made its checks, and works on the study."""
    began = (read_object(folder / STARTED) or {}).get("began")
    return isinstance(began, int | float) and _is_newer(folder / RUNNING, began)


async def until_open(folder: Path) -> bool:
    """Wait for a start that is under way until its process holds the study; False where it does not yet.

    Raises:
        CommandFailed: it has ended with an error.
    """
    until = time.monotonic() + CHECKED_WITHIN_S
    is_start = False
    while process_of(folder) is not None and not (is_locked(folder) and (folder / SPEC).is_file()):
        if time.monotonic() > until:
            return False
        is_start = True
        await asyncio.sleep(LOOK_EVERY_S)
    if is_start and (failure := failure_of(folder)) is not None:
        raise CommandFailed(failure)
    return True


def failure_of(folder: Path) -> dict[str, object] | None:
    """The error that the process which was started here last has ended with; None where it lives, or ended well.

    A study that somebody has started by another way since then has nothing to do with it.
    """
    if (started := _ended_start(folder)) is None:
        return None
    found = _last_object(folder, started)
    if found is None:
        if (folder / SPEC).is_file():
            return None  # killed: the study waits to go on, as its status says
        said = last_words(folder).strip()
        found = {
            "error": {"kind": "ProcessLost", "message": f"the process ended before it had begun; it printed: {said}"}
        }
    error = found.get("error")
    if not isinstance(error, dict):
        return None
    return {
        "next_step": "start_study with the same arguments",
        "exit_code": None,
        **error,
        "log": str((folder / OUTPUT).absolute()),
    }


def was_cut_off(folder: Path) -> bool:
    """The process that was started here has ended before it could say how the study stands: it was killed."""
    started = _ended_start(folder)
    return started is not None and _last_object(folder, started) is None


def _ended_start(folder: Path) -> dict[str, object] | None:
    """What is known of the last process that was started here; None while it lives, or where another one has worked there since."""
    started = read_object(folder / STARTED)
    if not started or is_locked(folder) or process_of(folder) is not None or _ran_since(folder):
        return None
    return started


def _last_object(folder: Path, started: Mapping[str, object]) -> dict[str, object] | None:
    """The JSON object that a process has ended with."""
    first = started.get("log_from")
    try:
        text = (
            (folder / OUTPUT).read_bytes()[first if isinstance(first, int) else 0 :].decode("utf-8", errors="replace")
        )
    except OSError:
        return None
    for line in reversed(text.splitlines()):
        with contextlib.suppress(ValueError):
            found = json.loads(line) if line.startswith("{") else None
            if isinstance(found, dict):
                return found
    return None


def _ran_since(folder: Path) -> bool:
    """Another process has worked on the study after the last one that was started here had ended."""
    began = read_running(folder).get("began")
    try:
        return isinstance(began, int | float) and began > (folder / OUTPUT).stat().st_mtime
    except OSError:
        return False


def stop(folder: Path) -> bool:
    """Ask a study to write a checkpoint and end; False when nothing runs.

    One that was started here gets a signal, which it answers while it loads too; another one a command file.
    """
    pid = process_of(folder)
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):  # it has ended this moment
            os.kill(pid, signal.SIGTERM)
        return True
    if is_locked(folder):
        ask(folder, Command(kind="stop"))
        return True
    return False


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
