"""`python -m benchmarks.search --surfaces DIR --seeds N --workers W --engines a,b --prior off4 --json OUT`."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.search.engines import PRIORS, Finestep, Random, Sweep, prior_centre
from benchmarks.search.peers import PEERS, installed, is_peer, make_peer
from benchmarks.search.report import plot, print_table
from benchmarks.search.simulate import Clock, Mark, cost_to
from benchmarks.search.surfaces import Task, load_tasks, offset_box, stable_hash
from finestep.errors import FinestepError

OWN: dict[str, Callable[..., Any]] = {
    "finestep": Finestep,
    "finestep_full": lambda *a: Finestep(*a, full_only=True),
    "finestep_half_exponents": lambda *a: Finestep(*a, rate_exponent=-0.1, batch_exponent=0.225),
    "finestep_double_exponents": lambda *a: Finestep(*a, rate_exponent=-0.4, batch_exponent=0.9),
    "finestep_wrong_sign": lambda *a: Finestep(*a, rate_exponent=0.2, batch_exponent=-0.45),
    "random": Random,
    "sweep": Sweep,
}


def main() -> int:
    args = _arguments()
    try:
        tasks = [task for task in load_tasks(args.surfaces) if not args.kinds or task.kind in args.kinds.split(",")]
        tasks = [task for task in tasks if not args.tasks or any(word in task.name for word in args.tasks.split(","))]
        rows, marks = _run(args, tasks)
    except FinestepError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    if args.json:
        args.json.write_text("\n".join(json.dumps(row) for row in rows) + "\n", encoding="utf-8")
    print_table(rows, tasks)
    if args.plot:
        plot(marks, args.plot)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.search", description=__doc__)
    parser.add_argument("--surfaces", type=Path, required=True, help="folder of CSV files (see surfaces.py)")
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--engines", default="finestep,finestep_full,random,sweep,tpe")
    parser.add_argument("--prior", choices=PRIORS, default="off4")
    parser.add_argument("--box", choices=("offset", "measured"), default="offset", help="offset: cut off-centre by seed")
    parser.add_argument("--budget", type=float, default=30.0, help="full runs until a row is censored")
    parser.add_argument("--kinds", default="", help="only grid, adapter or pool")
    parser.add_argument("--tasks", default="", help="only tasks whose name holds one of these words")
    parser.add_argument("--json", type=Path, help="one JSON object a line")
    parser.add_argument("--plot", type=Path, help="an image of regret against cost")
    return parser.parse_args()


def _run(args: argparse.Namespace, tasks: list[Task]) -> tuple[list[dict[str, object]], list[tuple[str, list[Mark]]]]:
    rows: list[dict[str, object]] = []
    curves: list[tuple[str, list[Mark]]] = []
    for name in _engines(args.engines):
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


def _engines(names: str) -> Iterator[str]:
    for name in filter(None, names.split(",")):
        if name in OWN or (is_peer(name) and installed(name)):
            yield name
        elif is_peer(name):
            print(f"{name}: its package is not installed; left out", file=sys.stderr)
        else:
            raise SystemExit(f"unknown engine `{name}`; known: {', '.join([*OWN, *PEERS])}")


def _rows(name: str, task: Task, seed: int, args: argparse.Namespace, marks: list[Mark]) -> Iterator[dict[str, object]]:
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
        }


if __name__ == "__main__":
    raise SystemExit(main())
