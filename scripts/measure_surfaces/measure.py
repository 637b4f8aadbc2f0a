"""Measure fine-tuning surfaces: final validation loss over learning rate x batch size x length, one CSV row a run.

python measure.py PLAN ... --out DIR [--minutes 8] [--processes 1] [--device cpu] [--data NAME=PATH ...] [--model NAME=PATH ...]

Every run is a whole short run with its own schedule, by the project's own worker, at equal tokens for all batch sizes. A process
is a worker of its own on the device, and goes to the next plan when its plan is complete. The files are append-only: rows that are
there are not run again, so the script may be stopped and started at will, and it ends at its deadline by itself. The format is what
`python -m benchmarks.search --surfaces DIR` reads (one file per data set and method).
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import shutil
import statistics
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import finestep
from finestep.errors import FinestepError
from finestep.executors.local import LocalExecutor
from finestep.protocol import Event, SessionRequest, TrialRequest
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
NO_CHECKPOINT_S = 1e9
"""A run that is cut off begins anew, so checkpoints would be wasted."""
TIME_RESERVE = 1.2
"""A run is begun when so many times its expected seconds are left."""


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


@dataclass
class Surface:
    """A plan, the rows that there are, and the cells that are under way or have failed."""

    name: str
    plan: Mapping[str, Any]
    session: SessionRequest
    file: Path
    rows: list[dict[str, str]] = field(default_factory=list)
    taken: set[tuple[str, int, str, int]] = field(default_factory=set)
    num_processes: int = 0
    run_rows: int = 0
    """Training rows of a full-length run; 0 until a worker has read the data."""
    step_seconds: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))
    """Batch size -> seconds a step of each finished run."""
    other_seconds: list[float] = field(default_factory=list)
    """What each finished run took besides its steps: evaluations and saving."""

    def missing(self) -> list[Cell]:
        """Cells that are not measured, in their order."""
        done = {cell_of(row).key for row in self.rows}
        return [cell for cell in cells(self.plan, self.rows) if cell.key not in done]

    def expected_seconds(self, cell: Cell) -> float:
        """What a run will take, by those of its batch size that are done; 0 when there are none."""
        known = self.step_seconds.get(cell.batch)
        if not known:
            return 0.0
        num_steps = math.ceil(self.run_rows * cell.fidelity / cell.batch)
        return statistics.median(known) * num_steps + statistics.median(self.other_seconds)

    def lines(self) -> list[str]:
        """What was made and what is left, and how long the finished runs took."""
        others = f", {statistics.median(self.other_seconds):.2f} s each besides steps" if self.other_seconds else ""
        out = [f"{self.name}: {len(self.rows)} runs made{others}; {len(self.missing())} left"]
        steps = sorted(self.step_seconds.items())
        return out + [
            f"{self.name} batch {batch}: {1000 * statistics.median(all_s):.1f} ms a step" for batch, all_s in steps
        ]


class Board:
    """What is to be done and what is done; the one writer of the files. All processes share it.

    Args:
        deadline: no run is begun that would end after this (monotonic clock).
    """

    def __init__(self, surfaces: list[Surface], deadline: float):
        self.surfaces, self.deadline = surfaces, deadline
        self._changed = threading.Condition()
        self._num_under_way = 0

    def choose(self) -> Surface | None:
        """The surface that a free process shall work on: most open cells a process; None when none is open."""
        with self._changed:
            open_cells = {surface.name: len(self._open(surface)) for surface in self.surfaces}
            best = max(self.surfaces, key=lambda one: open_cells[one.name] / (one.num_processes + 1))
            if not open_cells[best.name]:
                return None
            best.num_processes += 1
            return best

    def leave(self, surface: Surface) -> None:
        """A process no longer works on this surface."""
        with self._changed:
            surface.num_processes -= 1

    def is_needed_elsewhere(self) -> bool:
        """True when a surface has open cells; asked by a process whose own has none for now."""
        with self._changed:
            return any(self._open(surface) for surface in self.surfaces)

    def take(self, surface: Surface) -> Cell | None:
        """The next cell that can be measured in time; None when there is none for now."""
        with self._changed:
            cell = next(iter(self._open(surface)), None)
            if cell is not None:
                surface.taken.add(cell.key)
                self._num_under_way += 1
            return cell

    def put(self, surface: Surface, row: Mapping[str, object], *, times: list[float], wall_s: float) -> None:
        """Write the row of a finished run that reported its steps at these times."""
        with self._changed:
            append(surface.file, row)
            surface.rows.append({name: str(value) for name, value in row.items()})
            if len(times) > 1:
                stepping_s = times[-1] - times[0]
                surface.step_seconds[int(str(row["bs"]))].append(stepping_s / (len(times) - 1))
                surface.other_seconds.append(wall_s - stepping_s)

    def ended(self) -> None:
        """A run is no longer under way; a cell that failed stays taken."""
        with self._changed:
            self._num_under_way -= 1
            self._changed.notify_all()

    def wait(self) -> bool:
        """Wait until a run ends, which may open cells of a further seed; False when none is under way."""
        with self._changed:
            if not self._num_under_way:
                return False
            self._changed.wait(timeout=1.0)
            return True

    def _open(self, surface: Surface) -> list[Cell]:
        left = self.deadline - time.monotonic()
        free = (cell for cell in surface.missing() if cell.key not in surface.taken)
        return [cell for cell in free if TIME_RESERVE * surface.expected_seconds(cell) < left]


class Process(threading.Thread):
    """Keeps one worker process busy: chooses a surface, starts a worker for it, and feeds it cell after cell."""

    def __init__(self, board: Board, folder: Path):
        super().__init__(daemon=True)
        self.fault: str | None = None
        self._board, self._folder = board, folder
        self._executor: LocalExecutor | None = None
        self._is_ending = False
        self._number = 0

    def run(self) -> None:
        """Work until nothing is open; a fault ends this process, not the others."""
        try:
            while not self._is_ending:
                surface = self._board.choose()
                if surface is not None:
                    self._work(surface)
                elif not self._board.wait():
                    return
        except FinestepError as error:
            self.fault = None if self._is_ending else str(error)

    def end(self) -> None:
        """End the worker now; the run that it is at is lost."""
        self._is_ending = True
        if self._executor is not None:
            self._executor.kill()

    def _work(self, surface: Surface) -> None:
        folder = self._folder / surface.name
        session = surface.session.model_copy(update={"study_dir": str(folder)})
        self._executor = LocalExecutor(session, folder=folder)
        try:
            ready = self._executor.start()
            surface.run_rows = ready["card"]["facts"]["num_rows"] * session.recipe.num_epochs
            while not self._is_ending:
                if (cell := self._board.take(surface)) is not None:
                    self._measure(surface, cell, ready)
                elif self._board.is_needed_elsewhere() or not self._board.wait():
                    return
        finally:
            self._board.leave(surface)
            self._executor.close()

    def _measure(self, surface: Surface, cell: Cell, ready: Mapping) -> None:
        assert self._executor is not None
        began, self._number = time.monotonic(), self._number + 1
        recipe = recipe_of(surface.plan, surface.session.recipe, cell)
        folder = self._folder / surface.name / "trials" / str(self._number)
        self._executor.submit(
            TrialRequest(
                number=self._number,
                recipe=recipe,
                fidelity=cell.fidelity,
                folder=str(folder),
                checkpoint_every_s=NO_CHECKPOINT_S,
            )
        )
        try:
            end, times = self._listen()
            if end.kind != "finished":
                raise FinestepError(f"{surface.name}, {cell}: the worker {end.kind}: {end.data}")
            row = row_of(surface.name, cell, recipe, Outcome.model_validate(end.data), ready)
            self._board.put(surface, row, times=times, wall_s=time.monotonic() - began)
        finally:
            self._board.ended()
            shutil.rmtree(folder, ignore_errors=True)

    def _listen(self) -> tuple[Event, list[float]]:
        """(the event that ends a run, when its steps were reported)."""
        assert self._executor is not None
        times, end = [], Event(kind="died")
        for event in self._executor.events():
            if event.kind == "step":
                times.append(time.monotonic())
            elif event.kind in {"finished", "interrupted", "died"}:
                end = event
        return end, times


def main() -> None:
    options = _options()
    deadline = time.monotonic() + 60 * options.minutes
    board = Board([_surface(name, options) for name in options.plans], deadline)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        faults = measure(board, folder=Path(folder), num_processes=options.processes)
    lines = [line for surface in board.surfaces for line in surface.lines()]
    print("\n".join([*lines, *(f"fault: {fault}" for fault in faults)]), flush=True)
    raise SystemExit(1 if faults else 0)


def measure(board: Board, *, folder: Path, num_processes: int) -> list[str]:
    """Make the runs that are missing, until the time is up; what went wrong, in words."""
    processes = [Process(board, folder / str(number)) for number in range(num_processes)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(max(0.0, board.deadline - time.monotonic()))
    for process in processes:
        process.end()
    for process in processes:
        process.join()
    return [process.fault for process in processes if process.fault]


def _surface(name: str, options: argparse.Namespace) -> Surface:
    plan = json.loads(options.plan_file.read_text(encoding="utf-8"))[name]
    data = _place(plan["data"], options.data, "--data", SHIPPED / "instruct.jsonl")
    model = _place(plan.get("model", "shipped"), options.model, "--model", SHIPPED / "base")
    session = SessionRequest(
        model=ModelSpec(path=model, device=options.device or plan.get("device", "cpu")),
        data=DataSpec(path=data, **plan.get("data_spec", {})),
        recipe=Recipe.model_validate(plan["recipe"]),
        study_dir="",
        num_threads=options.threads,
        pack=1,
    )
    file = options.out / f"{name}.csv"
    return Surface(name, plan, session, file, rows=read(file))


def _place(name: str, named: list[str], option: str, shipped: Path) -> str:
    """The path that was given for a name of the plan."""
    given = dict(pair.split("=", 1) for pair in named)
    if name not in given and name != "shipped":
        raise SystemExit(f"say where it is: {option} {name}=PATH")
    return given.get(name, str(shipped))


def recipe_of(plan: Mapping, recipe: Recipe, cell: Cell) -> Recipe:
    """The recipe of a cell; a plan may allow larger micro-batches than the default, which changes no sum."""
    changes: dict[str, object] = {"seed": cell.seed}
    if "micro_batch" in plan:
        changes["micro_batch_size"] = min(plan["micro_batch"], cell.batch)
    return recipe.changed(learning_rate=cell.learning_rate, effective_batch_size=cell.batch, **changes)


def cells(plan: Mapping, rows: list[dict[str, str]]) -> Iterator[Cell]:
    """All cells in the order in which they are measured: the grid at the first seed, then what is due a further seed.

    Lengths come in the order of the plan. With `core_rates` [lowest, highest] the rates between them come first, at all lengths,
    and then the others from there outward, so that a grid that is cut off is whole in its middle.
    """
    rates = plan["learning_rates"]
    low, high = plan.get("core_rates", (rates[0], rates[-1]))
    tiers = [max(sum(rate < one <= low for one in rates), sum(high <= one < rate for one in rates)) for rate in rates]
    for tier in sorted(set(tiers)):
        for fidelity in plan["fidelities"]:
            for rate in (one for one, place in zip(rates, tiers, strict=True) if place == tier):
                for batch in plan["batches"]:
                    yield Cell(rate, batch, fidelity, plan["seeds"][0])
    yield from near_best(plan, rows)


def near_best(plan: Mapping, rows: list[dict[str, str]]) -> Iterator[Cell]:
    """The cells around the best one of each length that is complete, with the further seeds."""
    rates, batches = plan["learning_rates"], plan["batches"]
    for fidelity in plan["fidelities"]:
        here = [row for row in rows if _is(row, fidelity, plan["seeds"][0])]
        if len(here) < len(rates) * len(batches):
            continue
        best = min((row for row in here if row["loss"]), key=lambda row: float(row["loss"]), default=None)
        if best is None:
            continue
        i = min(range(len(rates)), key=lambda k: abs(rates[k] - float(best["lr"])))
        j = batches.index(int(best["bs"]))
        reach = NEAR_BEST if fidelity == 1.0 else 0
        for seed in plan["seeds"][1:]:
            for rate in rates[max(0, i - reach) : i + reach + 1]:
                for batch in batches[max(0, j - reach) : j + reach + 1]:
                    yield Cell(rate, batch, fidelity, seed)


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
        "versions": _versions(machine),
    }


def _versions(machine: Mapping) -> str:
    """What computed a row: versions, and the GPU and the precision of the base's weights where it was not the CPU."""
    parts = [f"finestep {finestep.__version__}", *(f"{name} {_version(name)}" for name in ("torch", "transformers"))]
    if machine["device"] != "cpu":
        parts += [machine["device_name"] or machine["device"], f"{machine['dtype']} weights"]
    return "; ".join(parts)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "of an unknown version"


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
    parser.add_argument("plans", nargs="+", metavar="PLAN", help="names of plans in the plan file")
    parser.add_argument("--plan-file", type=Path, default=PLANS)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", action="append", default=[], metavar="NAME=PATH")
    parser.add_argument("--model", action="append", default=[], metavar="NAME=PATH")
    parser.add_argument("--device", help="cpu, cuda or mps; default: the plan's, else cpu")
    parser.add_argument("--processes", type=int, default=1, help="workers on the device at the same time")
    parser.add_argument("--minutes", type=float, default=60.0, help="it ends then, start-up included")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of a worker")
    return parser.parse_args()


if __name__ == "__main__":
    main()
