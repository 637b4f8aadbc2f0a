"""The table and the plot of the benchmark; censored runs stay in every median."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from benchmarks.search.simulate import Mark
from benchmarks.search.surfaces import Task


def print_table(rows: Iterable[dict[str, object]], tasks: list[Task]) -> None:
    """Median, p90 and mean of the cost (and the median of the wall clock) by engine, group of tasks and target."""
    costs: dict[tuple[str, str], dict[float, list[tuple[float, float]]]] = defaultdict(lambda: defaultdict(list))
    for row, group in _grouped(rows, tasks):
        pair = (_number(row["cost"]), _number(row["wall"]))
        costs[(group, str(row["engine"]))][float(row["target"])].append(pair)  # type: ignore[arg-type]
    print("cost in full runs, median / p90, mean (reached) ; wall-clock median")
    for group, engine in _lines(costs, tasks):
        by_target = sorted(costs[group, engine].items(), reverse=True)
        print(f"{group:34s} {engine:26s} " + "   ".join(_cell(target, pairs) for target, pairs in by_target))


def print_differences(rows: Iterable[dict[str, object]], tasks: list[Task], against: str) -> None:
    """Mean difference of the cost to one engine on the same task and seed, with its 90 % interval (bootstrap), by target.

    A pair where either did not reach the target is left out; the share of pairs that remain is told.
    """
    costs: dict[tuple[str, str], dict[float, dict[tuple[str, int], float]]] = defaultdict(lambda: defaultdict(dict))
    for row, group in _grouped(rows, tasks):
        runs = costs[group, str(row["engine"])][float(row["target"])]  # type: ignore[arg-type]
        runs[str(row["task"]), int(row["seed"])] = _number(row["cost"])  # type: ignore[call-overload]
    print(f"mean difference to {against} in full runs, 90 % interval (pairs)")
    for group, engine in _lines(costs, tasks):
        if engine != against:
            by_target, other = sorted(costs[group, engine].items(), reverse=True), costs[group, against]
            told = (_difference(target, runs, other[target]) for target, runs in by_target)
            print(f"{group:34s} {engine:26s} " + "   ".join(told))


def _lines(pairs: Iterable[tuple[str, str]], tasks: list[Task]) -> list[tuple[str, str]]:
    """(group, engine) in the order in which they are printed: groups first, then single tasks where they are few."""
    shown = (pair for pair in pairs if len(tasks) <= 12 or not pair[0].startswith("  "))
    return sorted(shown, key=lambda pair: (pair[0].startswith("  "), pair))


def _difference(target: float, own: dict[tuple[str, int], float], other: dict[tuple[str, int], float]) -> str:
    both = [own[run] - other[run] for run in own.keys() & other.keys()]
    paired = np.array([difference for difference in both if math.isfinite(difference)])
    if not len(paired):
        return f"{target}: -"
    low, high = bootstrap(paired)
    return f"{target}: {paired.mean():+.2f} [{low:+.2f}, {high:+.2f}] ({len(paired) / len(own):4.0%})"


def bootstrap(values: np.ndarray, *, count: int = 2000) -> tuple[float, float]:
    """The central 90 % of the mean of values that are drawn anew, with replacement."""
    draws = np.random.default_rng(0).integers(0, len(values), (count, len(values)))
    low, high = np.quantile(values[draws].mean(axis=1), (0.05, 0.95))
    return float(low), float(high)


def _grouped(rows: Iterable[dict[str, object]], tasks: list[Task]) -> Iterator[tuple[dict[str, object], str]]:
    """Each row with its group of tasks, and once more with its task alone."""
    groups = {task.name: _group(task) for task in tasks}
    for row in rows:
        yield row, groups[str(row["task"])]
        yield row, f"  {row['task']}"


def _number(cost: object) -> float:
    return math.inf if cost is None else float(cost)  # type: ignore[arg-type]


def _group(task: Task) -> str:
    if task.kind != "grid":
        return task.kind
    return "grid, 1/8 or cheaper" if task.fidelities[0] <= 0.126 else "grid, others"


def _cell(target: float, pairs: list[tuple[float, float]]) -> str:
    cost = np.array([pair[0] for pair in pairs])
    wall = np.array([pair[1] for pair in pairs])
    reached = np.isfinite(cost).mean()
    p90 = np.quantile(cost, 0.9, method="higher")
    return f"{target}: {np.median(cost):5.2f} /{p90:6.2f},{cost.mean():6.2f} ({reached:4.0%}) ; {np.median(wall):5.2f}"


def plot(curves: list[tuple[str, list[Mark]]], path: Path) -> None:
    """Median regret against cost, one line an engine."""
    try:
        import matplotlib
    except ImportError as missing:
        raise SystemExit("--plot needs matplotlib: pip install 'finestep[bench]'") from missing

    matplotlib.use("Agg")
    from matplotlib import pyplot

    grid = np.linspace(0, 15, 301)
    by_engine: dict[str, list[np.ndarray]] = defaultdict(list)
    for name, marks in curves:
        values = np.full(len(grid), np.nan)
        for mark in marks:
            values[grid >= mark.cost] = mark.regret
        by_engine[name].append(np.nan_to_num(values, nan=np.inf))
    figure, axes = pyplot.subplots(figsize=(7, 4.5))
    for name, lines in by_engine.items():
        axes.step(grid, np.median(np.array(lines), axis=0), where="post", label=name)
    axes.set(xlabel="cost (full runs)", ylabel="median regret (% of the best, or points)", yscale="log", ylim=(0.03, 5))
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=130)
