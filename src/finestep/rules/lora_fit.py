"""Fitting the LoRA law to measured optima; it fits whatever it is given, so a family can be left out.

The law for a new family: log10 rate = centre + rank slope * log10(rank / 32) + size curve, where the size curve is
the mean of
three broken lines that rise below their knot (10, 20, 40 billion parameters) and are flat above it. Each family
counts once.
A mixture of experts counts as a dense model of sqrt(active x total) parameters (evidence `oneill-sft-science`).
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from finestep.knowledge.sweep import SweepCell

KNOTS_BILLION = (10.0, 20.0, 40.0)
"""Where the size curve may bend. Which knot is right is not known; the mean of the three is used and none is chosen."""

SMALLEST_BILLION, BELOW_SLOPE = 1.0, -0.26
"""No model below 1B was in the sweep, and its slope would overshoot there. One measured basin (the shipped model of 1.1M
parameters, docs/log.md) gives the slope that is used below 1B."""

REFERENCE_RANK = 32
RIDGE = 0.01
"""Pull of the slopes toward 0, in families: only so that a fit without any small model has an answer."""
COVERAGE = 0.8
_GRID_RATIO = 10 / 3 + 0.01


@dataclass(frozen=True, slots=True)
class Optimum:
    """The best learning rate of one model and rank; `size` is in billions of dense-equivalent parameters, `params`
    the total."""

    model: str
    lineage: str
    params: float
    size: float
    rank: int
    log_rate: float


@dataclass(frozen=True, slots=True)
class SizeLaw:
    """What holds for a family that was never measured: one (centre, rank slope, size slope) for each knot, averaged."""

    coefficients: tuple[tuple[float, float, float], ...]

    def log_rate(self, *, size: float, rank: int) -> float:
        """log10 of the best rate for a dense-equivalent size in billions."""
        inside = max(size, SMALLEST_BILLION)
        return BELOW_SLOPE * -decades_below(size) + sum(
            _dot(row, _features(inside, rank, knot)) for row, knot in zip(self.coefficients, KNOTS_BILLION, strict=True)
        ) / len(KNOTS_BILLION)


def decades_below(size: float) -> float:
    """How far a size in billions lies below the smallest measured one, in factors of ten.

    >>> decades_below(0.01), decades_below(7.0)
    (2.0, 0.0)
    """
    return max(0.0, math.log10(SMALLEST_BILLION / size))


def optimum(cell: SweepCell) -> Optimum | None:
    """The best rate of a cell, or None where the sweep does not bracket it.

    With finite neighbours on both sides it is the vertex of the parabola through three points; where the next higher
    rate
    diverged it is the best grid point itself.
    """
    log_rate = _bracketed(cell)
    size = dense_equivalent(cell.num_parameters, cell.num_active_parameters)
    return (
        None if log_rate is None else Optimum(cell.model, cell.lineage, cell.num_parameters, size, cell.rank, log_rate)
    )


def dense_equivalent(total: float, active: float | None) -> float:
    """Billions of parameters of the dense model that a mixture of experts behaves like.

    >>> dense_equivalent(8e9, None)
    8.0
    """
    return math.sqrt(total * (active or total)) / 1e9


def _bracketed(cell: SweepCell) -> float | None:
    losses = [math.inf if loss is None else loss for _, loss in cell.points]
    best = losses.index(min(losses))
    if best in (0, len(cell.points) - 1):
        return None
    (left, left_loss), (rate, loss), (right, right_loss) = cell.points[best - 1 : best + 2]
    if right_loss is None:
        return math.log10(rate) if right / rate <= _GRID_RATIO else None
    if left_loss is None or loss is None:
        return None
    return vertex(((math.log10(left), left_loss), (math.log10(rate), loss), (math.log10(right), right_loss)))


def vertex(points: Sequence[tuple[float, float]]) -> float:
    """Where the parabola through three points is lowest."""
    (x0, y0), (x1, y1), (x2, y2) = points
    left, right = (y1 - y0) / (x1 - x0), (y2 - y1) / (x2 - x1)
    curvature = (right - left) / (x2 - x0)
    return 0.5 * (x0 + x1) - left / (2.0 * curvature)


def fit_size_law(optima: Sequence[Optimum]) -> SizeLaw:
    """Least squares in which every family has the same total weight."""
    return SizeLaw(tuple(_fit(optima, knot) for knot in KNOTS_BILLION))


def _fit(optima: Sequence[Optimum], knot: float) -> tuple[float, float, float]:
    counts = Counter(o.lineage for o in optima)
    normal = [[RIDGE * (i == j and i > 0) for j in range(4)] for i in range(3)]
    for o in optima:
        row = (*_features(o.size, o.rank, knot), o.log_rate)
        for i in range(3):
            for j in range(4):
                normal[i][j] += row[i] * row[j] / counts[o.lineage]
    return _solve3(normal)


def _features(size: float, rank: int, knot: float) -> tuple[float, float, float]:
    return (1.0, math.log10(rank / REFERENCE_RANK), min(math.log10(size / knot), 0.0))


def _dot(a: Sequence[float], b: Sequence[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def _solve3(rows: list[list[float]]) -> tuple[float, float, float]:
    """Gauss elimination with pivoting of a 3 x 4 system."""
    for i in range(3):
        pivot = max(range(i, 3), key=lambda r: abs(rows[r][i]))
        rows[i], rows[pivot] = rows[pivot], rows[i]
        for r in range(3):
            if r != i:
                factor = rows[r][i] / rows[i][i]
                rows[r] = [x - factor * y for x, y in zip(rows[r], rows[i], strict=True)]
    return (rows[0][3] / rows[0][0], rows[1][3] / rows[1][1], rows[2][3] / rows[2][2])


def residuals(law: SizeLaw, optima: Sequence[Optimum]) -> list[float]:
    """Measured minus predicted, in dex."""
    return [o.log_rate - law.log_rate(size=o.size, rank=o.rank) for o in optima]


def left_out_residuals(optima: Sequence[Optimum], group: Callable[[Optimum], str]) -> list[float]:
    """Residuals of every optimum under a law fitted without its group."""
    out: list[float] = []
    for name in sorted({group(o) for o in optima}):
        law = fit_size_law([o for o in optima if group(o) != name])
        out += residuals(law, [o for o in optima if group(o) == name])
    return out


def half_width(errors: Sequence[float]) -> float:
    """The 80 % quantile of the absolute errors, in dex (linear interpolation)."""
    ordered = sorted(abs(e) for e in errors)
    place = COVERAGE * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def model_means(law: SizeLaw, optima: Sequence[Optimum]) -> dict[str, tuple[str, float, int]]:
    """Model -> (family, mean residual in dex, number of ranks)."""
    grouped: dict[str, list[float]] = defaultdict(list)
    families = {o.model: o.lineage for o in optima}
    for o, error in zip(optima, residuals(law, optima), strict=True):
        grouped[o.model].append(error)
    return {model: (families[model], sum(errors) / len(errors), len(errors)) for model, errors in grouped.items()}


def shrunk_family_offsets(means: dict[str, tuple[str, float, int]], *, prior_models: float) -> dict[str, float]:
    """Family -> offset in dex, pulled toward 0 as if `prior_models` further models had none."""
    grouped: dict[str, list[float]] = defaultdict(list)
    for family, mean, _ in means.values():
        grouped[family].append(mean)
    return {family: sum(values) / (len(values) + prior_models) for family, values in grouped.items()}
