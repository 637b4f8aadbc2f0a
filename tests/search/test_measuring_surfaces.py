"""The script that measures surfaces: its list and halves, the grid that grows around the optimum, and rows that survive a kill."""

import math
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts" / "measure_surfaces"
PLAN = {"learning_rates": [2.0**k for k in (-12, -10, -9, -8)], "batches": [4, 8, 16], "fidelities": [1.0, 0.125]}
PLAN |= {"seeds": [0, 1, 2], "grows": True}


@pytest.fixture(autouse=True)
def _scripts_on_the_path(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))


def row_of(cell, best_rate=2.0**-6, best_batch=2):
    octaves = (math.log2(cell.learning_rate / best_rate), math.log2(cell.batch / best_batch))
    loss = math.exp(0.1 * octaves[0] ** 2 + 0.05 * octaves[1] ** 2 + 0.001 * cell.seed)
    place = {"lr": f"{cell.learning_rate:.6g}", "bs": str(cell.batch), "fidelity": f"{cell.fidelity:.6g}"}
    return place | {"seed": str(cell.seed), "loss": f"{loss:.6f}", "accuracy": f"{1 - abs(octaves[0] + 2) / 100:.4f}"}


def measured(plan, make=row_of, **options):
    """Every run that a plan asks for, made one after the other; each time it is asked anew, as after a kill."""
    from grid import cell_of, cells

    rows = []
    while True:
        done = {cell_of(row).key for row in rows}
        cell = next((one for one in cells(plan, rows, **options) if one.key not in done), None)
        if cell is None:
            return rows
        rows.append(make(cell))


def test_the_list_says_the_halves_that_its_names_give():
    from tasks import LONGER, by_cost, halves, read_tasks

    every = read_tasks()
    assert sorted(by_cost(every)) == sorted(every)
    tasks = {name: task for name, task in every.items() if task["half"] != LONGER}
    assert {name: task["half"] for name, task in tasks.items()} == halves(every)
    assert len(tasks) >= 30
    assert sum(task["objective"] == "accuracy" for task in tasks.values()) == 6
    assert abs(sum(task["half"] == "design" for task in tasks.values()) - len(tasks) / 2) <= 1


def test_a_grid_grows_until_its_best_cell_lies_inside():
    from grid import axes, best_cell

    rows = measured(PLAN)
    rates, batches = axes(PLAN, rows)
    assert (rates[-1], batches[0]) == (2.0**-5, 1)
    i, j = best_cell(PLAN, rows, rates, batches, 1.0)
    assert (rates[i], batches[j]) == (2.0**-6, 2)


def test_the_best_cell_has_three_seeds_and_every_cell_two_where_asked():
    seeds = {}
    for row in measured(PLAN, everywhere=True):
        seeds.setdefault((row["fidelity"], float(row["lr"]), row["bs"]), set()).add(row["seed"])
    assert seeds["1", 2.0**-6, "2"] == {"0", "1", "2"}
    assert all(len(found) >= 2 for found in seeds.values())
    assert sum(len(found) == 3 for found in seeds.values()) == 9


def test_a_grid_grows_too_where_only_the_mean_of_the_seeds_is_best_at_its_edge():
    from grid import axes

    plan = PLAN | {"batches": [2, 4, 8], "learning_rates": [2.0**k for k in (-9, -8, -7, -6, -5, -4)]}

    def unlucky_at_two_rows(cell):
        row = row_of(cell, best_batch=1)
        factor = 1.2 if cell.batch == 2 and cell.seed == 0 else 1.0
        return row | {"loss": f"{factor * float(row['loss']):.6f}"}

    rows = measured(plan, unlucky_at_two_rows)
    assert axes(plan, [row for row in rows if row["seed"] == "0" and row["bs"] != "1"])[1][0] == 2
    assert axes(plan, rows)[1][0] == 1


def test_where_accuracy_counts_the_best_cell_is_that_of_the_accuracy():
    from grid import axes, best_cell

    plan = PLAN | {"objective": "accuracy"}
    rows = measured(plan)
    rates, batches = axes(plan, rows)
    i, _ = best_cell(plan, rows, rates, batches, 1.0)
    assert rates[i] == 2.0**-8


def test_a_line_that_was_cut_off_is_no_row_and_is_replaced(tmp_path):
    from grid import Cell

    from rows import append, read

    file = tmp_path / "one.csv"
    rows = [row_of(Cell(2.0**-k, 4, 1.0, 0)) for k in (8, 9, 10)]
    append(file, rows[0])
    append(file, rows[1])
    file.write_bytes(file.read_bytes()[:-12])
    assert [row["lr"] for row in read(file)] == [rows[0]["lr"]]
    append(file, rows[2])
    assert [row["lr"] for row in read(file)] == [rows[0]["lr"], rows[2]["lr"]]
