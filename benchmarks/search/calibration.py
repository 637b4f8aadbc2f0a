"""Is what the search states true? `python -m benchmarks.search.calibration --surfaces DIR --seeds N --prior off4`.

Each run is stopped by the search's own rule (or after `--budget` full runs); then its stated 80 % interval for the best
learning rate at the chosen batch size is held against the best measured rate of that row, and its stated expected
regret against the measured regret of the choice. A measured best was also lucky; where the surfaces are made up,
`--truth DIR` names the same ones without noise, and both are read there.
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.search.engines import PRIORS, Finestep, prior_centre
from benchmarks.search.simulate import Clock
from benchmarks.search.surfaces import Task, load_tasks


@dataclass(frozen=True)
class Check:
    """One finished run: was the best rate inside, how wide was the interval, what was promised and what was true."""

    inside: bool
    octaves: float
    promised: float
    true: float
    cost: float


class _Stopping(Finestep):
    """The search with its own stopping rule."""

    def __init__(self, task: Task, seed: int, prior: str):
        super().__init__(task, prior_centre(task, prior, seed), seed)
        self._search = replace(self._search, stop_below=0.05)


def check(task: Task, truth: Task, seed: int, prior: str, budget: float) -> Check | None:
    """One run on a surface, held against the true one; None when no full run finished."""
    engine = _Stopping(task, seed, prior)
    Clock(replace(task, targets=(-1.0,)), engine, 1, budget).run()
    finished, answer = engine.ended, engine.answer()
    rate = answer.rate
    if answer.trial is None or rate is None:
        return None
    chosen = finished[answer.trial].recipe
    batch = math.log2(chosen.effective_batch_size)
    row = [cell for cell in truth.full if cell.value is not None and abs(cell.point[1] - batch) < 0.02]
    best = min(row, key=lambda cell: cell.value or math.inf)
    here = min(row, key=lambda cell: abs(cell.point[0] - math.log2(chosen.learning_rate)))
    return Check(
        inside=math.log2(rate.low) - 1e-6 <= best.point[0] <= math.log2(rate.high) + 1e-6,
        octaves=math.log2(rate.high / rate.low),
        promised=answer.expected_regret or 0.0,
        true=truth.regret(here.value),
        cost=sum(trial.fidelity for trial in finished),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--surfaces", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--prior", choices=PRIORS, default="off4")
    parser.add_argument("--budget", type=float, default=8.0)
    parser.add_argument("--truth", type=Path, help="the same surfaces without noise")
    args = parser.parse_args()
    every: list[Check] = []
    truths = {task.name: task for task in load_tasks(args.truth)} if args.truth else {}
    for task in (task for task in load_tasks(args.surfaces) if task.kind == "grid"):
        truth = truths.get(task.name, task)
        found = [check(task, truth, seed, args.prior, args.budget) for seed in range(args.seeds)]
        kept = [one for one in found if one is not None]
        print(_line(task.name, kept))
        every += kept
    print(_line("all", every))


def _line(name: str, checks: list[Check]) -> str:
    inside = np.mean([one.inside for one in checks])
    means = [float(np.mean([getattr(one, key) for one in checks])) for key in ("octaves", "promised", "true")]
    cost = float(np.median([one.cost for one in checks]))
    return (
        f"{name:10s} n={len(checks)} inside the 80 % interval {inside:.0%} (mean width {means[0]:.2f} octaves); "
        f"regret stated {means[1]:.3f} %, true {means[2]:.3f} %; stopped after {cost:.2f} full runs (median)"
    )


def call_time(trials: int = 100) -> float:
    """Processor seconds of one proposal with many trials behind it (median of five, after one to warm up)."""
    from finestep.search.ask_tell import ended, recipe_of
    from finestep.search.space import SearchSpace
    from finestep.search.strategy import Proposal
    from finestep.search.structured import StructuredSearch
    from finestep.trial import Trial

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
