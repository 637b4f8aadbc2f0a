"""How a program that trains has ended: out of memory, a fault of the machine, and its own last words."""

from __future__ import annotations

import re
from pathlib import Path

from finestep.disk import IN_OUTPUT, is_full
from finestep.errors import EnvironmentFault
from finestep.executors.detached import OUTPUT
from finestep.plain_text import shortened

OUT_OF_MEMORY = re.compile(r"out of memory|cudaErrorMemoryAllocation|OutOfMemoryError|MemoryError", re.I)
READ_LAST = 4000
"""Characters at the end of an output in which a fault of the machine is looked for."""
WRAPPERS = re.compile(
    r"CalledProcessError|ChildFailedError|returned non-zero exit status|torch\.distributed\.elastic|^\s*raise |^\s*File |^Traceback"
    r"|^=+$|^-+$|^\s*\^|^\[?[WI]\d{3,4}|exitcode *:|error_file *:|traceback *:|^Root Cause|^\s*time +:|^\s*host +:|^\s*rank +:"
)
"""Lines that a launcher puts around the error of the program that it started."""
AN_ERROR = re.compile(
    r"^(?:\[rank\d+\]:? ?)?(?:[A-Za-z_][\w.]*(?:Error|Exception|Interrupt)|error|ERROR)\b ?[:(]?", re.M
)
MOST_WORDS = 300


def memory_ran_out(output: str) -> bool:
    """Whether it says that memory ran out."""
    return OUT_OF_MEMORY.search(output) is not None


def last_line(output: str) -> str:
    """The last line that holds something."""
    found = next((line.strip() for line in reversed(output.splitlines()) if line.strip()), f"nothing in {OUTPUT}")
    return found[-200:]


def last_error(output: str) -> str:
    """The program's own last error; what its launcher prints on top of it is left out.

    >>> last_error("ValueError: no such column\\nsubprocess.CalledProcessError: Command returned non-zero exit status 1.")
    'ValueError: no such column'
    """
    lines = [line.strip() for line in output.splitlines() if line.strip() and not WRAPPERS.search(line)]
    found = next((line for line in reversed(lines) if AN_ERROR.search(line)), None)
    return shortened(found or (lines[-1] if lines else f"nothing in {OUTPUT}"), MOST_WORDS)


def machine_fault(output: str, folder: Path) -> EnvironmentFault | None:
    """The machine's fault behind a program that failed: it said so, or its disk is full."""
    said = IN_OUTPUT.search(output[-READ_LAST:])
    if said is None and not is_full(folder):
        return None
    what = (
        f"the command failed, and says: {said[0]}" if said else "the command failed, and no space is left on the disk"
    )
    return EnvironmentFault(what, place=str(folder / OUTPUT), next_step="fix this, and the same command goes on")
