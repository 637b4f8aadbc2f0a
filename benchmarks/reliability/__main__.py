"""Break studies on purpose, and see that nothing is lost.

    python -m benchmarks.reliability kills --n 100 --pack auto
    python -m benchmarks.reliability signals --n 40
    python -m benchmarks.reliability disk --n 20        (as root: it mounts small disks)

Processes are forks of one that has everything imported (`warm.py`), so that a hundred kills take minutes; `--cold` starts
each as a user does. The exit code is 1 when anything failed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.reliability import disk, kills, signals
from benchmarks.reliability.studies import bench

GATES = {"kills": kills.run, "signals": signals.run, "disk": disk.run}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("gate", choices=GATES)
    parser.add_argument("--n", type=int, default=10, help="how many times something is broken")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pack", choices=("off", "auto"), default="off")
    parser.add_argument("--cold", action="store_true", help="import everything anew in each process")
    parser.add_argument("--work", type=Path, default=Path("/tmp/finestep-gates"))
    asked = parser.parse_args()
    with bench(asked.work / f"{asked.gate}-{asked.pack}-{asked.seed}", is_warm=not asked.cold) as place:
        passed, done = GATES[asked.gate](place, number=asked.n, seed=asked.seed, pack=asked.pack)
    return 0 if passed == done else 1


if __name__ == "__main__":
    sys.exit(main())
