"""Measure a fine-tuning surface: final validation loss over learning rate x batch size x length, one CSV row a run.

python measure.py PLAN --out DIR [--minutes 8] [--plan-file plans.json] [--data NAME=PATH ...] [--threads 1]

Every run is a whole short run with its own schedule, by the project's own worker, at equal tokens for all batch sizes. The
file is append-only: rows that are there are not run again, so the script may be stopped and started at will. The format is
what `python -m benchmarks.search --surfaces DIR` reads (one file per data set and method).
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import finestep
from finestep.executors.local import LocalExecutor
from finestep.protocol import SessionRequest, TrialRequest
from finestep.recipe import Recipe
from finestep.study import DataSpec, ModelSpec
from finestep.trial import Outcome

SHIPPED = Path(finestep.__file__).parent / "shipped"
PLANS = Path(__file__).with_name("plans.json")
COLUMNS = (
    "surface", "N", "D", "bs", "lr", "loss", "state", "seed", "fidelity", "rows", "steps", "tokens", "trained_tokens_share",
    "method", "rank", "alpha", "seconds", "versions",
)  # fmt: skip
NEAR_BEST = 1
"""Steps of the grid either side of the best full-length cell that get a second seed."""


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


def main() -> None:
    options = _options()
    plan = json.loads(options.plan_file.read_text(encoding="utf-8"))[options.plan]
    named = dict(pair.split("=", 1) for pair in options.data)
    path = named.get(plan["data"], str(SHIPPED / "instruct.jsonl") if plan["data"] == "shipped" else "")
    if not path:
        raise SystemExit(f"say where the data are: --data {plan['data']}=PATH")
    file = options.out / f"{options.plan}.csv"
    deadline = time.monotonic() + 60 * options.minutes
    measure(plan, path, file, name=options.plan, deadline=deadline, threads=options.threads)


def measure(plan: Mapping, data: str, file: Path, *, name: str, deadline: float, threads: int) -> None:
    """Make the runs that are missing, until the time is up; says how many are left."""
    if not list(_missing(plan, file)):
        print(f"{name}: complete, {len(read(file))} runs")
        return
    recipe = Recipe.model_validate(plan["recipe"])
    with tempfile.TemporaryDirectory() as folder:
        session = SessionRequest(
            model=ModelSpec(path=str(SHIPPED / "base"), device="cpu"),
            data=DataSpec(path=data, **plan.get("data_spec", {})),
            recipe=recipe,
            study_dir=folder,
            num_threads=threads,
            pack=1,
        )
        executor = LocalExecutor(session, folder=Path(folder))
        try:
            ready = executor.start()
            _run(plan, recipe, executor, ready, file, name, deadline, Path(folder))
        finally:
            executor.close()
    left = len(list(_missing(plan, file)))
    print(f"{name}: {len(read(file))} runs made, {left} left", flush=True)


def _run(
    plan: Mapping,
    recipe: Recipe,
    executor: LocalExecutor,
    ready: Mapping,
    file: Path,
    name: str,
    deadline: float,
    folder: Path,
) -> None:
    number = 0
    while time.monotonic() < deadline:
        cell = next(_missing(plan, file), None)
        if cell is None:
            return
        wanted = recipe.changed(learning_rate=cell.learning_rate, effective_batch_size=cell.batch, seed=cell.seed)
        request = TrialRequest(
            number=number, recipe=wanted, fidelity=cell.fidelity, folder=str(folder / "trials" / str(number))
        )
        executor.submit(request)
        end = [event for event in executor.events() if event.kind in {"finished", "died"}][-1]
        if end.kind == "died":
            raise SystemExit(f"the worker died: {end.data}")
        append(file, row_of(name, cell, wanted, Outcome.model_validate(end.data), ready))
        number += 1


def _missing(plan: Mapping, file: Path) -> Iterator[Cell]:
    """Cells that are not in the file: the whole grid at the first seed, short lengths first, then the second seed."""
    done = {cell_of(row).key for row in read(file)}
    grid = [
        Cell(rate, batch, fidelity, plan["seeds"][0])
        for fidelity in plan["fidelities"]
        for batch in plan["batches"]
        for rate in plan["learning_rates"]
    ]
    first = [cell for cell in grid if cell.key not in done]
    yield from first
    if not first:
        for cell in near_best(plan, read(file)):
            if cell.key not in done:
                yield cell


def near_best(plan: Mapping, rows: list[dict[str, str]]) -> list[Cell]:
    """The cells around the best one of each length, with the further seeds."""
    cells = []
    for fidelity in plan["fidelities"]:
        here = [row for row in rows if _is(row, fidelity, plan["seeds"][0]) and row["loss"]]
        best = min(here, key=lambda row: float(row["loss"]))
        rates, batches = plan["learning_rates"], plan["batches"]
        i = min(range(len(rates)), key=lambda k: abs(rates[k] - float(best["lr"])))
        j = batches.index(int(best["bs"]))
        reach = NEAR_BEST if fidelity == 1.0 else 0
        cells += [
            Cell(rates[a], batches[b], fidelity, seed)
            for seed in plan["seeds"][1:]
            for a in range(max(0, i - reach), min(len(rates), i + reach + 1))
            for b in range(max(0, j - reach), min(len(batches), j + reach + 1))
        ]
    return cells


def _is(row: Mapping[str, str], fidelity: float, seed: int) -> bool:
    return math.isclose(float(row["fidelity"]), fidelity, rel_tol=1e-3) and int(row["seed"]) == seed


def cell_of(row: Mapping[str, str]) -> Cell:
    """The cell of a row of the file."""
    return Cell(float(row["lr"]), int(row["bs"]), float(row["fidelity"]), int(row["seed"]))


def row_of(name: str, cell: Cell, recipe: Recipe, outcome: Outcome, ready: Mapping) -> dict[str, object]:
    """One row; a run that diverged has a state and no loss."""
    facts, machine = ready["card"]["facts"], ready["facts"]
    full_tokens = facts["num_tokens"] * recipe.num_epochs
    return {
        "surface": name,
        "N": machine["num_parameters"],
        "D": round(full_tokens * cell.fidelity),
        "bs": cell.batch,
        "lr": f"{cell.learning_rate:.6g}",
        "loss": "" if outcome.eval_loss is None else f"{outcome.eval_loss:.6f}",
        "state": outcome.state,
        "seed": cell.seed,
        "fidelity": f"{cell.fidelity:.6g}",
        "rows": round(facts["num_rows"] * recipe.num_epochs * cell.fidelity),
        "steps": outcome.num_steps,
        "tokens": outcome.num_train_tokens,
        "trained_tokens_share": f"{facts['num_trained_tokens'] / facts['num_tokens']:.4f}",
        "method": recipe.method,
        "rank": recipe.lora.rank if recipe.method != "full" else "",
        "alpha": recipe.lora.alpha if recipe.method != "full" else "",
        "seconds": f"{outcome.elapsed_s:.2f}",
        "versions": _versions(),
    }


def _versions() -> str:
    from importlib.metadata import version

    return f"finestep {finestep.__version__}; " + "; ".join(
        f"{name} {version(name)}" for name in ("torch", "transformers")
    )


def read(file: Path) -> list[dict[str, str]]:
    """The rows that were measured; no file, no rows."""
    if not file.exists():
        return []
    with file.open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def append(file: Path, row: Mapping[str, object]) -> None:
    """Add one row."""
    file.parent.mkdir(parents=True, exist_ok=True)
    is_new = not file.exists()
    with file.open("a", newline="", encoding="utf-8") as lines:
        writer = csv.DictWriter(lines, COLUMNS, lineterminator="\n")
        if is_new:
            writer.writeheader()
        writer.writerow(row)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("plan", help="name of a plan in the plan file")
    parser.add_argument("--plan-file", type=Path, default=PLANS)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", action="append", default=[], metavar="NAME=PATH")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
