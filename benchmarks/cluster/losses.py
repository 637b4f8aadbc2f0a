"""Lose nodes of a cluster on purpose, and see that nothing is lost: `python -m benchmarks.cluster.losses` (as root).

    python -m benchmarks.cluster.losses [--times 3] [--only step,head] [--work DIR]

A study of three full runs on the shipped model and data trains on two nodes in network namespaces (`scripts/local_cluster.py`).
Node b is killed while it loads, in a step, in an evaluation, while a checkpoint travels, at the end of a trial; it is cut off for
30 s; the head is lost. Every case is a line of `DIR/cases.jsonl`, and one that stands there is not run again. The exit code is 1
when anything failed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.cluster.aftermath import Aftermath, aftermath
from benchmarks.cluster.node_watch import NodeWatch
from benchmarks.reliability.studies import small_model
from finestep.survey.shipped import SHIPPED_DATA

ROOT = Path(__file__).parent.parent.parent
NODE, ADDRESS = "b", "ray://10.77.0.1:6379"
CUT_S = 30.0
PATIENCE_S = 600.0
FROZEN_S = 60.0
"""A node that cannot speak for longer is taken for dead before it is killed."""
MOST_ATTEMPTS = 3
"""A moment that lasts milliseconds may be missed; what was killed too late is killed again in another study."""
PAUSED = 75
CHECKPOINT_S = 5.0
"""Between checkpoints here, so that a study of minutes has many; `tune` writes one a minute."""
STARTER = f"""
import sys
from finestep.protocol import TrialOptions
TrialOptions.model_fields["checkpoint_every_s"].default = {CHECKPOINT_S}
TrialOptions.model_rebuild(force=True)
from finestep.entry import main
sys.exit(main())
"""


@dataclass
class Bench:
    """Where the cases work."""

    work: Path
    epochs: float
    environment: dict[str, str] = field(default_factory=dict)

    def tune(self, out: Path, *more: str) -> list[str]:
        """The command of the study; random points do not depend on which trial ends first."""
        wanted = ["tune", str(self.model), str(SHIPPED_DATA), "--strategy", "random", "--budget", "3", "--json"]
        wanted += [
            "--epochs",
            str(self.epochs),
            "--threads",
            "1",
            "--pack",
            "off",
            "--set",
            "seed=83",
            "--no-check-saved",
        ]
        return [sys.executable, "-c", STARTER, *wanted, "--out", str(out), *more]

    def start(self, out: Path) -> subprocess.Popen[bytes]:
        """Start the study on the cluster; what it prints is kept beside its folder."""
        command = [sys.executable, str(ROOT / "scripts" / "local_cluster.py"), "run", *self.tune(out, "--on", ADDRESS)]
        said, noted = out.with_suffix(".out").open("wb"), out.with_suffix(".err").open("ab")
        return subprocess.Popen(command, stdout=said, stderr=noted, env=self.environment, start_new_session=True)

    @property
    def model(self) -> Path:
        """The shipped model with one of its layers: what is lost is files and processes, not what is learned."""
        place = self.work / "model"
        if not place.exists():
            small_model(place)
        return place

    @property
    def alone(self) -> Path:
        """The same study on this machine, which nothing disturbs; it is run once."""
        out = self.work / "alone"
        if not (out / "result.json").is_file():
            shutil.rmtree(out, ignore_errors=True)
            subprocess.run(self.tune(out), env=self.environment, check=True, stdout=subprocess.DEVNULL)
        return out


def cluster(*words: str) -> None:
    """A command of `scripts/local_cluster.py`."""
    subprocess.run([sys.executable, str(ROOT / "scripts" / "local_cluster.py"), *words], check=True)


def in_loading(watch: NodeWatch, chance: random.Random) -> bool:
    """The worker of the node has been started, and is not ready."""
    if not watch.wait_for_worker(PATIENCE_S):
        return False
    time.sleep(chance.uniform(0.5, 4.0))
    return not watch.is_ready()


def in_step(watch: NodeWatch, chance: random.Random) -> bool:
    """Some steps of a trial are made."""
    return watch.wait_for(lambda: watch.num_steps() >= watch.some_step(chance), PATIENCE_S)


def in_evaluation(watch: NodeWatch, chance: random.Random) -> bool:
    """The step before an evaluation is recorded, and the evaluation is not."""
    return watch.wait_for(watch.is_evaluating, PATIENCE_S)


def in_transfer(watch: NodeWatch, chance: random.Random) -> bool:
    """A checkpoint is whole on the node, and not yet where the study is."""
    if not in_step(watch, chance):
        return False
    watch.freeze()
    before = watch.newest_checkpoint()
    return watch.wait_for(lambda: watch.newest_checkpoint() != before, FROZEN_S)


def in_finish(watch: NodeWatch, chance: random.Random) -> bool:
    """The outcome is written on the node, and the study does not know."""
    if not watch.wait_for(watch.is_near_the_end, PATIENCE_S):
        return False
    watch.freeze()
    return watch.wait_for(watch.has_ended, FROZEN_S)


PHASES: dict[str, Callable[[NodeWatch, random.Random], bool]] = {
    "loading": in_loading,
    "step": in_step,
    "evaluation": in_evaluation,
    "transfer": in_transfer,
    "finish": in_finish,
}
CASES = (*PHASES, "cut", "head")


def run_case(bench: Bench, name: str, number: int) -> dict[str, Any]:
    """One study with one loss, until the moment was hit."""
    for attempt in range(MOST_ATTEMPTS):
        out = bench.work / f"{name}-{number}-{attempt}"
        found = _attempt(bench, name, out, random.Random(f"{name} {number} {attempt}"))
        if found["hit"] or found["faults"]:
            break
    return {"case": name, "number": number, "attempts": attempt + 1, **found}


def _attempt(bench: Bench, name: str, out: Path, chance: random.Random) -> dict[str, Any]:
    shutil.rmtree(out, ignore_errors=True)
    out.with_suffix(".err").unlink(missing_ok=True)
    _ensure_nodes()
    began = time.time()
    process = bench.start(out)
    watch = NodeWatch(NODE, out, alone=bench.alone)
    try:
        hit = _break(name, watch, chance)
        watch.keep_steps()
        if name in PHASES:
            cluster("node", NODE)
        codes = [watch.follow(process, PATIENCE_S)]
        if name == "head":
            codes += _go_on(bench, out, watch, first=codes[0])
    finally:
        _end(process)
    after = aftermath(out, watch, alone=bench.alone)
    watch.forget()
    return _judged(name, codes, hit=hit, after=after, seconds=time.time() - began)


def _judged(name: str, codes: Sequence[int | None], *, hit: bool, after: Aftermath, seconds: float) -> dict[str, Any]:
    faults = list(after.faults)
    wanted = ([0], [PAUSED, 0]) if name == "head" else ([0],)
    if list(codes) not in wanted:
        faults.append(f"exit codes {codes}")
    return {"hit": hit, "codes": codes, "seconds": round(seconds, 1), **after.figures(), "faults": faults}


def _break(name: str, watch: NodeWatch, chance: random.Random) -> bool:
    if name in PHASES:
        hit = PHASES[name](watch, chance)
        watch.kill()
        return hit and watch.was_in_time(name)
    hit = in_step(watch, chance)
    if name == "cut":
        cluster("cut", NODE, str(CUT_S))
    else:
        cluster("kill", "gcs")
    return hit


def _go_on(bench: Bench, out: Path, watch: NodeWatch, *, first: int | None) -> list[int | None]:
    """The cluster is made anew, and the same command given again."""
    cluster("up")
    if first != PAUSED:
        return []
    process = bench.start(out)
    try:
        return [watch.follow(process, PATIENCE_S)]
    finally:
        _end(process)


def _ensure_nodes() -> None:
    """A cluster whose both nodes answer."""
    code = "import ray, sys, logging; ray.init('10.77.0.1:6379', log_to_driver=False, logging_level=logging.ERROR); "
    code += "sys.exit(sum(node['Alive'] for node in ray.nodes()) != 3)"
    asked = [sys.executable, str(ROOT / "scripts" / "local_cluster.py"), "run", sys.executable, "-c", code]
    for _ in range(6):
        try:
            if subprocess.run(asked, capture_output=True, check=False, timeout=60).returncode == 0:
                return
        except subprocess.TimeoutExpired:
            break
        if not Path("/run/netns/fs-head").exists():
            break
        time.sleep(5)
    cluster("up")


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def table(found: Sequence[dict[str, Any]]) -> str:
    """What came of all cases, one kind a row."""
    lines = ["| lost | times | passed | most repeated, s | longest silence, s | largest difference of a loss |"]
    lines.append("|---|---|---|---|---|---|")
    for name in CASES:
        here = [one for one in found if one["case"] == name]
        if here:
            passed = sum(one["hit"] and not one["faults"] for one in here)
            most = [max(one[key] for one in here) for key in ("repeated_s", "silence_s", "difference")]
            lines.append(f"| {name} | {len(here)} | {passed} | {most[0]:.1f} | {most[1]:.1f} | {most[2]:.1e} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--only", default=",".join(CASES))
    parser.add_argument("--epochs", type=float, default=1.5, help="passes over the shipped data of a full run")
    parser.add_argument("--most", type=int, help="at most so many cases now; the cluster stays up for the others")
    parser.add_argument("--work", type=Path, default=Path("/tmp/finestep-losses"))
    asked = parser.parse_args()
    asked.work.mkdir(parents=True, exist_ok=True)
    quiet = {"OMP_NUM_THREADS": "1", "FINESTEP_CACHE": str(asked.work / "cache")}
    bench = Bench(asked.work.absolute(), asked.epochs, {**os.environ, **quiet})
    record = asked.work / "cases.jsonl"
    found = [json.loads(line) for line in record.read_text().splitlines()] if record.exists() else []
    known = {(one["case"], one["number"]) for one in found}
    wanted = [(name, number) for number in range(asked.times) for name in asked.only.split(",")]
    left = [one for one in wanted if one not in known]
    try:
        for name, number in left[: asked.most]:
            found.append(run_case(bench, name, number))
            with record.open("a") as file:
                file.write(json.dumps(found[-1]) + "\n")
            print(json.dumps(found[-1]), flush=True)
    finally:
        if asked.most is None or asked.most >= len(left):
            cluster("down")
    print(table(found))
    return int(any(one["faults"] or not one["hit"] for one in found))


if __name__ == "__main__":
    sys.exit(main())
