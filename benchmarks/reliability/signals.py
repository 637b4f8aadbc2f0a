"""SIGTERM and Ctrl-C in every phase of a study: the exit code, how soon it ends, that nothing is left, and the same result afterwards."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import time
from collections import defaultdict
from pathlib import Path

from benchmarks.reliability.studies import Bench, Quiet, gone, num_steps, quiet_run

PHASES = ("survey", "loading", "training", "evaluation", "checkpoint", "report")
MOST_S = 15.0


def run(bench: Bench, *, number: int, seed: int, pack: str) -> tuple[int, int]:
    """(signals that were answered as they should be, signals)."""
    chance, quiet = random.Random(seed), quiet_run(bench, pack=pack)
    print(f"undisturbed: {quiet.seconds:.0f} s, {quiet.steps} steps", flush=True)
    took: dict[str, list[float]] = defaultdict(list)
    passed = 0
    for turn in range(number):
        phase = PHASES[turn % len(PHASES)]
        kind = (signal.SIGTERM, signal.SIGINT)[(turn // len(PHASES)) % 2]
        study = bench.folder / f"signal-{seed}-{turn}"
        shutil.rmtree(study, ignore_errors=True)
        seconds, code, faults = _one(bench, quiet, study, phase, kind, chance, pack=pack)
        took[phase].append(seconds)
        passed += not faults
        print(f"{turn} {phase} {kind.name}: exit {code} in {seconds:.1f} s {faults or 'ok'}", flush=True)
        if not faults:
            shutil.rmtree(study, ignore_errors=True)
    for phase, times in took.items():
        print(f"  {phase:11} slowest end {max(times):.1f} s")
    print(f"signals: passed {passed} of {number}", flush=True)
    return passed, number


def _one(
    bench: Bench, quiet: Quiet, study: Path, phase: str, kind: signal.Signals, chance: random.Random, *, pack: str
) -> tuple[float, int, list[str]]:
    command, faults = bench.tune(study, pack=pack), []
    process = bench.start(command)
    _wait(phase, study, process, quiet, chance)
    began, was_alive = time.monotonic(), process.poll() is None
    if was_alive:
        process.send_signal(kind)
    said, _ = process.communicate(timeout=600)
    seconds, code = time.monotonic() - began, process.returncode
    allowed = {128 + kind} | ({0} if phase == "report" or not was_alive else set())
    if code not in allowed | ({128 + signal.SIGTERM} if phase == "checkpoint" else set()):
        faults.append(f"exit code {code}: {said[-300:]}")
    if "Traceback" in said:
        faults.append(f"traceback: {said[-400:]}")
    if seconds > MOST_S:
        faults.append(f"took {seconds:.1f} s")
    faults += [f"still running: {one}" for one in gone(study, within_s=20)]
    again, said = bench.run(command)
    if again or "Traceback" in said:
        faults.append(f"going on: exit code {again}: {said[-400:]}")
    else:
        faults += quiet.faults(study)
    return seconds, code, faults


def _wait(phase: str, study: Path, process: subprocess.Popen[str], quiet: Quiet, chance: random.Random) -> None:
    """Until a phase is reached, and a random while in it."""
    share = {"training": chance.uniform(0.05, 0.9), "evaluation": 0.5, "checkpoint": chance.uniform(0.05, 0.9)}
    goal = share.get(phase, 0.0) * quiet.steps
    while process.poll() is None:
        outcomes = len(list(study.glob("trials/*/outcome.json")))
        there = {
            "survey": study.exists(),
            "loading": (study / "worker.log").exists(),
            "report": outcomes >= len(quiet.trials),
        }.get(phase, num_steps(study) >= goal and goal > 0)
        if there:
            break
        time.sleep(0.005)
    if phase == "checkpoint":  # the first asks for a checkpoint, the second falls into its writing
        process.send_signal(signal.SIGTERM)
    longest = {"survey": 0.5, "loading": 2.0, "training": 0.1, "checkpoint": 0.05}.get(phase, 0.3)
    time.sleep(chance.uniform(0.0, longest))
