"""Plot 2: learning rate x batch, one cell for each pair that was measured; nothing between the cells is made up."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from finestep import wording
from finestep.report import axes
from finestep.report.measured import FALLEN_STATES, final_loss, has_fallen
from finestep.trial import Trial

COLUMN_WIDTH = 0.1
"""Learning rates within this many decades (a factor of 1.26) share a column, so that a cell can hold its number."""


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True)


class Cell(_Value):
    """One measured pair; coordinates are log10 of the learning rate and log2 of the batch."""

    x0: float
    x1: float
    y0: float
    y1: float
    kind: Literal["ranked", "diverged", "failed"]
    loss: float | None = Field(description="Lowest mean over seeds, in nats.")
    spread: float | None = Field(description="Standard deviation over seeds; None without a repeat.")
    quantile: float | None = Field(description="0 for the lowest loss on the map, 1 for the highest, by rank.")
    label: str
    learning_rate: float
    batch: int
    trials: tuple[int, ...]
    num_fallen: int


class BatchMap(_Value):
    """The cells of one fidelity; losses at different fidelities are not compared."""

    fidelity: float
    cells: tuple[Cell, ...]
    columns: tuple[tuple[float, str], ...] = Field(description="Centre (log10) and label of each column.")
    rows: tuple[tuple[float, str], ...] = Field(description="Centre (log2) and label of each row.")
    x_range: tuple[float, float]
    y_range: tuple[float, float]


def build_maps(trials: Sequence[Trial]) -> tuple[BatchMap, ...]:
    """A map for each fidelity with an ended trial, the largest fidelity first."""
    ended = [trial for trial in trials if final_loss(trial) is not None or has_fallen(trial)]
    fidelities = sorted({trial.fidelity for trial in ended}, reverse=True)
    return tuple(_map(fidelity, [trial for trial in ended if trial.fidelity == fidelity]) for fidelity in fidelities)


def _map(fidelity: float, trials: Sequence[Trial]) -> BatchMap:
    columns = axes.clustered([_x(trial) for trial in trials], width=COLUMN_WIDTH)
    centres = [(group[0] + group[-1]) / 2 for group in columns]
    rows = sorted({trial.recipe.effective_batch_size for trial in trials})
    heights = [math.log2(batch) for batch in rows]
    x_borders, y_borders = axes.borders(centres, widest=0.25), axes.borders(heights, widest=0.5)
    groups: defaultdict[tuple[int, int], list[Trial]] = defaultdict(list)
    column_of = {x: i for i, group in enumerate(columns) for x in group}
    for trial in trials:
        groups[(column_of[_x(trial)], rows.index(trial.recipe.effective_batch_size))].append(trial)
    cells = [_cell(members, x_borders[column], y_borders[row]) for (column, row), members in sorted(groups.items())]
    return BatchMap(
        fidelity=fidelity,
        cells=tuple(_with_quantiles(cells)),
        columns=tuple((centre, _column_label(group)) for centre, group in zip(centres, columns, strict=True)),
        rows=tuple((height, str(batch)) for height, batch in zip(heights, rows, strict=True)),
        x_range=(x_borders[0][0], x_borders[-1][1]),
        y_range=(y_borders[0][0], y_borders[-1][1]),
    )


def _column_label(group: Sequence[float]) -> str:
    """The learning rate of a column, or the range of those that share it: `4.5–5.0e-03`."""
    low, high = wording.learning_rate(10 ** group[0]), wording.learning_rate(10 ** group[-1])
    if low == high:
        return low
    same_power = low.partition("e")[2] == high.partition("e")[2]
    return f"{low.partition('e')[0]}–{high}" if same_power else f"{low}–{high}"


def _x(trial: Trial) -> float:
    return round(math.log10(trial.recipe.learning_rate), 6)


def _cell(members: Sequence[Trial], x: tuple[float, float], y: tuple[float, float]) -> Cell:
    losses: defaultdict[float, list[float]] = defaultdict(list)
    for trial in members:
        loss = final_loss(trial)
        if loss is not None:
            losses[trial.recipe.learning_rate].append(loss)
    rate = min(losses, key=lambda r: _mean(losses[r])) if losses else members[0].recipe.learning_rate
    values = losses.get(rate, [])
    spread = _deviation(values) if len(values) > 1 else None
    fallen = [trial for trial in members if has_fallen(trial)]
    label = _short(_mean(values)) if values else _fallen_label(fallen[0])
    return Cell(
        x0=x[0],
        x1=x[1],
        y0=y[0],
        y1=y[1],
        kind="ranked" if values else _fallen_kind(fallen),
        loss=_mean(values) if values else None,
        spread=spread,
        quantile=None,
        label=label if spread is None else f"{label} ± {_short(spread)}",
        learning_rate=rate,
        batch=members[0].recipe.effective_batch_size,
        trials=tuple(trial.number for trial in members),
        num_fallen=len(fallen),
    )


def _fallen_kind(fallen: Sequence[Trial]) -> Literal["diverged", "failed"]:
    return "diverged" if any(trial.state == "diverged" for trial in fallen) else "failed"


def _fallen_label(trial: Trial) -> str:
    return wording.STATE_WORDS[trial.state] if trial.state in FALLEN_STATES else "no loss"


def _with_quantiles(cells: Sequence[Cell]) -> list[Cell]:
    ordered = sorted(cell.loss for cell in cells if cell.loss is not None)
    last = max(1, len(ordered) - 1)
    return [
        cell if cell.loss is None else cell.model_copy(update={"quantile": round(ordered.index(cell.loss) / last, 4)})
        for cell in cells
    ]


def _short(value: float) -> str:
    """Three decimals, or a power of ten where they would say nothing."""
    return f"{value:.3f}" if value == 0 or abs(value) >= 1e-3 else f"{value:.0e}"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _deviation(values: Sequence[float]) -> float:
    mean = _mean(values)
    return math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))


def map_finding(maps: Sequence[BatchMap]) -> str:
    """The title of plot 2: the best batch size, and how far the next one is."""
    measured = maps[0] if maps else None
    lowest: dict[int, float] = {}
    for cell in measured.cells if measured else ():
        if cell.loss is not None:
            lowest[cell.batch] = min(cell.loss, lowest.get(cell.batch, math.inf))
    if not lowest:
        return "No pair of learning rate and batch size has a result yet"
    ordered = sorted(lowest, key=lambda batch: (lowest[batch], batch))
    if len(ordered) == 1:
        how = "at full length" if measured is not None and measured.fidelity >= 1 else "so far"
        return f"Batch {ordered[0]} is the only batch size with a result {how}"
    gap = lowest[ordered[1]] - lowest[ordered[0]]
    return f"Batch {ordered[0]} reaches the lowest loss; batch {ordered[1]} comes next, {gap:.4f} above"
