"""What measured surfaces say: best learning rate and loss by batch size and length, and how far two seeds lie apart.

python summary.py FILE.csv ...    prints Markdown
"""

from __future__ import annotations

import math
import statistics
import sys
from collections import defaultdict
from pathlib import Path

from grid import cell_of

from rows import read

SD_OVER_MEAN = math.sqrt(math.pi / 2)
"""Standard deviation of a normal variable over its mean absolute deviation."""


def main() -> None:
    for name in sys.argv[1:]:
        print(f"\n**{Path(name).stem}** (best rate: loss; * = at an edge of the grid)\n")
        print(table(read(Path(name))))
        print(f"\n{seeds(read(Path(name)))}")


def table(rows: list[dict[str, str]]) -> str:
    """Best rate and its loss at the first seed, a row a batch size, a column a length."""
    first = [row for row in rows if row["seed"] == "0"]
    lengths = sorted({float(row["fidelity"]) for row in first})
    batches = sorted({int(row["bs"]) for row in first})
    rates = sorted({float(row["lr"]) for row in first})
    lines = [
        "| batch | " + " | ".join(f"{length:g} of the run" for length in lengths) + " |",
        "|---" * (1 + len(lengths)) + "|",
    ]
    for batch in batches:
        cells = []
        for length in lengths:
            here = [r for r in first if int(r["bs"]) == batch and float(r["fidelity"]) == length and r["loss"]]
            best = min(here, key=lambda row: float(row["loss"]))
            edge = "*" if float(best["lr"]) in (rates[0], rates[-1]) else ""
            cells.append(f"{float(best['lr']):.1e}{edge}: {float(best['loss']):.3f}")
        lines.append(f"| {batch} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def seeds(rows: list[dict[str, str]]) -> str:
    """Spread between seeds of the cells that have two, in per cent of the loss."""
    by_cell: dict[tuple[object, ...], list[float]] = defaultdict(list)
    for row in rows:
        if row["loss"]:
            by_cell[cell_of(row).key[:3]].append(math.log(float(row["loss"])))
    pairs = [abs(a - b) / math.sqrt(2) for a, b in (v for v in by_cell.values() if len(v) == 2)]
    if not pairs:
        return "no second seed yet"
    spread = 100 * statistics.fmean(pairs) * SD_OVER_MEAN
    return f"{len(rows)} runs; {len(pairs)} cells with two seeds: standard deviation {spread:.1f} % of the loss."


if __name__ == "__main__":
    main()
