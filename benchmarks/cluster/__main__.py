"""What a study makes of many workers, by simulation: utilisation, messages, the time of a proposal, and where it bends.

    python -m benchmarks.cluster [--workers 1,8,64] [--strategy random] [--runs-a-worker 4 | --budget 16] [--json OUT]

`random` always has a trial for a free worker; `auto` asks for as many as help it, and ends when it knows.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.cluster.simulate import VirtualCluster, Weather
from finestep.recipe import Recipe
from finestep.store.study_store import StudyStore
from finestep.studies.strategies import make_strategy
from finestep.studies.tuning import Tuning
from finestep.study import Budget, DataSpec, ModelSpec, StartingPoint, StudySpec


def study(workers: int, strategy: str, runs: float, weather: Weather, *, seed: int = 0) -> dict[str, float]:
    """One study from start to end."""
    start = StartingPoint(learning_rate=2e-4, learning_rate_sd=1.5, batch_size=16, batch_size_sd=1.0)
    spec = StudySpec(
        name="simulated",
        model=ModelSpec(path="simulated"),
        data=DataSpec(path="simulated"),
        recipe=Recipe(seed=seed),
        strategy=strategy,
        start=start,
    )
    cluster, budget = VirtualCluster(workers, weather, seed=seed), Budget(full_runs=runs)
    with tempfile.TemporaryDirectory() as place:
        store = StudyStore(Path(place) / "study", spec, {})
        began = time.process_time()
        tuning = Tuning(store, cluster, lambda card: make_strategy(spec, card, budget=budget), budget)
        for _ in tuning.run():
            pass
        trials = store.trials()
        store.close()
        own = time.process_time() - began
    account = cluster.account
    cost = sum(trial.fidelity for trial in trials)
    return {
        "workers": workers,
        "trials": len(trials),
        "full_runs": cost,
        "hours": account.end_s / 3600,
        "utilisation": account.useful_s / (workers * account.end_s),
        "repeated_share": account.repeated_s / account.useful_s,
        "nodes_lost": account.num_lost,
        "messages_a_second": account.messages / account.end_s,
        "core_share": own / account.end_s,
        "proposal_ms_median": 1000 * statistics.median(account.fills),
        "proposal_ms_most": 1000 * max(account.fills),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", default="1,8,16,32,64,100")
    parser.add_argument("--strategy", default="random")
    parser.add_argument("--runs-a-worker", type=float, default=4.0)
    parser.add_argument("--budget", type=float)
    parser.add_argument("--full-run-s", type=float, default=1800.0)
    parser.add_argument("--losses", type=float, default=0.01, help="share of the nodes that are lost in an hour")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    weather = Weather(full_run_s=asked.full_run_s, losses_an_hour=asked.losses)
    print("workers  trials  runs   hours  utilisation  msg/s  core  proposal ms (median, most)")
    found = []
    for workers in map(int, asked.workers.split(",")):
        runs = asked.budget or asked.runs_a_worker * workers
        one = study(workers, asked.strategy, runs, weather)
        found.append(one)
        print(
            f"{workers:7d} {one['trials']:7.0f} {one['full_runs']:5.1f} {one['hours']:7.2f} {one['utilisation']:11.1%} "
            f"{one['messages_a_second']:7.2f} {one['core_share']:6.2%} {one['proposal_ms_median']:9.1f} {one['proposal_ms_most']:9.1f}",
            flush=True,
        )
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
