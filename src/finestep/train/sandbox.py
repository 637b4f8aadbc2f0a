"""Somebody else's chat template runs in a child process with limits of memory and time: what it does there ends there.

A limit inside this process would not do: Jinja can be made to compute a power, or to repeat a text, in one call into C that
no signal interrupts. The child is a copy of this process (fork), so that rows need not be sent to it; its answer comes back
as JSON. Nothing is ever unpickled.
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Callable
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
    if not sys.platform.startswith("linux"):
        return work()  # elsewhere a copy of a process with threads is not safe
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
    if answer is not None and answer.endswith(b"\n"):
        found: Answer = json.loads(answer)
        return found
    if status == OUT_OF_MEMORY:
        raise MemoryError
    if status in (-signal.SIGXCPU, -signal.SIGKILL, TOO_SLOW):
        raise TimeoutError
    raise ChildProcessError(f"exit code {status}")


def _answer(work: Callable[[], object], writing: int, cpu_s: float, memory_bytes: int) -> None:
    """In the child: compute under the limits, write, and end without any of this process's farewells."""
    code = BROKEN
    try:
        signal.signal(signal.SIGXCPU, signal.SIG_DFL)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        used = time.process_time()
        _limit(resource.RLIMIT_AS, _size_bytes() + memory_bytes)
        _limit(resource.RLIMIT_CPU, int(used + cpu_s) + 1)
        data = json.dumps(work()).encode() + b"\n"
        while data:
            data = data[os.write(writing, data) :]
        code = 0
    except MemoryError:
        code = OUT_OF_MEMORY
    except TimeoutError:
        code = TOO_SLOW
    finally:
        os._exit(code)


def _limit(kind: int, value: int) -> None:
    hard = resource.getrlimit(kind)[1]
    resource.setrlimit(kind, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))


def _size_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


def _read(handle: int, deadline: float) -> bytes | None:
    """Everything that the child writes; None when it takes too long by the clock."""
    parts: list[bytes] = []
    while (left := deadline - time.monotonic()) > 0:
        if not select.select([handle], [], [], left)[0]:
            return None
        part = os.read(handle, 1 << 20)
        if not part:
            return b"".join(parts)
        parts.append(part)
    return None
