"""The one way to write files: whole or absent, never through a symbolic link, under a name that nobody can guess before.

It also tells the machine's faults (no space, a read-only disk, too many open files) from all other errors: they are never
the outcome of a trial. It knows nothing of what is written.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import re
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from finestep.errors import BadInput, EnvironmentFault, NotWritable

MACHINE_FAULTS = {
    errno.ENOSPC: "no space is left on the disk",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the disk is read-only",
    errno.EIO: "the disk reports an input/output error",
    errno.EMFILE: "this process may not open more files (`ulimit -n`)",
    errno.ENFILE: "the machine may not open more files",
    errno.EFBIG: "a file may not become so large (`ulimit -f`, or a limit of the file system)",
    errno.ENOMEM: "the machine is out of memory",
    errno.ESTALE: "the network disk has lost the file",
    errno.ENODEV: "the disk is gone",
    errno.ENXIO: "the disk is gone",
    errno.ETIMEDOUT: "the network disk does not answer",
    errno.EHOSTDOWN: "the network disk does not answer",
}
WRITING_FAULTS = {
    errno.EACCES: "it may not be written (no permission)",
    errno.EPERM: "it may not be written (not permitted)",
    errno.ENOENT: "its folder is gone",
    errno.ENOTDIR: "a part of its path is a file",
    errno.EISDIR: "a folder is in its place",
    errno.ENOTEMPTY: "a folder is in its place",
    errno.EEXIST: "something else is in its place",
    errno.ELOOP: "it is a symbolic link, and finestep writes through none inside a study",
    errno.ENAMETOOLONG: "its name is too long",
    errno.EINVAL: "its name is not valid there",
    errno.EBUSY: "it is in use",
    errno.ETXTBSY: "it is in use",
}
SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})
IN_WORDS = re.compile(r"\(os error (\d+)\)|\[Errno (\d+)\]")
"""How Rust (safetensors) and texts of wrapped errors name a number of the operating system."""
OF_A_DATABASE = {
    "database or disk is full": errno.ENOSPC,
    "disk i/o error": errno.EIO,
    "attempt to write a readonly database": errno.EROFS,
}
IN_OUTPUT = re.compile(
    r"no space left on device|disk quota exceeded|read-only file system|input/output error|too many open files", re.I
)
"""What a program says that came upon a fault of the machine."""
LEAST_FREE = 64 * 1024
LEFTOVER = re.compile(r"\.[^/]+\.[0-9a-f]{16}\.partial")


def fault_of(
    error: BaseException, *, place: Path | str | None = None, needed_bytes: int | None = None
) -> EnvironmentFault | None:
    """The machine's fault behind an exception, or behind what caused it; None when it is something else."""
    seen: list[BaseException] = []
    at: BaseException | None = error
    while at is not None and at not in seen:
        if isinstance(at, EnvironmentFault):
            return at
        number = _number(at)
        if number in MACHINE_FAULTS:
            return _fault(MACHINE_FAULTS[number], number, _place(at, place), needed_bytes)
        seen.append(at)
        at = at.__cause__ or at.__context__
    return None


@contextlib.contextmanager
def writing(place: Path | str, *, needed_bytes: int | None = None) -> Iterator[None]:
    """What fails inside is told as a fault of the machine where it is one; `place` is what is written.

    Raises:
        EnvironmentFault: what cannot be written, where, and how much space it needs.
    """
    try:
        yield
    except EnvironmentFault:
        raise
    except Exception as error:
        fault = fault_of(error, place=place, needed_bytes=needed_bytes)
        if fault is None and isinstance(error, OSError) and error.errno:
            words = WRITING_FAULTS.get(error.errno, error.strerror or type(error).__name__)
            fault = NotWritable(words, place=str(place), next_step="fix this, and run the same command again")
        if fault is None:
            raise
        raise fault from error


def write_whole(path: Path, text: str | bytes) -> None:
    """Write a small file whole or not at all: aside, synced, renamed. A link in its place is replaced, not followed."""
    data = text if isinstance(text, bytes) else text.encode("utf-8", "backslashreplace")
    with writing(path, needed_bytes=len(data)):
        partial = beside(path)
        try:
            with open_new(partial) as handle:
                handle.write(data)
                handle.flush()
                os.fsync(handle.fileno())
            os.replace(partial, path)
        except BaseException:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
            raise


def append_line(path: Path, line: str) -> None:
    """Append one line; what a torn line left behind is closed first."""
    data = line.encode("utf-8", "backslashreplace") + b"\n"
    with writing(path, needed_bytes=len(data)):
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
        with os.fdopen(os.open(path, flags, 0o666), "rb+", buffering=0) as handle:
            size = handle.seek(0, 2)
            if size:
                handle.seek(size - 1)
                data = data if handle.read(1) == b"\n" else b"\n" + data
            _write_all(handle, data)


def open_new(path: Path) -> IO[bytes]:
    """A new file for writing; nothing may be in its place, a link least of all."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
    return os.fdopen(os.open(path, flags, 0o666), "wb")


def open_anew(path: Path, *, append: bool = False) -> IO[bytes]:
    """A file that another process writes into, emptied unless it is appended to; a link is refused."""
    with writing(path):
        flags = os.O_WRONLY | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | (os.O_APPEND if append else os.O_TRUNC)
        return os.fdopen(os.open(path, flags, 0o666), "ab" if append else "wb")


def make_folder(path: Path) -> None:
    """Make a folder and what lies above it."""
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)


def beside(path: Path) -> Path:
    """A name beside `path` for what is in the making; it cannot be guessed, so that nobody can put a link there before."""
    return path.with_name(f".{path.name}.{os.urandom(8).hex()}.partial")


@contextlib.contextmanager
def new_folder(path: Path, *, needed_bytes: int | None = None) -> Iterator[Path]:
    """A folder in the making, put in the place of `path` at the end, or taken away when something fails on the way."""
    with writing(path, needed_bytes=needed_bytes):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = beside(path)
        partial.mkdir()
        try:
            yield partial
            remove(path)
            os.replace(partial, path)
        except BaseException:
            remove(partial)
            raise


def remove(path: Path) -> None:
    """Take away a file, a link (not what it points to) or a folder; what cannot be taken away stays."""
    with contextlib.suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Take away what a killed process had in the making."""
    for path in folder.glob(".*.partial"):
        if LEFTOVER.fullmatch(path.name):
            remove(path)


def set_aside(path: Path, why: str) -> Path:
    """Rename what stands in the way, so that nothing of it is lost: `0003` becomes `0003.stale-1`."""
    with writing(path):
        number = 1
        while (aside := path.with_name(f"{path.name}.{why}-{number}")).exists() or aside.is_symlink():
            number += 1
        os.replace(path, aside)
    return aside


def json_text(value: object, *, indent: int | None = None) -> str:
    """JSON that every reader takes: a number that is not finite is null, half a surrogate pair is escaped."""
    return json.dumps(_finite(value), indent=indent, allow_nan=False)


def refuse_special(path: Path) -> None:
    """Raise BadInput for a pipe, a socket or a device, which may never end; what is not there is the reader's to tell."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise BadInput(
            "a file to read must be an ordinary one, which has an end",
            value="a pipe or device",
            place=str(path),
            next_step="write it to a file first",
        )


def read_object(path: Path) -> dict[str, object] | None:
    """The JSON object in a file; None when there is none, or when it is damaged."""
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def size_words(num_bytes: float) -> str:
    """A size as a person says it.

    >>> size_words(20), size_words(3_400_000), size_words(7.1e9)
    ('1 MB', '4 MB', '7.1 GB')
    """
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e9 else f"{max(1, math.ceil(num_bytes / 1e6))} MB"


def is_full(folder: Path) -> bool:
    """True when the disk of a folder has no room even for a small file."""
    try:
        return shutil.disk_usage(folder).free < LEAST_FREE
    except OSError:
        return False


def _write_all(handle: IO[bytes], data: bytes) -> None:
    while data:
        written = handle.write(data)
        if not written:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        data = data[written:]


def _finite(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return value


def _number(error: BaseException) -> int | None:
    if isinstance(error, OSError) and error.errno:
        return error.errno
    text = str(error)
    if match := IN_WORDS.search(text):
        return int(match[1] or match[2])
    low = text.lower()
    return next((number for words, number in OF_A_DATABASE.items() if words in low), None)


def _place(error: BaseException, place: Path | str | None) -> str | None:
    named = error.filename if isinstance(error, OSError) else None
    return str(place) if place is not None else str(named) if named else None


def _fault(words: str, number: int, place: str | None, needed_bytes: int | None) -> EnvironmentFault:
    step = "fix this, and the same command goes on"
    if number in SPACE:
        step = f"free {_room_words(place, needed_bytes)}, and the same command goes on"
    elif number == errno.EROFS:
        step = "make it writable, and the same command goes on"
    return EnvironmentFault(words, place=place, next_step=step)


def _room_words(place: str | None, needed_bytes: int | None) -> str:
    least = size_words(max(needed_bytes or 0, 1_000_000))
    folder = Path(place or ".")
    for above in (folder, *folder.parents):
        try:
            return f"at least {least} (there are {shutil.disk_usage(above).free / 1e6:.1f} MB)"
        except OSError:
            continue
    return f"at least {least}"
