"""Does a broken log file ever end `finestep diagnose` with a traceback, take long, or take much memory?

    python -m benchmarks.mutated_logs --files 10000                 whole
    python -m benchmarks.mutated_logs --files 2500 --first 2500     a part of it: the file with number n is the same in both
    python -m benchmarks.mutated_logs --files 1000 --of FOLDER      logs of other layouts, up to a megabyte each

The fixtures of the tests, one of each format, are mutated: bit flips, cuts, splices, deep brackets, huge numbers, noise.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.readers.mutations import mutated

from finestep.errors import FinestepError
from finestep.flows.diagnose import diagnose_file

FIXTURES = Path(__file__).parent.parent / "tests" / "readers" / "fixtures"
MOST_SECONDS, MOST_MEMORY_MB = 2.0, 512.0
MOST_BYTES = 1 << 20
A_CLEAN_ERROR = "a clean error"
HIGH_WATER, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Ending:
    """How one broken file ended."""

    name: str
    number: int
    result: str
    """The label, or that it was refused in words."""
    seconds: float
    peak_mb: float
    """Of the whole process, with the interpreter and its libraries, while this file was read."""
    traceback: str = ""

    @property
    def words(self) -> str:
        return f"{self.name} number {self.number}"


def endings(numbers: range, folder: Path = FIXTURES) -> Iterator[Ending]:
    """Break and diagnose one file a number; the same number gives the same bytes."""
    fixtures = sorted(path for path in folder.iterdir() if path.is_dir() or path.stat().st_size <= MOST_BYTES)
    with tempfile.TemporaryDirectory() as place:
        for number in numbers:
            yield _ending(_broken_copy(fixtures[number % len(fixtures)], Path(place), number), number)


def _broken_copy(source: Path, place: Path, number: int) -> Path:
    """The file, or the folder with one of its files, mutated."""
    target = place / source.name
    if source.is_file():
        target.write_bytes(mutated(source.read_bytes(), number))
        return target
    shutil.copytree(source, target, dirs_exist_ok=True)
    parts = sorted(path for path in target.rglob("*") if path.is_file())
    part = parts[number // 7 % len(parts)]
    part.write_bytes(mutated(part.read_bytes(), number))
    return target


def _ending(path: Path, number: int) -> Ending:
    _forget_peak()
    trace = ""
    began = time.perf_counter()
    try:
        result = diagnose_file(path).label
    except FinestepError:
        result = A_CLEAN_ERROR
    except Exception:
        result, trace = "a traceback", traceback.format_exc(limit=-3)
    return Ending(path.name, number, result, time.perf_counter() - began, _peak_mb(), trace)


def _forget_peak() -> None:
    """Let the peak begin anew, where the system can (Linux); elsewhere it is that of all files so far."""
    if RESET.exists():
        RESET.write_text("5")


def _peak_mb() -> float:
    if not RESET.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    line = next(line for line in HIGH_WATER.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def report(seen: list[Ending]) -> bool:
    """Print the worst; True when every file kept the limits."""
    slowest, largest = max(seen, key=lambda each: each.seconds), max(seen, key=lambda each: each.peak_mb)
    broken = [each for each in seen if each.traceback]
    over = [each for each in seen if each.seconds > MOST_SECONDS or each.peak_mb > MOST_MEMORY_MB]
    print(
        f"{len(seen)} mutated files, {len(broken)} tracebacks, {len(over)} beyond {MOST_SECONDS:g} s or {MOST_MEMORY_MB:g} MB"
    )
    print(f"  slowest {slowest.seconds:.2f} s ({slowest.words}), largest {largest.peak_mb:.0f} MB ({largest.words})")
    print(f"  {dict(Counter(each.result for each in seen).most_common())}")
    for each in broken[:5]:
        print(each.words, each.traceback)
    return not broken and not over


def main() -> None:
    """Break files, diagnose them, print the worst; exit code 1 when one did not keep the limits."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--of", type=Path, default=FIXTURES, metavar="FOLDER")
    options = parser.parse_args()
    warnings.simplefilter("error", RuntimeWarning)  # what a user would see as noise counts as a traceback
    raise SystemExit(not report(list(endings(range(options.first, options.first + options.files), options.of))))


if __name__ == "__main__":
    main()
