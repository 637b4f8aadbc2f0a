"""Recorded surfaces read from a folder of CSV files; every value that an engine sees was measured.

Files are recognised by their columns, never by their names:

- a *grid*: `D` (tokens), a batch column, a rate column and a loss column: one model trained at several lengths;
- an *adapter grid*: `model`, `lora_rank`, a rate column and a loss column: one model over rate and rank;
- a *pool with curves*: one file with `run`, `lr`, `batch_size` and one with `run`, `examples`, an accuracy column.
"""

from __future__ import annotations

import csv
import math
import re
import statistics
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from finestep.errors import BadInput

Row = Mapping[str, str]
LOSS_COLUMNS = ("smooth_loss", "smooth loss", "loss", "eval_loss", "val_loss", "final_loss")
TOKEN_COLUMNS = ("D", "tokens", "num_tokens")
BATCH_COLUMNS = ("bs", "batch_size", "effective_batch_size")
RATE_COLUMNS = ("lr_grid", "lr", "learning_rate")
ADAPTER_LOSS_COLUMNS = ("test_nll", "eval_loss", "mean_last50_loss", "final_loss")
ACCURACY_COLUMNS = ("acc_matched", "val_acc", "accuracy", "acc")
METHOD_COLUMN = "method"
MODEL_COLUMNS = ("model", "N", "Na", "h", "ffnh", "numh", "numl", "E", "num_experts", "topk", "sparsity", METHOD_COLUMN)
DIVERGED = ("diverged", "nan", "failed")
KEPT_SHARE = 2 / 3
"""Share of the values of each axis that an offset box keeps."""
MIN_AXIS = 6
"""An axis with fewer values is kept whole."""


@dataclass(frozen=True)
class Cell:
    """One measured run: its coordinates (log2), its cost in full runs, and what it gave (None: it diverged)."""

    point: tuple[float, ...]
    value: float | None
    cost: float
    curve: tuple[tuple[float, float], ...] = ()
    """Pools only: (cost so far, value) at each recorded evaluation."""

    def is_inside(self, box: Iterable[tuple[float, float]]) -> bool:
        """True when each coordinate lies within its bounds."""
        return all(low <= x <= high for x, (low, high) in zip(self.point, box, strict=True))


@dataclass(frozen=True)
class Task:
    """One thing to tune: measured cells at each fidelity, the axes of the space, and the best measured value."""

    name: str
    kind: str
    axes: tuple[str, ...]
    fidelities: tuple[float, ...]
    cells: Mapping[float, tuple[Cell, ...]]
    maximize: bool = False
    is_finetuning: bool = False
    """A grid of fine-tunes, whose optimum moves with length otherwise than that of pre-training."""
    targets: tuple[float, ...] = (0.5, 0.25, 0.1)
    bounds: tuple[tuple[float, float], ...] = field(default=())

    @property
    def full(self) -> tuple[Cell, ...]:
        """The cells at full length."""
        return self.cells[1.0]

    @property
    def best_cell(self) -> Cell:
        """The best measured cell at full length."""
        ranked = [cell for cell in self.full if cell.value is not None]
        return min(ranked, key=lambda cell: self.regret(cell.value))

    @property
    def best(self) -> float:
        values = [cell.value for cell in self.full if cell.value is not None]
        return max(values) if self.maximize else min(values)

    def regret(self, value: float | None) -> float:
        """Distance from the best measured value: per cent of a loss, points of an accuracy."""
        if value is None or math.isnan(value):
            return math.inf
        return 100 * (self.best - value) if self.maximize else 100 * (value / self.best - 1)

    def nearest(self, point: tuple[float, ...], *, fidelity: float, taken: Iterable[Cell] = ()) -> Cell | None:
        """The measured cell nearest to a wish, in units of the box, without those already taken."""
        skip = {id(cell) for cell in taken}
        scale = [max(high - low, 1e-9) for low, high in self.bounds]
        free = [cell for cell in self.cells[fidelity] if id(cell) not in skip]
        if not free:
            return None

        def distance(cell: Cell) -> float:
            return sum(((a - b) / s) ** 2 for a, b, s in zip(cell.point, point, scale, strict=True))

        return min(free, key=distance)


def offset_box(task: Task, seed: int) -> Task:
    """The grid cut to a smaller box that is not centred on the optimum: a random window of each axis that holds it.

    Every value stays a measurement, and all engines see the same box. Adapter grids and pools stay whole.
    """
    if task.kind != "grid":
        return task
    rng = np.random.default_rng([seed, stable_hash(task.name), 7])
    windows = [_window(task, axis, rng) for axis in range(len(task.axes))]
    cells = {length: tuple(cell for cell in here if cell.is_inside(windows)) for length, here in task.cells.items()}
    kept = {length: here for length, here in cells.items() if here}
    return replace(task, cells=kept, fidelities=tuple(sorted(kept)), bounds=_bounds([cell.point for cell in kept[1.0]]))


def _window(task: Task, axis: int, rng: np.random.Generator) -> tuple[float, float]:
    values = sorted({cell.point[axis] for here in task.cells.values() for cell in here})
    if len(values) < MIN_AXIS:
        return values[0], values[-1]
    size = math.ceil(KEPT_SHARE * len(values))
    place = values.index(task.best_cell.point[axis])
    start = int(rng.integers(max(0, place - size + 1), min(place, len(values) - size) + 1))
    return values[start], values[start + size - 1]


def stable_hash(text: str) -> int:
    """A number for a name, the same in every process."""
    return zlib.crc32(text.encode())


def load_tasks(folder: Path) -> list[Task]:
    """All tasks of a folder; an unreadable or empty folder says what it would need."""
    if not folder.is_dir():
        raise BadInput("the folder of surfaces must exist", value=str(folder), next_step="give `--surfaces DIR`")
    tables = {path: _read(path) for path in sorted(folder.glob("*.csv"))}
    tasks = [task for path, rows in tables.items() for task in _tasks_of(path, rows, tables)]
    if not tasks:
        raise BadInput(
            "the folder must hold at least one CSV of a known kind (grid, adapter grid, or pool with curves)",
            value=[path.name for path in tables],
            place=str(folder),
            next_step="see the columns in benchmarks/search/surfaces.py",
        )
    return sorted(tasks, key=lambda task: (task.kind, task.name))


def _read(path: Path) -> list[Row]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file))


def _tasks_of(path: Path, rows: list[Row], tables: Mapping[Path, list[Row]]) -> list[Task]:
    columns = set(rows[0]) if rows else set()
    if (
        all(_first(columns, names) for names in (TOKEN_COLUMNS, BATCH_COLUMNS, RATE_COLUMNS, LOSS_COLUMNS))
        and "lora_rank" not in columns
    ):
        return _grid_tasks(path, rows)
    if {"model", "lr", "lora_rank"} <= columns and _first(columns, ADAPTER_LOSS_COLUMNS):
        return _adapter_tasks(path, rows)
    if {"run", "lr", "batch_size"} <= columns and "examples" in columns:
        curves = _curves_for(rows, tables)
        return _pool_tasks(path, rows, curves) if curves else []
    return []


def _first(columns: set[str], names: Iterable[str]) -> str | None:
    return next((name for name in names if name in columns), None)


def _number(text: str | None) -> float | None:
    try:
        value = float(text) if text not in (None, "") else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _positive(row: Row, column: str, *, path: Path, line: int) -> float:
    value = _number(row.get(column))
    if value is None or value <= 0:
        raise BadInput(f"column `{column}` must be a number > 0", value=row.get(column), place=f"{path.name}:{line}")
    return value


# --- grids of several lengths -------------------------------------------------------------------------------------


def _grid_tasks(path: Path, rows: list[Row]) -> list[Task]:
    tokens_of, batch, rate, loss = (
        _first(set(rows[0]), names) or "" for names in (TOKEN_COLUMNS, BATCH_COLUMNS, RATE_COLUMNS, LOSS_COLUMNS)
    )
    families: dict[str, dict[float, dict[tuple[float, float], list[float | None]]]] = defaultdict(dict)
    for line, row in enumerate(rows, start=2):
        tokens = _positive(row, tokens_of, path=path, line=line)
        point = (_snap(math.log2(_positive(row, rate, path=path, line=line))), _log2(row, batch, path, line))
        surface = families[_family(row)].setdefault(float(f"{tokens:.3g}"), {})
        surface.setdefault(point, []).append(_number(row.get(loss)))
    is_finetuning = METHOD_COLUMN in rows[0]
    return [replace(_grid_task(name, lengths), is_finetuning=is_finetuning) for name, lengths in families.items()]


def _log2(row: Row, column: str, path: Path, line: int) -> float:
    return round(math.log2(_positive(row, column, path=path, line=line)), 4)


def _snap(log_rate: float) -> float:
    """Published rates are rounded; put those near a power of the square root of two on it."""
    near = round(2 * log_rate) / 2
    return near if abs(near - log_rate) < 0.03 else round(log_rate, 4)


def _family(row: Row) -> str:
    """What stays the same over lengths: the surface's name without its length, and the shape of the model."""
    surface = re.sub(r"[_-]*D[\d.]+[A-Za-z]*$", "", row.get("surface") or "")
    if surface:
        return surface
    return "_".join(f"{name}{row[name]}" for name in MODEL_COLUMNS if row.get(name)) or "grid"


def _grid_task(name: str, lengths: Mapping[float, Mapping[tuple[float, float], list[float | None]]]) -> Task:
    longest = max(lengths)
    chosen = sorted(lengths)
    cells = {
        (1.0 if tokens == longest else tokens / longest): tuple(
            Cell(point=point, value=_mean(values), cost=tokens / longest)
            for point, values in sorted(lengths[tokens].items())
        )
        for tokens in chosen
    }
    points = [cell.point for cell in cells[1.0]]
    return Task(name, "grid", ("lr", "batch"), tuple(sorted(cells)), cells, bounds=_bounds(points))


def _mean(values: list[float | None]) -> float | None:
    kept = [value for value in values if value is not None]
    return statistics.fmean(kept) if len(kept) == len(values) else None


def _bounds(points: list[tuple[float, ...]]) -> tuple[tuple[float, float], ...]:
    return tuple((min(axis), max(axis)) for axis in zip(*points, strict=True))


# --- adapter grids -------------------------------------------------------------------------------------------------


def _adapter_tasks(path: Path, rows: list[Row]) -> list[Task]:
    loss = _first(set(rows[0]), ADAPTER_LOSS_COLUMNS) or ""
    models: dict[str, dict[tuple[float, float], list[float | None]]] = defaultdict(dict)
    for line, row in enumerate(rows, start=2):
        if row.get("method") not in (None, "", "lora"):
            continue
        point = (_log2(row, "lr", path, line), _log2(row, "lora_rank", path, line))
        failed = any(word in (row.get("status") or "") for word in DIVERGED)
        models[row["model"]].setdefault(point, []).append(None if failed else _number(row.get(loss)))
    tasks = [_adapter_task(name, points) for name, points in models.items()]
    return [task for task in tasks if task is not None]


def _adapter_task(name: str, points: Mapping[tuple[float, float], list[float | None]]) -> Task | None:
    cells = tuple(Cell(point=point, value=_mean(values), cost=1.0) for point, values in sorted(points.items()))
    usable = sum(cell.value is not None for cell in cells)
    if usable < 6 or len({cell.point[0] for cell in cells if cell.value is not None}) < 4:
        return None
    bounds = _bounds([cell.point for cell in cells])
    return Task(name, "adapter", ("lr", "rank"), (1.0,), {1.0: cells}, bounds=bounds)


# --- pools with curves ---------------------------------------------------------------------------------------------


def _curves_for(rows: list[Row], tables: Mapping[Path, list[Row]]) -> list[Row]:
    runs = {row["run"] for row in rows}
    for table in tables.values():
        columns = set(table[0]) if table else set()
        is_curve = {"run", "examples"} <= columns and "lr" not in columns and _first(columns, ACCURACY_COLUMNS)
        if is_curve and table[0]["run"] in runs:
            return table
    return []


def _pool_tasks(path: Path, rows: list[Row], curves: list[Row]) -> list[Task]:
    accuracy = _first(set(curves[0]), ACCURACY_COLUMNS) or ""
    by_run: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for row in curves:
        examples, value = _number(row.get("examples")), _number(row.get(accuracy))
        if examples and value is not None:
            by_run[row["run"]].append((examples, value))
    groups: dict[str, list[tuple[int, Row]]] = defaultdict(list)
    for line, row in enumerate(rows, start=2):
        if by_run.get(row["run"]):
            groups["_".join(filter(None, (row.get("model"), row.get("task"))))].append((line, row))
    return [_pool_task(name, members, by_run, path) for name, members in groups.items() if len(members) >= 8]


def _pool_axes(row: Row) -> tuple[tuple[str, str, Callable[[float], float]], ...]:
    known = (
        ("lr", "lr", math.log2),
        ("batch", "batch_size", math.log2),
        ("epochs", "epochs", math.log2),
        ("warmup", "warmup_frac_epoch", float),
        ("dropout", "cls_dropout", float),
    )
    return tuple(axis for axis in known if row.get(axis[1]) not in (None, ""))


def _pool_task(
    name: str, members: list[tuple[int, Row]], by_run: Mapping[str, list[tuple[float, float]]], path: Path
) -> Task:
    axes = _pool_axes(members[0][1])
    mean_examples = statistics.fmean(max(by_run[row["run"]])[0] for _, row in members)
    cells = []
    for line, row in members:
        point = tuple(transform(_positive(row, column, path=path, line=line)) for _, column, transform in axes)
        curve = tuple((examples / mean_examples, value) for examples, value in sorted(by_run[row["run"]]))
        cells.append(Cell(point, max(value for _, value in curve), curve[-1][0], curve))
    bounds = _bounds([cell.point for cell in cells])
    names = tuple(axis[0] for axis in axes)
    return Task(
        name, "pool", names, (1.0,), {1.0: tuple(cells)}, maximize=True, targets=(1.0, 0.5, 0.25), bounds=bounds
    )
