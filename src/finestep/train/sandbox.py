"""Somebody else's chat template runs in a child process with limits of memory and time: what it does there ends there.

A limit inside this process would not do: Jinja can be made to compute a power, or to repeat a text, in one call into C that
no signal interrupts. The child is a copy of this process (fork), so that rows need not be sent to it; its answer comes back
as JSON. Nothing is ever unpickled.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TypeVar

Answer = TypeVar("Answer")
MEMORY_BYTES = 512 * 2**20
"""What a template may take beyond what this process has."""
MOST_WALL_S = 900.0
"""On a machine that is very busy; the limit that counts is that of processor time."""
OUT_OF_MEMORY, BROKEN, TOO_SLOW = 3, 4, 5


def in_child(work: Callable[[], Answer], *, cpu_s: float, memory_bytes: int = MEMORY_BYTES) -> Answer:
    """The answer of `work`, which must be plain values, computed in a child process.

    Raises:
        TimeoutError: it took more processor time than allowed.
        MemoryError: it took more memory than allowed.
        ChildProcessError: it ended otherwise.
    """
    answers, fault = each_in_child(lambda: [work()], cpu_s=cpu_s, memory_bytes=memory_bytes)
    if fault is not None:
        raise fault
    return answers[0]


def each_in_child(
    work: Callable[[], Iterable[Answer]], *, cpu_s: float, memory_bytes: int = MEMORY_BYTES
) -> tuple[list[Answer], Exception | None]:
    """(what `work` gave one after the other, what ended it before its end: see `in_child`; None: it came to its end)."""
    if not sys.platform.startswith("linux"):
        return list(work()), None  # elsewhere a copy of a process with threads is not safe
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        _answer(work, writing, cpu_s, memory_bytes)
    os.close(writing)
    try:
        answer = _read(reading, time.monotonic() + MOST_WALL_S)
    finally:
        os.close(reading)
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    *whole, rest = answer.split(b"\n")
    if whole and not whole[-1] and not rest:
        return [json.loads(line) for line in whole[:-1]], None
    return [json.loads(line) for line in whole], _fault(status)


def _fault(status: int) -> Exception:
    if status == OUT_OF_MEMORY:
        return MemoryError()
    if status in (-signal.SIGXCPU, -signal.SIGKILL, TOO_SLOW):
        return TimeoutError()
    return ChildProcessError(f"exit code {status}")


def _answer(work: Callable[[], Iterable[object]], writing: int, cpu_s: float, memory_bytes: int) -> None:
    """In the child: compute under the limits, write a line an answer and an empty one at the end, and end without any of this
    process's farewells."""
    code = BROKEN
    gc.freeze()  # looking for garbage in what the parent has would copy all of it
    try:
        signal.signal(signal.SIGXCPU, signal.SIG_DFL)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        used = time.process_time()
        _limit(resource.RLIMIT_AS, _size_bytes() + memory_bytes)
        _limit(resource.RLIMIT_CPU, int(used + cpu_s) + 1)
        for found in work():
            _write(writing, json.dumps(found).encode() + b"\n")
        _write(writing, b"\n")
        code = 0
    except MemoryError:
        code = OUT_OF_MEMORY
    except TimeoutError:
        code = TOO_SLOW
    finally:
        os._exit(code)


def _write(handle: int, data: bytes) -> None:
    while data:
        data = data[os.write(handle, data) :]


def _limit(kind: int, value: int) -> None:
    hard = resource.getrlimit(kind)[1]
    resource.setrlimit(kind, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))


def _size_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


def _read(handle: int, deadline: float) -> bytes:
    """Everything that the child writes, until its end or until it takes too long by the clock."""
    parts: list[bytes] = []
    while (left := deadline - time.monotonic()) > 0:
        if not select.select([handle], [], [], left)[0] or not (part := os.read(handle, 1 << 20)):
            break
        parts.append(part)
    return b"".join(parts)
