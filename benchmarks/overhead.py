"""What the live page and the trackers cost a step: one long run, its companions held and let go in turn.

    python -m benchmarks.overhead [--report-to tensorboard,mlflow,trackio] [--pairs 12] [--steps 40] [--minutes 4] [--json OUT]

A page is open all the time (it listens to the study's events). The companions are held with SIGSTOP for some steps and let go
for as many, again and again, so that both sides see the same machine; what they missed they catch up on while they
are let go. Two figures, each the median over pairs of a ratio, let go over held: of the median step time, and of the
processor time that the worker spent on a step. The second hardly feels what else the machine does. It ends after
`--minutes`, with the pairs that it has.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import itertools
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from finestep.errors import FinestepError
from finestep.store.tail import Tail
from finestep.survey.shipped import SHIPPED_DATA
from finestep.trackers.known import parse_trackers

COMPANIONS = ("finestep.watch.beside", "finestep.trackers.report")
RECIPE = "learning_rate: 1.0e-03\neffective_batch_size: 16\nnum_epochs: 60\nevaluation:\n  num_evaluations: 1\n"
SETTLE_STEPS = 5
"""Steps after each switch that are not counted."""
LOAD_PATIENCE_S = 300.0


@dataclass
class Run:
    """A training run of its own that is being measured."""

    process: subprocess.Popen[bytes]
    log: Path
    file: Path
    ends: list[float] = field(default_factory=list)
    _tail: Tail = field(init=False)

    def __post_init__(self) -> None:
        self._tail = Tail(self.file)

    def address(self) -> str:
        """Where its page is, as soon as it has said so."""
        until = time.monotonic() + LOAD_PATIENCE_S
        while not (found := re.search(r"watch: (http\S+)", self.log.read_text())):
            self._check(until)
            time.sleep(0.1)
        return found[1]

    def await_steps(self, number: int, until: float) -> int:
        """Wait until so many steps are on disk; how many there are."""
        while len(self.ends) < number:
            self.ends += [record["elapsed_s"] for record in self._tail.read()]
            self._check(until)
            time.sleep(0.05)
        return len(self.ends)

    def step_times(self) -> list[float]:
        """Seconds of each step, from the run's own records."""
        return [end - begin for begin, end in itertools.pairwise(self.ends)]

    def companions(self) -> list[psutil.Process]:
        """The processes beside the study that are not its worker."""
        return [one for one in self._children() if any(name in _words(one) for name in COMPANIONS)]

    def worker(self) -> psutil.Process:
        """The process that trains."""
        return next(one for one in self._children() if "finestep.worker" in _words(one))

    def _children(self) -> list[psutil.Process]:
        try:
            return psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def _check(self, until: float) -> None:
        """A run that has ended, or says nothing for too long, makes no more steps: say so, and what it has printed."""
        if self.process.poll() is not None or time.monotonic() > until:
            state = "has ended" if self.process.poll() is not None else "was not ready in time"
            sys.exit(f"the run that was to be measured {state}; it has printed:\n{self.log.read_text()[-2000:]}")


def _words(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def listen(url: str) -> None:
    """An open page: it reads the study's events."""
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
    place = opener.open(url).url
    stream = opener.open(f"{place}/events")
    with contextlib.suppress(OSError, http.client.HTTPException):  # the server ends with the run
        while stream.read1(65536):
            pass


def begin(folder: Path, trackers: str) -> Run:
    """Start a long training run with its page and its trackers."""
    recipe, study, log = folder / "recipe.yaml", folder / "study", folder / "log.txt"
    recipe.write_text(RECIPE)
    words = ["train", str(recipe), "shipped", str(SHIPPED_DATA), "--out", str(study), "--watch", "--threads", "1"]
    words += ["--report-to", trackers] if trackers else []
    with log.open("w") as out:
        process = subprocess.Popen([sys.executable, "-m", "finestep", *words], stdout=out, stderr=out)
    return Run(process, log, study / "trials" / "0000" / "steps.jsonl")


@dataclass
class Found:
    """What was measured: ratios of step times and of processor times, and the share of the time that the companions computed."""

    steps: list[float] = field(default_factory=list)
    work: list[float] = field(default_factory=list)
    companions: float = 0.0


def measure(run: Run, *, pairs: int, steps: int, minutes: float) -> Found:
    """Hold the companions and let them go, in turn, for so many pairs or minutes."""
    threading.Thread(target=listen, args=(run.address(),), daemon=True).start()
    print("the run loads", flush=True)
    made = run.await_steps(3 * SETTLE_STEPS, time.monotonic() + LOAD_PATIENCE_S)
    beside, worker, found = run.companions(), run.worker(), Found()
    print(f"it trains; {len(beside)} companions: a page and {len(beside) - 1} trackers", flush=True)
    began, work, until = time.monotonic(), _computed(beside), time.monotonic() + 60 * minutes
    while len(found.steps) < pairs and time.monotonic() < until:
        time_s, work_s = {}, {}
        for held in (len(found.steps) % 2 == 0, len(found.steps) % 2 == 1):
            for one in beside:
                os.kill(one.pid, signal.SIGSTOP if held else signal.SIGCONT)
            first = run.await_steps(made + SETTLE_STEPS, until + 60)
            before = _computed([worker])
            made = run.await_steps(first + steps, until + 60)
            work_s[held] = (_computed([worker]) - before) / (made - first)
            time_s[held] = statistics.median(run.step_times()[first:made])
        found.steps.append(time_s[False] / time_s[True])
        found.work.append(work_s[False] / work_s[True])
        print(
            f"pair {len(found.steps)} of {pairs}: step held {1000 * time_s[True]:.1f} ms, let go {1000 * time_s[False]:.1f} ms; "
            f"processor {1000 * work_s[True]:.1f} and {1000 * work_s[False]:.1f} ms",
            flush=True,
        )
    found.companions = (_computed(beside) - work) / (time.monotonic() - began)
    return found


def end(run: Run) -> None:
    """Let the companions go, and end the run."""
    for one in run.companions():
        os.kill(one.pid, signal.SIGCONT)
    run.process.terminate()
    run.process.wait(120)


def _computed(processes: list[psutil.Process]) -> float:
    """Seconds of processor time so far."""
    return sum(one.cpu_times().user + one.cpu_times().system for one in processes)


def percent(ratios: list[float]) -> dict[str, float]:
    """The median of ratios as per cent above one, and their quartiles."""
    low, middle, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    return {name: 100 * (one - 1) for name, one in (("low", low), ("median", middle), ("high", high))}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--report-to", default="tensorboard,mlflow,trackio")
    parser.add_argument("--pairs", type=int, default=12)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--minutes", type=float, default=4.0)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    try:
        parse_trackers(asked.report_to)
    except FinestepError as error:
        sys.exit(str(error))
    with tempfile.TemporaryDirectory() as folder:
        run = begin(Path(folder), asked.report_to)
        try:
            found = measure(run, pairs=asked.pairs, steps=asked.steps, minutes=asked.minutes)
        finally:
            end(run)
    step, work = percent(found.steps), percent(found.work)
    print(f"the page and {asked.report_to or 'no tracker'}, {len(found.steps)} pairs of {asked.steps} steps:")
    for name, one in (("step time", step), ("processor time of a step", work)):
        print(f"  {name}: {one['median']:+.2f} % (quartiles {one['low']:+.2f} to {one['high']:+.2f})")
    load = os.getloadavg()[0]
    print(f"  the companions computed {100 * found.companions:.1f} % of one core; load of the machine {load:.1f}")
    if asked.json:
        told = {"step_percent": step, "work_percent": work, "companions_share": found.companions, "load": load}
        asked.json.write_text(json.dumps({**told, "step_ratios": found.steps, "work_ratios": found.work}))


if __name__ == "__main__":
    main()
