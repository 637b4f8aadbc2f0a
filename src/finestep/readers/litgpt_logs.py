"""litgpt's own logs, which count micro-batches: metrics.csv, and what it prints; a row for each optimizer step comes out.

The rate in metrics.csv is the one that the next step will use, because it is logged after the scheduler has moved on.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

from finestep.readers.limits import number
from finestep.readers.row_table import RowTable

MARK = "iter_time"
"""A column that only this table has."""
PRINTED = re.compile(
    r"^Epoch (?P<epoch>\d+) \| iter (?P<iter>\d+) step (?P<step>\d+) \| loss train: (?P<loss>[\d.]+|nan|inf),"
    r" val: (?P<val>\S+) \| iter time: [\d.]+ ms(?P<ended> \(step\))?"
)
VALIDATED = re.compile(r"^(?:iter \d+|Final evaluation)(?: \||:) val loss:? (?P<loss>[\d.]+|nan|inf)")
Row = Mapping[str, object]


def is_printed(line: str) -> bool:
    """True for a line that litgpt prints of a micro-batch."""
    return PRINTED.match(line) is not None


def read_printed(stream: Iterator[str], table: RowTable) -> None:
    """Lines of its standard output: those that end a step, and validations."""
    step = 0
    for line in stream:
        if (found := PRINTED.match(line)) is not None:
            if found["ended"]:
                step = int(found["step"])
                table.add({"step": step, "loss": found["loss"], "epoch": int(found["epoch"])})
        elif (found := VALIDATED.match(line)) is not None and step:
            table.add({"step": step, "val_loss": found["loss"]})
        if table.is_full:
            return


def of_steps(rows: Sequence[Row]) -> list[dict[str, object]]:
    """The rows of metrics.csv that end an optimizer step, numbered by steps; validations stand at the step before them.

    How many micro-batches make a step is not written there: the rate moves once a step, and the usual distance tells it.
    """
    passes = passes_a_step(rows)
    out: list[dict[str, object]] = []
    step = 0
    for row in rows:
        done = number(row.get("iter"))
        if done > 0 and row.get("loss") not in (None, ""):
            if int(done) % passes:
                continue
            step = int(done) // passes
            out.append({**{key: value for key, value in row.items() if key != "iter"}, "step": step})
        elif row.get("val_loss") not in (None, ""):
            out.append({"step": step, "val_loss": row["val_loss"]})
    return out


def passes_a_step(rows: Sequence[Row]) -> int:
    """Micro-batches an optimizer step; 1 where it cannot be told.

    >>> passes_a_step([{"iter": str(i), "loss": "2", "learning_rate": str(i // 2)} for i in range(1, 9)])
    2
    """
    told = [(number(row["iter"]), row.get("learning_rate")) for row in rows if row.get("loss") and row.get("iter")]
    seen = [(int(one), rate) for one, rate in told if math.isfinite(one)]
    if any(after[0] - before[0] != 1 for before, after in pairwise(seen)):
        return 1  # rows are thinned out: the distance of two moves says nothing
    moved = [after[0] for before, after in pairwise(seen) if after[1] != before[1]]
    gaps = Counter(after - before for before, after in pairwise(moved))
    return gaps.most_common(1)[0][0] if gaps else 1
