"""What the live page and the trackers cost a step: one long run, its companions held and let go in turn.

    python -m benchmarks.overhead [--report-to tensorboard,mlflow,trackio] [--pairs 12] [--steps 40] [--json OUT]

A page is open all the time (it listens to the study's events). The companions are held with SIGSTOP for some steps and let go
for as many, again and again, so that both sides see the same machine; what they missed they catch up on while they
are let go. The figure is the median over pairs of the ratio of the two median step times.
"""

from __future__ import annotations

import argparse
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
from pathlib import Path

import psutil

COMPANIONS = ("finestep.watch.beside", "finestep.trackers.report")
RECIPE = "learning_rate: 1.0e-03\neffective_batch_size: 16\nnum_epochs: 60\nevaluation:\n  num_evaluations: 1\n"
SETTLE_STEPS = 5
"""Steps after each switch that are not counted."""


def companions(controller: int) -> list[psutil.Process]:
    """The processes beside a study that are not its worker."""
    found = psutil.Process(controller).children(recursive=True)
    return [one for one in found if any(name in " ".join(one.cmdline()) for name in COMPANIONS)]


def step_times(file: Path) -> list[float]:
    """Seconds of each step, from the run's own records."""
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    ends = [json.loads(line)["elapsed_s"] for line in lines if line.endswith("}")]
    return [end - begin for begin, end in itertools.pairwise(ends)]


def await_steps(file: Path, number: int) -> int:
    """Wait until so many steps are on disk."""
    while (made := len(step_times(file))) < number:
        time.sleep(0.05)
    return made


def listen(url: str) -> None:
    """An open page: it reads the study's events."""
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
    place = opener.open(url).url
    stream = opener.open(f"{place}/events")
    while stream.read(4096):
        pass


def measure(folder: Path, *, pairs: int, steps: int, trackers: str) -> list[float]:
    """The ratio of each pair: companions let go over companions held."""
    recipe, study = folder / "recipe.yaml", folder / "study"
    recipe.write_text(RECIPE)
    from finestep.survey.shipped import SHIPPED_DATA

    words = ["train", str(recipe), "shipped", str(SHIPPED_DATA), "--out", str(study), "--watch", "--threads", "1"]
    words += ["--report-to", trackers] if trackers else []
    with (folder / "log.txt").open("w") as log:
        process = subprocess.Popen([sys.executable, "-m", "finestep", *words], stdout=log, stderr=log)
    file, ratios = study / "trials" / "0000" / "steps.jsonl", []
    try:
        while not (found := re.search(r"watch: (http\S+)", (folder / "log.txt").read_text())):
            time.sleep(0.1)
        threading.Thread(target=listen, args=(found[1],), daemon=True).start()
        begin = await_steps(file, 3 * SETTLE_STEPS)
        beside = companions(process.pid)
        for pair in range(pairs):
            sides = {}
            for held in (pair % 2 == 0, pair % 2 == 1):
                for one in beside:
                    os.kill(one.pid, signal.SIGSTOP if held else signal.SIGCONT)
                first = begin + SETTLE_STEPS
                begin = await_steps(file, first + steps)
                sides[held] = statistics.median(step_times(file)[first : first + steps])
            ratios.append(sides[False] / sides[True])
            print(f"pair {pair}: held {1000 * sides[True]:.1f} ms, let go {1000 * sides[False]:.1f} ms", flush=True)
    finally:
        for one in companions(process.pid):
            os.kill(one.pid, signal.SIGCONT)
        process.send_signal(signal.SIGTERM)
        process.wait(120)
    return ratios


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--report-to", default="tensorboard,mlflow,trackio")
    parser.add_argument("--pairs", type=int, default=12)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        ratios = measure(Path(folder), pairs=asked.pairs, steps=asked.steps, trackers=asked.report_to)
    low, middle, high = (100 * (one - 1) for one in statistics.quantiles(ratios, n=4))
    print(
        f"overhead of the page and {asked.report_to or 'no tracker'}: {middle:+.2f} % of a step (quartiles {low:+.2f} to {high:+.2f})"
    )
    if asked.json:
        asked.json.write_text(json.dumps({"overhead_percent": middle, "quartiles": [low, high], "ratios": ratios}))


if __name__ == "__main__":
    main()
