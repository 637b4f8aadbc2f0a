"""How a command ends that does not end well: one sentence for a person, one JSON object for a program, and never a bare traceback."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import IO, Protocol, runtime_checkable

from finestep.errors import FinestepError, cause_words
from finestep.plain_text import plain_lines, without_passwords

UNEXPECTED = 70
"""Exit code after a fault of finestep itself (EX_SOFTWARE)."""
CLOSED_PIPE = 141


@runtime_checkable
class Misused(Protocol):
    """What the parser of the command line raises: it can show itself, and knows its exit code."""

    exit_code: int

    def show(self, file: IO[str] | None = None) -> None: ...

    def format_message(self) -> str: ...


def say_error(error: BaseException, *, as_json: bool) -> int:
    """Say what ended a command; the exit code."""
    if isinstance(error, BrokenPipeError):
        return _closed_pipe()
    if isinstance(error, Misused):
        return _usage(error, as_json=as_json)
    known = error if isinstance(error, FinestepError) else _of_the_machine(error)
    if known is not None:
        _say(str(known), as_json=as_json, kind=known.kind, place=known.place, next_step=known.next_step)
        return known.exit_code
    place = _keep_traceback(error)
    text = f"an unexpected error, which is a fault of finestep: {cause_words(error)}"
    next_step = f"please report it with the traceback in {place}" if place else "the traceback could not be written"
    _say(f"{text}; {next_step}", as_json=as_json, kind="Unexpected", place=place, next_step=next_step)
    return UNEXPECTED


def say_stopped(number: int) -> int:
    """Say that a signal ended a command; the exit code."""
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write("finestep: stopped; nothing is lost, and the same command goes on\n")
    return 128 + number


def _of_the_machine(error: BaseException) -> FinestepError | None:
    """A fault of the machine, or a file that cannot be read or written, in words."""
    from finestep.disk import fault_of

    if (fault := fault_of(error)) is not None:
        return fault
    if not isinstance(error, OSError) or not error.errno:
        return None
    named = error.filename if isinstance(error.filename, str | os.PathLike) else None
    known = FinestepError(f"{os.strerror(error.errno).lower()}" + (f": {named}" if named else ""))
    known.place, known.next_step, known.named = (str(named) if named else None), "check the path", type(error).__name__
    return known


def _usage(error: Misused, *, as_json: bool) -> int:
    shown = io.StringIO()
    error.show(file=shown)
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(plain_lines(without_passwords(shown.getvalue())))
    if as_json:
        _print_json(without_passwords(error.format_message()), kind="UsageError", place=None, next_step="see --help")
    return error.exit_code


def _say(text: str, *, as_json: bool, kind: str, place: str | None, next_step: str | None) -> None:
    text = without_passwords(text)
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(f"finestep: {plain_lines(text)}\n")
        sys.stderr.flush()
    if as_json:
        _print_json(text, kind=kind, place=place, next_step=next_step)


def _print_json(text: str, *, kind: str, place: str | None, next_step: str | None) -> None:
    told = {"kind": kind, "message": plain_lines(text), "place": place, "next_step": next_step}
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.write(json.dumps({"error": told}) + "\n")
        sys.stdout.flush()


def _keep_traceback(error: BaseException) -> str | None:
    """Where the whole traceback was written; None where nothing can be written."""
    from finestep.disk import make_folder, write_whole

    text = without_passwords("".join(traceback.format_exception(error)))
    text = f"finestep {' '.join(sys.argv[1:2])}\npython {sys.version}\n\n{text}"
    name = f"finestep-error-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.txt"
    for folder in (_cache(), Path(tempfile.gettempdir())):
        with contextlib.suppress(FinestepError, OSError):
            make_folder(folder)
            write_whole(folder / name, text)
            return str(folder / name)
    return None


def _cache() -> Path:
    from finestep.store.probe_cache import cache_folder

    return cache_folder() / "errors"


def _closed_pipe() -> int:
    """Nobody reads any more, e.g. `finestep ... | head`: end quietly."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return CLOSED_PIPE
