"""`python -m benchmarks.search --surfaces DIR --seeds N --workers W --engines a,b --prior off4 --json OUT`.

OUT is a JSON array with one row per engine, task, seed and target (JSON lines where its name ends in `.jsonl`):
`{engine, task, seed, prior, workers, target, cost}`, and `wall` (the simulated clock) and `box`. `cost` and `wall` are in
full runs, null where the target was not reached within the budget. `--with FILE` adds the rows of earlier runs to the
table, so that slow peers are played once (those that are told nothing of the prior once for all priors).
`--against ENGINE` adds the mean difference to that engine, task by task and seed by seed, with its 90 % interval: medians
of costs that are nearly whole numbers jump.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.search.engines import PRIORS, Finestep, Oracle, Random, Sweep, Told, prior_centre
from benchmarks.search.peers import PEERS, installed, is_peer, make_peer
from benchmarks.search.report import plot, print_differences, print_table
from benchmarks.search.simulate import Clock, Mark, cost_to
from benchmarks.search.surfaces import Task, load_tasks, offset_box, stable_hash
from finestep.errors import BadInput, FinestepError

OWN: dict[str, Callable[..., Any]] = {
    "finestep": Finestep,
    "finestep_full": lambda *a: Finestep(*a, full_only=True),
    "finestep_half_exponents": lambda *a: Finestep(*a, exponents=0.5),
    "finestep_double_exponents": lambda *a: Finestep(*a, exponents=2.0),
    "finestep_wrong_sign": lambda *a: Finestep(*a, exponents=-1.0),
    "oracle": Oracle,
    "random": Random,
    "sweep": Sweep,
    "told": Told,
    "told_half_exponents": lambda *a: Told(*a, exponents=0.5),
    "told_double_exponents": lambda *a: Told(*a, exponents=2.0),
    "told_wrong_sign": lambda *a: Told(*a, exponents=-1.0),
}
Row = dict[str, object]


def main() -> int:
    args = _arguments()
    try:
        names = list(_engines(args.engines))
        tasks = _tasks(args)
        earlier = [row for path in args.earlier for row in read_rows(path) if _belongs(row, args, tasks)]
        known = {*names, *(str(row["engine"]) for row in earlier)}
        if args.against and args.against not in known:
            raise BadInput(f"`--against` must be in the table: {', '.join(sorted(known))}", value=args.against)
        rows, curves = _run(args, names, tasks)
    except FinestepError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    if args.json:
        write_rows(args.json, rows)
    print_table([*rows, *earlier], tasks)
    if args.against:
        print_differences([*rows, *earlier], tasks, args.against)
    if args.plot:
        plot(curves, args.plot)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.search", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--surfaces", type=Path, required=True, help="folder of CSV files (see surfaces.py)")
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--engines", default="finestep,finestep_full,random,sweep,tpe", help=f"of {_known()}")
    parser.add_argument("--prior", choices=PRIORS, default="off4")
    parser.add_argument(
        "--box", choices=("offset", "measured"), default="offset", help="offset: cut off-centre by seed"
    )
    parser.add_argument("--budget", type=float, default=30.0, help="full runs until a row is censored")
    parser.add_argument("--kinds", default="", help="only grid, adapter or pool")
    parser.add_argument("--tasks", default="", help="only tasks whose name holds one of these words")
    parser.add_argument(
        "--targets", type=float, nargs="+", help="regrets that count, in %% or points (noisy surfaces want wide ones)"
    )
    parser.add_argument("--json", type=Path, help="where the rows go")
    parser.add_argument("--with", dest="earlier", type=Path, action="append", default=[], help="rows of an earlier run")
    parser.add_argument("--against", default="", help="an engine of the table that the others are compared with")
    parser.add_argument("--plot", type=Path, help="an image of regret against cost (needs matplotlib)")
    return parser.parse_args()


def _known() -> str:
    return ", ".join([*OWN, *PEERS]) + "; a peer with `+start` begins at the prior's centre"


def _tasks(args: argparse.Namespace) -> list[Task]:
    tasks = [task for task in load_tasks(args.surfaces) if not args.kinds or task.kind in args.kinds.split(",")]
    kept = [task for task in tasks if not args.tasks or any(word in task.name for word in args.tasks.split(","))]
    if not kept:
        raise BadInput("`--kinds` and `--tasks` must leave a task", value=[task.name for task in tasks])
    return [replace(task, targets=tuple(args.targets)) for task in kept] if args.targets else kept


def _engines(names: str) -> Iterator[str]:
    for name in filter(None, names.split(",")):
        if name in OWN or (is_peer(name) and installed(name)):
            yield name
        elif is_peer(name):
            print(f"{name}: its package is not installed; left out", file=sys.stderr)
        else:
            raise BadInput(f"engines must be among {_known()}", value=name, place="--engines")


def _run(
    args: argparse.Namespace, names: list[str], tasks: list[Task]
) -> tuple[list[Row], list[tuple[str, list[Mark]]]]:
    rows: list[Row] = []
    curves: list[tuple[str, list[Mark]]] = []
    for name in names:
        for task in tasks:
            began = time.perf_counter()
            for seed in range(args.seeds):
                marks = play(name, offset_box(task, seed) if args.box == "offset" else task, seed, args)
                curves.append((name, marks))
                rows.extend(_rows(name, task, seed, args, marks))
            print(f"{name} {task.name} {time.perf_counter() - began:.1f} s", file=sys.stderr, flush=True)
    return rows, curves


def play(name: str, task: Task, seed: int, args: argparse.Namespace) -> list[Mark]:
    """One engine on one task; seeds differ between tasks, so that no lucky first point counts everywhere."""
    centre = prior_centre(task, args.prior, seed)
    own_seed = (stable_hash(task.name) + seed) % 2**31
    engine = OWN[name](task, centre, own_seed) if name in OWN else make_peer(name, task, centre, own_seed)
    return Clock(task, engine, args.workers, args.budget).run()


def _rows(name: str, task: Task, seed: int, args: argparse.Namespace, marks: list[Mark]) -> Iterator[Row]:
    for target in task.targets:
        mark = cost_to(marks, target)
        yield {
            "engine": name,
            "task": task.name,
            "seed": seed,
            "prior": args.prior,
            "workers": args.workers,
            "target": target,
            "cost": None if mark is None else round(mark.cost, 4),
            "wall": None if mark is None else round(mark.wall, 4),
            "box": args.box,
        }


def write_rows(path: Path, rows: list[Row]) -> None:
    """A JSON array with a row a line, or JSON lines."""
    lines = [json.dumps(row) for row in rows]
    text = "\n".join(lines) if path.suffix == ".jsonl" else "[\n" + ",\n".join(lines) + "\n]"
    path.write_text(text + "\n", encoding="utf-8")


def read_rows(path: Path) -> list[Row]:
    """Rows that `write_rows` wrote, in either form."""
    text = path.read_text(encoding="utf-8")
    return json.loads(text) if text.startswith("[") else [json.loads(line) for line in text.splitlines() if line]


def _belongs(row: Row, args: argparse.Namespace, tasks: list[Task]) -> bool:
    """True for an earlier row of this protocol; an engine that is told nothing of the prior plays the same for each."""
    same = (row["workers"], row.get("box")) == (args.workers, args.box) and row["task"] in {task.name for task in tasks}
    return same and (row["prior"] == args.prior or _is_blind(str(row["engine"])))


def _is_blind(name: str) -> bool:
    return name in ("oracle", "random") or (name not in OWN and not name.endswith("+start"))


if __name__ == "__main__":
    raise SystemExit(main())
