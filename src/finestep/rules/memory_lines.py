"""Peak memory as the highest of a few straight lines in the micro-batch: its value, its parts, and the largest batch under a limit.

Every moment of a step needs a fixed number of bytes and a number for each row; which moment is the worst depends on the rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from finestep.probe import Lever, MemoryCurve, MemoryLine

MOST_LANES = 64
ADAPTER_BYTES = 16
"""Of a trained number in float32: itself, its gradient and two moments."""
LOW_ADAPTER_BYTES = 20
"""Where the pass computes in bfloat16: also the number as the pass sees it, and its gradient of that pass."""
CATEGORY_WORDS = {
    "weights": "weights",
    "gradients": "gradients",
    "optimizer": "optimizer state",
    "activations": "activations",
    "logits": "logits and their gradients",
    "temporaries": "temporaries",
}


def line_bytes(line: MemoryLine, rows: float) -> float:
    """Bytes of one moment at `rows` rows."""
    return sum(line.fixed.values()) + rows * sum(line.per_row.values())


def peak_line(curve: MemoryCurve, rows: float) -> MemoryLine:
    """The moment that needs most at `rows` rows."""
    return max(curve.lines, key=lambda line: line_bytes(line, rows))


def peak_bytes(curve: MemoryCurve, rows: float) -> float:
    """Peak memory of a step over `rows` rows."""
    return line_bytes(peak_line(curve, rows), rows)


def peak_parts(curve: MemoryCurve, rows: float) -> dict[str, float]:
    """What the memory holds at the peak, by category."""
    line = peak_line(curve, rows)
    return {name: line.fixed.get(name, 0.0) + rows * line.per_row.get(name, 0.0) for name in CATEGORY_WORDS}


def largest_rows(curve: MemoryCurve, budget_bytes: float) -> int:
    """The most rows whose peak stays within the budget; 0 when not even one does."""
    most = math.inf
    for line in curve.lines:
        room, slope = budget_bytes - sum(line.fixed.values()), sum(line.per_row.values())
        if room < 0:
            return 0
        if slope > 0:
            most = min(most, room / slope)
    return 0 if math.isinf(most) else int(most + 1e-9)


def largest_lanes(curve: MemoryCurve, budget_bytes: float, *, rows: int, num_trained: int) -> int:
    """How many LoRA trials of `rows` rows each fit into one pack: rows add up, and every further trial keeps its own adapter."""
    lanes, room = 0, True
    while room and lanes < MOST_LANES:
        lanes += 1
        more = lanes * ADAPTER_BYTES * num_trained
        room = peak_bytes(curve, (lanes + 1) * rows) + more <= budget_bytes
    return lanes if peak_bytes(curve, rows) <= budget_bytes else 0


def choose_curve(curves: Sequence[MemoryCurve], budget_bytes: float | None, *, rows: int) -> MemoryCurve:
    """The first setting, in the order given, with which `rows` rows fit; else the one with which most do."""
    if budget_bytes is None:
        return curves[0]
    fitting = (curve for curve in curves if largest_rows(curve, budget_bytes) >= rows)
    return next(fitting, None) or max(curves, key=lambda curve: largest_rows(curve, budget_bytes))


def upper_lines(lines: Sequence[MemoryLine]) -> list[MemoryLine]:
    """The lines that are the highest somewhere from one row on, from the first to the last."""
    kept: list[MemoryLine] = []
    rows = 1.0
    current = max(lines, key=lambda line: (line_bytes(line, rows), _slope(line)))
    while True:
        kept.append(current)
        crossings = [(_crossing(current, line), _slope(line), line) for line in lines if _slope(line) > _slope(current)]
        if not crossings:
            return kept
        rows, _, current = min(crossings, key=lambda found: (found[0], -found[1]))


def lever_words(curves: Sequence[MemoryCurve], budget_bytes: float, *, now: Lever) -> str | None:
    """Which lever buys most, e.g. "checkpointing: 10 -> 66 rows"; None when none buys anything."""
    current = _curve(curves, now)
    if current is None:
        return None
    start = largest_rows(current, budget_bytes)
    found = []
    for curve in curves:
        rows = largest_rows(curve, budget_bytes)
        pulled = _pulled(now, curve.lever)
        if pulled and rows > start:
            found.append((len(pulled), -rows, f"{' and '.join(pulled)}: {start:,} -> {rows:,} rows"))
    single = sorted(item for item in found if item[0] == 1)
    both = sorted(item for item in found if item[0] == 2)
    return "; ".join(text for _, _, text in single + both) or None


def _pulled(before: Lever, after: Lever) -> list[str]:
    out = ["checkpointing"] if after.checkpointing and not before.checkpointing else []
    return out + (["chunked loss"] if after.chunk_tokens and not before.chunk_tokens else [])


def _curve(curves: Sequence[MemoryCurve], lever: Lever) -> MemoryCurve | None:
    wanted = (lever.checkpointing, bool(lever.chunk_tokens))
    return next((c for c in curves if (c.lever.checkpointing, bool(c.lever.chunk_tokens)) == wanted), None)


def _slope(line: MemoryLine) -> float:
    return sum(line.per_row.values())


def _crossing(flat: MemoryLine, steep: MemoryLine) -> float:
    return (sum(flat.fixed.values()) - sum(steep.fixed.values())) / (_slope(steep) - _slope(flat))
