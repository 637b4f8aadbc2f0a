"""The project's own measured surfaces: whole grids, a second seed around the best, and readable by the benchmark."""

import csv
import math
from pathlib import Path

import pytest
from benchmarks.search.surfaces import load_tasks

FOLDER = Path(__file__).parent.parent.parent / "benchmarks" / "data" / "finetuning"
FILES = sorted(FOLDER.glob("*.csv"))


def _octaves(row, other, column):
    return abs(math.log2(float(row[column]) / float(other[column])))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_grid_is_whole(path):
    rows = list(csv.DictReader(path.open(encoding="utf-8")))
    first = {(r["lr"], r["bs"], r["fidelity"]) for r in rows if r["seed"] == "0"}
    rates, batches, lengths = ({key[i] for key in first} for i in range(3))
    assert len(rates) >= 6
    assert len(batches) >= 4
    assert len(lengths) >= 3
    assert len(first) == len(rates) * len(batches) * len(lengths)
    seen = [(r["lr"], r["bs"], r["fidelity"], r["seed"]) for r in rows]
    assert len(seen) == len(set(seen))
    best = min(
        (r for r in rows if r["fidelity"] == "1" and r["seed"] == "0" and r["loss"]), key=lambda r: float(r["loss"])
    )
    repeated = [r for r in rows if r["seed"] == "1" and r["fidelity"] == "1"]
    assert any(_octaves(r, best, "lr") < 1.01 and _octaves(r, best, "bs") < 1.01 for r in repeated)
    for row in rows:
        assert bool(row["loss"]) == (row["state"] == "completed")


def test_the_benchmark_reads_them():
    tasks = load_tasks(FOLDER)
    assert {task.name for task in tasks} == {path.stem for path in FILES}
    assert all(len(task.fidelities) >= 3 for task in tasks)
