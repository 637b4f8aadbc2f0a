"""Which runs a plan asks for, in their order, by what is measured already; it runs nothing.

A plan that `grows` gets a further rate or batch size wherever its best cell of full length lies at an edge, so that the
optimum ends up inside the grid. All of this follows from the rows alone, so that a run that was killed goes on as if nothing had been.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

NEAR_BEST = 1
"""Steps of the grid either side of the best cell that get further seeds."""
MOST_RATES, MOST_BATCH = 10, 256
"""A grid does not grow beyond these: an optimum that is still at the edge then is said to be there."""

Row = Mapping[str, str]


@dataclass(frozen=True)
class Cell:
    """One run to be made."""

    learning_rate: float
    batch: int
    fidelity: float
    seed: int

    @property
    def key(self) -> tuple[str, int, str, int]:
        return (f"{self.learning_rate:.4g}", self.batch, f"{self.fidelity:.4g}", self.seed)


def cell_of(row: Row) -> Cell:
    """The cell of a row of the file."""
    return Cell(float(row["lr"]), int(row["bs"]), float(row["fidelity"]), int(row["seed"]))


def cells(plan: Mapping[str, Any], rows: Sequence[Row], *, everywhere: bool = False) -> Iterator[Cell]:
    """All cells in the order in which they are measured: length by length the grid at the first seed, then what is due further seeds.

    A plan that grows gets the further seeds of the full length before the short lengths begin.

    Args:
        everywhere: the second seed at all cells, not only near the best.
    """
    rates, batches = axes(plan, rows)
    if plan.get("grows"):
        for fidelity in plan["fidelities"]:
            yield from _first_seed(plan, rates, batches, [fidelity])
            yield from _near_best(plan, rows, rates, batches, fidelity)
    else:
        yield from _first_seed(plan, rates, batches, plan["fidelities"])
        for fidelity in plan["fidelities"]:
            yield from _near_best(plan, rows, rates, batches, fidelity)
    if everywhere:
        for fidelity in plan["fidelities"]:
            yield from (Cell(rate, batch, fidelity, plan["seeds"][1]) for rate in rates for batch in batches)


def axes(plan: Mapping[str, Any], rows: Sequence[Row]) -> tuple[list[float], list[int]]:
    """Rates and batch sizes of the grid, with those by which it has grown. What was begun stays, so that a grid never shrinks."""
    begun = [cell_of(row) for row in rows if plan.get("grows") and math.isclose(float(row["fidelity"]), 1.0)]
    rates = sorted({_rounded(rate) for rate in (*plan["learning_rates"], *(one.learning_rate for one in begun))})
    batches = sorted({*plan["batches"], *(one.batch for one in begun)})
    while plan.get("grows"):
        bests = (best_cell(plan, rows, rates, batches, 1.0), best_repeated(plan, rows, rates, batches))
        steps = [step for best in bests if best and (step := _growth(rates, batches, best))]
        if not steps:
            break
        rates, batches = steps[0]
    return rates, batches


def _growth(
    rates: Sequence[float], batches: Sequence[int], best: tuple[int, int]
) -> tuple[list[float], list[int]] | None:
    """The grid made larger on the side where its best cell lies; None when that is inside, or the grid large enough."""
    i, j = best
    if len(rates) < MOST_RATES:
        if i == len(rates) - 1:
            return [*rates, 2 * rates[-1]], [*batches]
        if i == 0:
            return [rates[0] / 2, *rates], [*batches]
    if j == 0 and batches[0] > 1:
        return [*rates], [batches[0] // 2, *batches]
    if j == len(batches) - 1 and batches[-1] < MOST_BATCH:
        return [*rates], [*batches, 2 * batches[-1]]
    return None


def best_cell(
    plan: Mapping[str, Any], rows: Sequence[Row], rates: Sequence[float], batches: Sequence[int], fidelity: float
) -> tuple[int, int] | None:
    """Places of the best rate and batch size of a length at the first seed; None while the grid is not whole."""
    places = {
        Cell(rate, batch, fidelity, plan["seeds"][0]).key: (i, j)
        for i, rate in enumerate(rates)
        for j, batch in enumerate(batches)
    }
    here = {cell_of(row).key: row for row in rows if cell_of(row).key in places}
    ranked = {key: _rank(plan, row) for key, row in here.items() if row["loss"]}
    if len(here) < len(places) or not ranked:
        return None
    return places[min(ranked, key=ranked.__getitem__)]


def best_repeated(
    plan: Mapping[str, Any], rows: Sequence[Row], rates: Sequence[float], batches: Sequence[int]
) -> tuple[int, int] | None:
    """Places of the full-length cell that is best in the mean of its seeds, of those that have two or more; None without any."""
    found: dict[tuple[str, int], list[tuple[float, ...]]] = defaultdict(list)
    for row in rows:
        if math.isclose(float(row["fidelity"]), 1.0) and row["loss"]:
            found[cell_of(row).key[:2]].append(_rank(plan, row))
    means = {at: tuple(map(fmean, zip(*ranks, strict=True))) for at, ranks in found.items() if len(ranks) > 1}
    keys = {
        Cell(rate, batch, 1.0, 0).key[:2]: (i, j) for i, rate in enumerate(rates) for j, batch in enumerate(batches)
    }
    inside = [at for at in means if at in keys]
    return keys[min(inside, key=means.__getitem__)] if inside else None


def _rounded(rate: float) -> float:
    """A rate as the file holds it, so that a grid is the same before and after it was measured."""
    return float(f"{rate:.6g}")


def _rank(plan: Mapping[str, Any], row: Row) -> tuple[float, ...]:
    """Smaller is better: the loss, or the accuracy first and the loss where that ties."""
    loss = float(row["loss"])
    return (-float(row["accuracy"]), loss) if plan.get("objective") == "accuracy" else (loss,)


def _first_seed(
    plan: Mapping[str, Any], rates: Sequence[float], batches: Sequence[int], fidelities: Sequence[float]
) -> Iterator[Cell]:
    """The grid at the first seed.

    With `core_rates` [lowest, highest] the rates between them come first, at all lengths, and then the others from there outward,
    so that a grid that is cut off is whole in its middle.
    """
    low, high = plan.get("core_rates", (rates[0], rates[-1]))
    tiers = [max(sum(rate < one <= low for one in rates), sum(high <= one < rate for one in rates)) for rate in rates]
    for tier in sorted(set(tiers)):
        for fidelity in fidelities:
            for rate in (one for one, place in zip(rates, tiers, strict=True) if place == tier):
                for batch in batches:
                    yield Cell(rate, batch, fidelity, plan["seeds"][0])


def _near_best(
    plan: Mapping[str, Any], rows: Sequence[Row], rates: Sequence[float], batches: Sequence[int], fidelity: float
) -> Iterator[Cell]:
    """The cells around the best one of a length that is complete: all further seeds at full length, the second at a short one."""
    best = best_cell(plan, rows, rates, batches, fidelity)
    if best is None:
        return
    is_full = math.isclose(fidelity, 1.0)
    reach = NEAR_BEST if is_full or plan.get("grows") else 0
    repeated = best_repeated(plan, rows, rates, batches) if is_full and plan.get("grows") else None
    for i, j in dict.fromkeys(one for one in (best, repeated) if one):
        for seed in plan["seeds"][1:] if is_full else plan["seeds"][1:2]:
            for rate in rates[max(0, i - reach) : i + reach + 1]:
                for batch in batches[max(0, j - reach) : j + reach + 1]:
                    yield Cell(rate, batch, fidelity, seed)
