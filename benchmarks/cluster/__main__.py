"""What a study makes of many workers, by simulation: utilisation, the time to the answer, messages, proposals, and where it bends.

    python -m benchmarks.cluster [--workers 1,8,64] [--strategy random] [--runs-a-worker 4 | --budget 300] [--json OUT]

`random` and Optuna's samplers always have a trial for a free worker. `auto` fills the workers once, with half of its budget at most,
and then asks for what helps it; it ends when it knows. Several seeds are averaged.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.cluster.simulate import VirtualCluster, Weather, true_loss
from finestep.ready import DataCard
from finestep.recipe import Recipe
from finestep.search.strategy import Proposal, Strategy
from finestep.store.study_store import StudyStore
from finestep.studies.strategies import make_strategy
from finestep.studies.tuning import Tuning
from finestep.study import Budget, DataSpec, ModelSpec, SearchSpec, StartingPoint, StudySpec
from finestep.trial import Trial

NEAR_PERCENT = 0.1
"""A recipe whose true loss lies so near to the best is the answer."""


@dataclass
class Timed:
    """A strategy whose proposals are timed.

    Attributes:
        spent: (milliseconds of processor, proposals, trials that were known) of each call.
    """

    strategy: Strategy
    spent: list[tuple[float, int, int]] = field(default_factory=list)

    def propose(self, trials: Sequence[Trial], *, remaining_runs: float, max_proposals: int = 1) -> list[Proposal]:
        began = time.process_time()
        found = self.strategy.propose(trials, remaining_runs=remaining_runs, max_proposals=max_proposals)
        self.spent.append((1000 * (time.process_time() - began), len(found), len(trials)))
        return found


def study(workers: int, strategy: str, runs: float, weather: Weather, *, seed: int = 0) -> dict[str, float]:
    """One study from start to end."""
    start = StartingPoint(learning_rate=2e-4, learning_rate_sd=1.5, batch_size=16, batch_size_sd=1.0)
    spec = StudySpec(
        name="simulated",
        model=ModelSpec(path="simulated"),
        data=DataSpec(path="simulated"),
        recipe=Recipe(seed=seed),
        search=SearchSpec(strategy=strategy, start=start),
    )
    cluster, budget = VirtualCluster(workers, weather, seed=seed), Budget(full_runs=runs)
    spent: list[tuple[float, int, int]] = []

    def timed(card: DataCard) -> Strategy:
        return Timed(make_strategy(spec, card, budget=budget), spent)

    with tempfile.TemporaryDirectory() as place:
        store = StudyStore(Path(place) / "study", spec, {})
        began = time.process_time()
        tuning = Tuning(store, cluster, timed, budget)
        for _ in tuning.run():
            pass
        own = time.process_time() - began
        trials = store.trials()
        store.close()
    account, each = cluster.account, [cost / count for cost, count, _ in spent if count]
    best = min((t for t in trials if t.fidelity == 1 and t.outcome), key=lambda t: t.outcome.eval_loss)  # type: ignore[union-attr,arg-type,return-value]
    return {
        "workers": workers,
        "trials": len(trials),
        "distinct": len({(t.recipe.learning_rate, t.recipe.effective_batch_size, t.fidelity) for t in trials}),
        "full_runs": sum(trial.fidelity for trial in trials),
        "hours": account.end_s / 3600,
        "hours_to_answer": account.seconds_to(NEAR_PERCENT) / 3600,
        "regret_percent": 100 * math.log(true_loss(best.recipe) / true_loss(_ideal(best.recipe))),
        "utilisation": account.useful_s / (workers * account.end_s),
        "repeated_share": account.repeated_s / account.useful_s,
        "nodes_lost": account.num_lost,
        "messages_a_second": account.messages / account.end_s,
        "core_share": own / account.end_s,
        "proposal_ms_median": statistics.median(each),
        "proposal_ms_most": max(each),
        "end_ms_median": 1000 * statistics.median(account.fills),
        "end_ms_most": 1000 * max(account.fills),
    }


def _ideal(recipe: Recipe) -> Recipe:
    return recipe.changed(learning_rate=3e-4, effective_batch_size=16)


def averaged(found: Sequence[dict[str, float]]) -> dict[str, float]:
    """The mean of each figure; of a longest time the longest."""
    return {
        name: (max if name.endswith("_most") else statistics.fmean)([one[name] for one in found]) for name in found[0]
    }


def row(one: dict[str, float], *, alone_hours: float | None) -> str:
    """A line of the table; the ideal is the time of one worker, shared out, and never less than one run."""
    ideal = "-" if alone_hours is None else f"{alone_hours / one['workers']:.2f}"
    return (
        f"| {one['workers']:.0f} | {one['trials']:.0f} | {one['full_runs']:.1f} | {one['hours']:.2f} | {one['utilisation']:.0%} "
        f"| {one['hours_to_answer']:.2f} | {ideal} | {one['regret_percent']:.2f} | {one['messages_a_second']:.1f} "
        f"| {one['core_share']:.2%} | {one['proposal_ms_median']:.1f} | {one['proposal_ms_most']:.0f} | {one['end_ms_median']:.0f} |"
    )


HEAD = (
    "| workers | trials | runs | hours | in use | hours to the answer | ideal | regret % | messages/s | of a core "
    "| ms a proposal | most | ms an end |"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", default="1,8,16,32,64,100")
    parser.add_argument("--strategy", default="random")
    parser.add_argument("--runs-a-worker", type=float, default=4.0)
    parser.add_argument("--budget", type=float)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--full-run-s", type=float, default=1800.0)
    parser.add_argument("--steps-told", type=int, default=60, help="messages of steps in a full run")
    parser.add_argument("--losses", type=float, default=0.01, help="share of the nodes that are lost in an hour")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    weather = Weather(full_run_s=asked.full_run_s, losses_an_hour=asked.losses, steps_told=asked.steps_told)
    print(HEAD, "|---" * HEAD.count(" | ") + "|---|", sep="\n")
    found: list[dict[str, float]] = []
    alone = None
    for workers in map(int, asked.workers.split(",")):
        runs = asked.budget or asked.runs_a_worker * workers
        seeds = [study(workers, asked.strategy, runs, weather, seed=seed) for seed in range(asked.seeds)]
        found.append(averaged(seeds))
        alone = found[-1]["hours_to_answer"] if workers == 1 else alone
        print(row(found[-1], alone_hours=alone), flush=True)
        if asked.json:
            asked.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
