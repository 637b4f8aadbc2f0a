"""Loss of a sweep's cell at any learning rate, between its measured points; it judges and recommends nothing.

Points more than 5 % above the best are on the cliff and count as diverged: a parabola through one of them would dip
far below what
was measured. Between the others: the parabola through the three nearest in log10 rate. Above the highest of them (the
next one
diverged or was not run): that point's loss plus the general right-side basin measured from it, cliff included, as if
the best lay there,
which is never too kind. Below the lowest: the straight line through the two lowest points.
"""

from __future__ import annotations

import math

from finestep.knowledge.sweep import SweepCell
from finestep.rules.basin import DIVERGENCE_NATS, LORA

SCAN_STEP_DEX = 0.01
CLIFF_EXCESS = 0.05


def sound_points(cell: SweepCell) -> list[tuple[float, float]]:
    """(log10 rate, loss) of the finite points that are not on the cliff; points to the left of the best always stay."""
    best = min(cell.finite, key=lambda point: point[1])
    kept = [p for p in cell.finite if p[0] <= best[0] or p[1] <= (1 + CLIFF_EXCESS) * best[1]]
    return [(math.log10(rate), loss) for rate, loss in kept]


def loss_at(cell: SweepCell, log_rate: float) -> float:
    """Interpolated test loss in nats."""
    points = sound_points(cell)
    if log_rate > points[-1][0]:
        return points[-1][1] + LORA.excess_nats(log_rate - points[-1][0], divergence_nats=DIVERGENCE_NATS)
    if log_rate < points[0][0]:
        return _line(points[0], points[1], log_rate)
    return _parabola(sorted(points, key=lambda p: abs(p[0] - log_rate))[:3], log_rate)


def _line(a: tuple[float, float], b: tuple[float, float], x: float) -> float:
    return a[1] + (b[1] - a[1]) / (b[0] - a[0]) * (x - a[0])


def _parabola(points: list[tuple[float, float]], x: float) -> float:
    """Lagrange's form."""
    total = 0.0
    for i, (xi, yi) in enumerate(points):
        weight = 1.0
        for j, (xj, _) in enumerate(points):
            if j != i:
                weight *= (x - xj) / (xi - xj)
        total += weight * yi
    return total


def best_measured(cell: SweepCell) -> float:
    """The lowest measured loss of the cell."""
    return min(loss for _, loss in cell.finite)


def basin_floor(cell: SweepCell) -> float:
    """The lowest interpolated loss of the cell: at or below the best measured one."""
    points = sound_points(cell)
    low, high = points[0][0], points[-1][0]
    count = int((high - low) / SCAN_STEP_DEX) + 1
    scanned = (loss_at(cell, low + SCAN_STEP_DEX * k) for k in range(count))
    return min(best_measured(cell), *scanned)


def judged(cell: SweepCell) -> bool:
    """Cells with at least three sound points, among them 3e-4, so that every constant can be judged on the same
    cells."""
    return len(sound_points(cell)) >= 3 and any(math.isclose(rate, 3e-4) for rate, _ in cell.finite)
