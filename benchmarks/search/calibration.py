"""Is what `tune` states true? `python -m benchmarks.search.calibration --surfaces DIR [--seeds N] [--write PAGE]`.

The strategy of `tune` plays recorded surfaces to budgets of 1, 2, 3, 4 and 6 full runs. Its 80 % interval for the best learning rate
at the chosen batch size is held against the best measured rate of that row, and its stated regret, where it states one, against the
measured regret of its choice. Priors: `held-out`, whose centre is as far off as held-out evidence said of the first recommendations (a
quarter beyond a factor of 4), and `none`, which may lie anywhere in the box. Every surface counts once, and the number of
surfaces stands behind each figure: seeds vary the prior, not the surface.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.pages import table, write_into
from benchmarks.search.engines import FROM_OTHER_DATA, finished_trial, recipe_at, space_of
from benchmarks.search.recorded import best_of_row
from benchmarks.search.simulate import Clock, Wish
from benchmarks.search.surfaces import Cell, Task, load_tasks, stable_hash
from finestep.answer import Answer
from finestep.recipe import Recipe
from finestep.search.prior import SearchPrior
from finestep.search.search import Search
from finestep.study import DataSpec, ModelSpec, SearchSpec, StudySpec
from finestep.trial import Trial

BUDGETS = (1.0, 2.0, 3.0, 4.0, 6.0)
PRIORS = ("held-out", "none")
HELD_OUT_SD = 2 / 1.1503
"""Octaves: a normal error with a quarter beyond a factor of 4."""
STATED_SD, BATCH_SD = 1.6, 1.2
"""What `recommend` states of its rate (0.33 dex), and what `tune` takes for the batch."""


@dataclass(frozen=True)
class Check:
    """One finished run: was the best rate inside, how wide the interval, what was promised and what was true (%), and was it settled."""

    inside: bool
    octaves: float
    promised: float | None
    true: float
    settled: bool


class Tuned:
    """The strategy of `tune` as an engine, with the budget that a user gave."""

    def __init__(self, task: Task, seed: int, prior: str, budget: float):
        spec = StudySpec(
            name=task.name,
            model=ModelSpec(path="recorded"),
            data=DataSpec(path="recorded"),
            recipe=Recipe(seed=seed),
            search=SearchSpec(strategy="auto", with_baseline=False),
        )
        self._task, self._budget = task, budget
        self._strategy = Search.of_study(spec, space_of(task), drawn_prior(task, prior, seed), budget_runs=budget)
        self._trials: list[Trial] = []

    def ask(self, idle: int) -> Wish | None:
        spent = sum(trial.fidelity for trial in self._trials)
        proposals = self._strategy.propose(self._trials, remaining_runs=max(self._budget - spent, 0.0))
        if not proposals:
            return None
        wanted, number = proposals[0], len(self._trials)
        point = (math.log2(wanted.learning_rate), math.log2(wanted.effective_batch_size))
        self._trials.append(Trial(number=number, recipe=recipe_at(point, self._task), fidelity=wanted.fidelity))
        return Wish(point, wanted.fidelity, number)

    def report(self, wish: Wish, cost: float, value: float | None) -> bool:
        return True

    def tell(self, wish: Wish, cell: Cell, value: float | None) -> None:
        number = int(wish.token)  # type: ignore[call-overload]
        self._trials[number] = finished_trial(self._trials[number], cell, value, self._task)

    @property
    def ended(self) -> list[Trial]:
        """The trials that are over."""
        return [trial for trial in self._trials if trial.state != "running"]

    def answer(self) -> Answer:
        """What a user would read."""
        return self._strategy.answer(self.ended)


def drawn_prior(task: Task, kind: str, seed: int) -> SearchPrior:
    """The best measured point, moved by a held-out error; or by one that is as wide as the box, and stays within it.

    The recorded grids lie about their best points. So a start near the middle of a box would be no start without knowledge.
    """
    rng = np.random.default_rng([seed, stable_hash(task.name)])
    shape = FROM_OTHER_DATA["finetuning" if task.is_finetuning else task.kind]
    if kind == "none":
        (low, high), (least, most) = task.bounds[:2]
        sds = ((high - low) / 3, max((most - least) / 3, 0.5))
        best = task.best_cell.point
        moved = (best[axis] + sds[axis] * rng.standard_normal() for axis in (0, 1))
        where = tuple(float(np.clip(one, *ends)) for one, ends in zip(moved, task.bounds[:2], strict=True))
    else:
        best = task.best_cell.point
        where = (best[0] + HELD_OUT_SD * rng.standard_normal(), best[1] + rng.standard_normal())
        sds = (STATED_SD, BATCH_SD)
    return SearchPrior(
        learning_rate=2 ** where[0], learning_rate_sd=sds[0], batch_size=2 ** where[1], batch_size_sd=sds[1], **shape
    )


def check(task: Task, truth: Task, seed: int, prior: str, budget: float) -> Check | None:
    """One run on a surface, held against the true one; None when no full run finished."""
    engine = Tuned(task, seed, prior, budget)
    Clock(task, engine, 1, budget + 1e-9, stop_when_found=False).run()
    answer = engine.answer()
    if answer.trial is None or answer.rate is None:
        return None
    chosen = engine.ended[answer.trial].recipe
    batch = math.log2(chosen.effective_batch_size)
    row = [cell for cell in truth.full if cell.value is not None and abs(cell.point[1] - batch) < 0.02]
    best = best_of_row({cell.point[0]: cell.value or math.inf for cell in row})
    here = min(row, key=lambda cell: abs(cell.point[0] - math.log2(chosen.learning_rate)))
    return Check(
        inside=math.log2(answer.rate.low) - 1e-6 <= best <= math.log2(answer.rate.high) + 1e-6,
        octaves=math.log2(answer.rate.high / answer.rate.low),
        promised=answer.expected_regret,
        true=truth.regret(here.value),
        settled=answer.settled,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--surfaces", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--priors", nargs="+", choices=PRIORS, default=PRIORS)
    parser.add_argument("--budgets", nargs="+", type=float, default=BUDGETS)
    parser.add_argument("--truth", type=Path, help="the same surfaces without noise")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the table into this page, between its marks")
    args = parser.parse_args()
    tasks = [task for task in load_tasks(args.surfaces) if task.kind == "grid"]
    truths = {task.name: task for task in load_tasks(args.truth)} if args.truth else {}
    print(f"{len(tasks)} surfaces, {args.seeds} priors each; every surface counts once")
    print(
        "prior      runs  inside 80 %  octaves  true %  settled: share, stated %, true %, ratio   stated / true by surface"
    )
    rows = []
    for prior in args.priors:
        for budget in args.budgets:
            found = play(prior, budget, tasks, truths, args.seeds)
            rows.append(cells(prior, budget, found))
            print(line(prior, budget, found), flush=True)
    if args.write:
        head = ("prior", "full runs", "inside 80 %", "width, octaves", "true regret, %", "settled", "stated / true, %")
        write_into(args.write, table(head, rows), name="search.calibration")


def play(
    prior: str, budget: float, tasks: Sequence[Task], truths: dict[str, Task], seeds: int
) -> dict[str, list[Check]]:
    """Surface -> its cases, for one prior and one budget."""
    cases = {
        task.name: [check(task, truths.get(task.name, task), seed, prior, budget) for seed in range(seeds)]
        for task in tasks
    }
    return {name: [one for one in checks if one] for name, checks in cases.items()}


def settled_of(found: dict[str, list[Check]]) -> dict[str, list[Check]]:
    """Only the cases that state a per cent."""
    return {name: [one for one in checks if one.settled] for name, checks in found.items()}


def line(prior: str, budget: float, found: dict[str, list[Check]]) -> str:
    """One row of the printed table: all cases, and apart those that state a per cent."""
    settled = settled_of(found)
    text = (
        f"{prior:10s}{budget:5g}{over(found, 'inside'):13.0%}{over(found, 'octaves'):9.1f}{over(found, 'true'):8.1f}"
        f"{over(found, 'settled'):15.0%}"
    )
    if not any(settled.values()):
        return text + "  none is stated"
    promised, true = over(settled, "promised"), over(settled, "true")
    by_surface = ", ".join(
        f"{name} {np.mean([c.promised for c in checks]):.1f} / {np.mean([c.true for c in checks]):.1f}"
        for name, checks in settled.items()
        if checks
    )
    return text + f"{promised:10.1f}{true:8.1f}{promised / max(true, 1e-9):7.2f}   {by_surface}"


def cells(prior: str, budget: float, found: dict[str, list[Check]]) -> tuple[str, ...]:
    """The same row for the documentation."""
    settled = settled_of(found)
    is_stated = any(settled.values())
    stated = f"{over(settled, 'promised'):.1f} / {over(settled, 'true'):.1f}" if is_stated else "none is stated"
    share = f"{over(found, 'settled'):.0%}" if is_stated else "never"
    widths = (f"{over(found, 'inside'):.0%}", f"{over(found, 'octaves'):.1f}", f"{over(found, 'true'):.1f}")
    return (prior, f"{budget:g}", *widths, share, stated)


def over(found: dict[str, list[Check]], name: str) -> float:
    """The mean over surfaces of the mean over their cases."""
    return float(np.mean([np.mean([getattr(one, name) for one in checks]) for checks in found.values() if checks]))


def call_time(trials: int = 100) -> float:
    """Processor seconds of one proposal with many trials behind it (median of five, after one to warm up)."""
    from finestep.search.ask_tell import ended, recipe_of
    from finestep.search.space import SearchSpace
    from finestep.search.strategy import Proposal
    from finestep.search.structured import StructuredSearch

    space = SearchSpace.between((1e-5, 1e-3), (8, 256), fidelities=(0.125, 0.35, 1.0))
    rng = np.random.default_rng(0)
    done = []
    for number in range(trials):
        wish = Proposal(
            learning_rate=float(rng.choice(space.learning_rates)),
            effective_batch_size=int(rng.choice(space.batch_sizes)),
            fidelity=float(rng.choice(space.fidelities)),
            stage="timing",
        )
        trial = Trial(number=number, recipe=recipe_of(wish), fidelity=wish.fidelity)
        done.append(ended(trial, 2.0 + 0.01 * float(rng.random())))
    search = StructuredSearch(space)
    spent = []
    for _ in range(6):
        began = time.process_time()
        search.propose(done, remaining_runs=10)
        spent.append(time.process_time() - began)
    return float(np.median(spent[1:]))


if __name__ == "__main__":
    main()
    print(f"one call with 100 trials: {1000 * call_time():.0f} ms")
