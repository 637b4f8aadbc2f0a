"""Measure fine-tuning surfaces: final validation loss over learning rate x batch size x length, one CSV row a run.

python measure.py PLAN ... --out DIR [--minutes 8] [--processes 1] [--device cpu] [--data NAME=PATH ...] [--model NAME=PATH ...]
python measure.py TASK ... --tasks DATA MADE --out DIR      (tasks.json; `all`: every task, the cheapest of each half in turn)
python measure.py TASK ... --tasks DATA MADE --out DIR --status     (what is measured and what is missing; trains nothing)

Every run is a whole short run with its own schedule, by the project's own worker, at equal tokens for all batch sizes. A process
is a worker of its own on the device, and goes to the next plan when its plan is complete. The files are append-only: rows that are
there are not run again, so the script may be killed and started at will, and it ends at its deadline by itself. The format is what
`python -m benchmarks.search --surfaces DIR` reads (one file per data set and method).
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import statistics
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from grid import Cell, axes, best_cell, cell_of, cells
from tasks import by_cost, plan_of, read_tasks

import finestep
from finestep.errors import FinestepError
from finestep.executors.local import LocalExecutor
from finestep.protocol import Event, SessionRequest, TrialRequest
from finestep.ready import Ready
from finestep.recipe import Recipe
from finestep.study import DataSpec, ModelSpec
from finestep.trial import Outcome
from rows import append, read, row_of

SHIPPED = Path(finestep.__file__).parent / "shipped"
PLANS = Path(__file__).with_name("plans.json")
NO_CHECKPOINT_S = 1e9
"""A run that is cut off begins anew, so checkpoints would be wasted."""
TIME_RESERVE = 1.2
"""A run is begun when so many times its expected seconds are left."""


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
    fault: str | None = None
    """Why it cannot be measured, in words; no further run of it is begun."""
    everywhere: bool = False
    """A second seed at all cells, not only near the best."""
    run_rows: int = 0
    """Training rows of a full-length run; 0 until a worker has read the data."""
    step_seconds: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))
    """Batch size -> seconds a step of each finished run."""
    other_seconds: list[float] = field(default_factory=list)
    """What each finished run took besides its steps: evaluations and saving."""

    def missing(self) -> list[Cell]:
        """Cells that are not measured, in their order."""
        done = {cell_of(row).key for row in self.rows}
        return [cell for cell in cells(self.plan, self.rows, everywhere=self.everywhere) if cell.key not in done]

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
        """The surface that a free process shall work on: the first that has open cells and no process yet, else the one with
        most open cells a process; None when none is open."""
        with self._changed:
            open_cells = {surface.name: len(self._open(surface)) for surface in self.surfaces}
            free = (one for one in self.surfaces if open_cells[one.name] and not one.num_processes)
            most = max(self.surfaces, key=lambda one: open_cells[one.name] / (one.num_processes + 1))
            best = next(free, most)
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
        if surface.fault:
            return []
        left = self.deadline - time.monotonic()
        free = (cell for cell in surface.missing() if cell.key not in surface.taken)
        return [cell for cell in free if TIME_RESERVE * surface.expected_seconds(cell) < left]


@dataclass
class Run:
    """A cell that a worker has."""

    number: int
    cell: Cell
    recipe: Recipe
    folder: Path
    began: float
    times: list[float] = field(default_factory=list)
    """When each of its steps was reported."""


class Process(threading.Thread):
    """Keeps one worker process busy: chooses a surface, starts a worker for it, and feeds it cell after cell."""

    def __init__(self, board: Board, folder: Path):
        super().__init__(daemon=True)
        self._board, self._folder = board, folder
        self._executor: LocalExecutor | None = None
        self._is_ending = False
        self._number = 0

    def run(self) -> None:
        """Work until nothing is open; a surface that cannot be measured is left, and the others are not."""
        while not self._is_ending:
            surface = self._board.choose()
            if surface is None and not self._board.wait():
                return
            if surface is not None:
                try:
                    self._work(surface)
                except FinestepError as error:
                    surface.fault = None if self._is_ending else str(error)

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
            surface.run_rows = ready.card.facts.num_rows * session.recipe.num_epochs
            while not self._is_ending:
                if not self._measure(surface, ready) and (self._board.is_needed_elsewhere() or not self._board.wait()):
                    return
        finally:
            self._board.leave(surface)
            self._executor.close()

    def _measure(self, surface: Surface, ready: Ready) -> bool:
        """Keep the worker's lanes busy until there is nothing to do for now; False when there was nothing at all."""
        assert self._executor is not None
        runs: dict[int, Run] = {}
        try:
            if not self._fill(surface, runs):
                return False
            for event in self._executor.events():
                run = runs.get(event.trial) if event.trial is not None else None
                if event.kind == "step" and run is not None:
                    run.times.append(time.monotonic())
                elif event.kind == "finished" and run is not None:
                    self._finish(surface, runs.pop(run.number), event, ready)
                    self._fill(surface, runs)
                elif event.kind in {"interrupted", "died"}:
                    raise FinestepError(f"{surface.name}: the worker {event.kind}: {event.data}")
            return True
        finally:
            for _ in runs:
                self._board.ended()

    def _fill(self, surface: Surface, runs: dict[int, Run]) -> bool:
        """Give the worker what its lanes have room for; True when it has something to do."""
        assert self._executor is not None
        while len(runs) < surface.plan.get("lanes", 1) and (cell := self._board.take(surface)) is not None:
            self._number += 1
            recipe = recipe_of(surface.plan, surface.session.recipe, cell)
            folder = self._folder / surface.name / "trials" / str(self._number)
            runs[self._number] = Run(self._number, cell, recipe, folder, time.monotonic())
            request = TrialRequest(
                number=self._number,
                recipe=recipe,
                fidelity=cell.fidelity,
                folder=str(folder),
                checkpoint_every_s=NO_CHECKPOINT_S,
            )
            self._executor.submit(request)
        return bool(runs)

    def _finish(self, surface: Surface, run: Run, event: Event, ready: Ready) -> None:
        row = row_of(surface.name, run.cell, run.recipe, Outcome.model_validate(event.data), ready)
        self._board.put(surface, row, times=run.times, wall_s=time.monotonic() - run.began)
        self._board.ended()
        shutil.rmtree(run.folder, ignore_errors=True)


def main() -> None:
    options = _options()
    deadline = time.monotonic() + 60 * options.minutes
    names = by_cost(read_tasks()) if options.plans == ["all"] else options.plans
    surfaces = [_surface(name, options) for name in names]
    if options.status:
        print("\n".join(status(surface) for surface in surfaces))
        return
    board = Board(surfaces, deadline)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        faults = measure(board, folder=Path(folder), num_processes=options.processes)
    lines = [line for surface in board.surfaces if surface.step_seconds for line in surface.lines()]
    print("\n".join([*lines, *(f"fault: {fault}" for fault in faults)]), flush=True)
    raise SystemExit(1 if faults else 0)


def status(surface: Surface) -> str:
    """One line: runs made and missing. Where the best cell lies is not said: half of the tasks are not to be looked at."""
    missing = len(surface.missing())
    rates, batches = axes(surface.plan, surface.rows)
    is_whole = best_cell(surface.plan, surface.rows, rates, batches, 1.0) is not None
    where = f"full length {len(rates)} x {len(batches)}{'' if is_whole else ', not whole'}"
    seconds = sum(float(row["seconds"]) for row in surface.rows)
    return f"{surface.name:32} {len(surface.rows):4} made {missing:4} missing {seconds:6.0f} s  {where}"


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
    return [f"{surface.name}: {surface.fault}" for surface in board.surfaces if surface.fault]


def _surface(name: str, options: argparse.Namespace) -> Surface:
    plan = _plan(name, options)
    session = SessionRequest(
        model=ModelSpec(path=plan["model_path"], device=options.device or plan.get("device", "cpu")),
        data=DataSpec(**plan["data_spec"]),
        recipe=Recipe.model_validate(plan["recipe"]),
        study_dir="",
        num_threads=options.threads,
        pack=plan.get("lanes", 1),
    )
    file = options.out / f"{name}.csv"
    return Surface(name, plan, session, file, rows=read(file), everywhere=options.everywhere)


def _plan(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """The plan of a name, with the paths of its model and data."""
    if options.tasks:
        data, made = options.tasks
        return plan_of(read_tasks()[name], data=data, made=made, shipped=SHIPPED)
    plan = json.loads(options.plan_file.read_text(encoding="utf-8"))[name]
    path = _place(plan["data"], options.data, "--data", SHIPPED / "instruct.jsonl")
    plan["data_spec"] = {"path": path, **plan.get("data_spec", {})}
    plan["model_path"] = _place(plan.get("model", "shipped"), options.model, "--model", SHIPPED / "base")
    return plan


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


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plans", nargs="+", metavar="PLAN", help="names of plans in the plan file")
    parser.add_argument("--plan-file", type=Path, default=PLANS)
    parser.add_argument("--tasks", type=Path, nargs=2, metavar=("DATA", "MADE"), help="the names are of tasks.json")
    parser.add_argument("--status", action="store_true", help="only say what is measured")
    parser.add_argument("--everywhere", action="store_true", help="a second seed at all cells, not only near the best")
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
