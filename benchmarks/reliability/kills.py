"""SIGKILL of the controller or a worker in every phase of a study; afterwards the same command ends it as if nothing had been.

Points of kill are dealt in turn over the phases, with a random delay in each. With `--pack off` losses and weights must be the same
to the bit. With `--pack auto` trials, states and winner must be the same and losses within 1e-6: trials that share a pass
round otherwise in other company.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

from benchmarks.reliability.studies import Bench, Quiet, ended_trials, gone, num_steps, processes, quiet_run, workers_of

PHASES = ("start", "loading", "training", "late training", "checkpoint", "outcome", "results")
WITHIN = {"off": 0.0, "auto": 1e-6}
PER_STUDY = 5
TRIES = 40
STOPPED = (128 + signal.SIGTERM, -signal.SIGTERM)
"""What a controller answers that was asked to stop, and Python that has not read finestep yet."""


def run(bench: Bench, *, number: int, seed: int, pack: str) -> tuple[int, int]:
    """(kills after which everything was as it should be, kills)."""
    chance, quiet = random.Random(seed), quiet_run(bench, pack=pack)
    print(f"undisturbed: {quiet.seconds:.0f} s, {quiet.steps} steps, {quiet.trials}", flush=True)
    done: Counter[tuple[str, str, bool]] = Counter()
    worst, studies = 0.0, 0
    while sum(done.values()) < number:
        study = bench.folder / f"{pack}-{seed}-{studies}"
        shutil.rmtree(study, ignore_errors=True)
        first = sum(done.values())
        wanted = [PHASES[(first + more) % len(PHASES)] for more in range(min(PER_STUDY, number - first))]
        kills, faults = _one(bench, quiet, study, wanted, chance, pack=pack)
        worst = max(worst, quiet.difference(study) if not any("other trials" in fault for fault in faults) else 0.0)
        for phase, victim in kills:
            done[phase, victim, not faults] += 1
        studies += 1
        print(f"study {studies}: {kills} {faults or 'ok'}", flush=True)
        if not faults:
            shutil.rmtree(study)
        if not kills and studies > number:
            raise SystemExit("nothing could be killed")
    for (phase, victim, passed), count in sorted(done.items()):
        print(f"  {phase:14} {victim:10} {'passed' if passed else 'FAILED':7} {count}")
    passed = sum(count for (_, _, ok), count in done.items() if ok)
    print(f"kills with --pack {pack}: passed {passed} of {sum(done.values())}, in {studies} studies; ", end="")
    print(f"largest relative difference of a loss {worst:.1e}", flush=True)
    return passed, sum(done.values())


def _one(
    bench: Bench, quiet: Quiet, study: Path, phases: list[str], chance: random.Random, *, pack: str
) -> tuple[list[tuple[str, str]], list[str]]:
    """(the kills of one study by phase and victim, what was wrong then or at its end)."""
    command = bench.tune(study, pack=pack)
    kills: list[tuple[str, str]] = []
    faults: list[str] = []
    process, known = bench.start(command), {}
    for phase in sorted(phases, key=PHASES.index):
        if not _reached(phase, study, process, quiet, chance):
            break
        workers = workers_of(study)
        victim = chance.choice(["controller", "worker"]) if workers else "controller"
        _kill(process.pid if victim == "controller" else chance.choice(workers))
        kills.append((phase, victim))
        if victim == "worker":
            continue
        process.communicate()
        faults += [f"still running a minute later: {one}" for one in gone(study)]
        known, lost = _compared(study, known)
        faults += lost
        process = bench.start(command)
    for _ in range(TRIES):
        said, _ = process.communicate(timeout=600)
        if "Traceback" in said:
            faults.append(f"traceback: {said[-400:]}")
        if process.returncode == 0:
            break
        if process.returncode not in {75, *(STOPPED if "checkpoint" in phases else ())}:
            faults.append(f"exit code {process.returncode}: {said[-300:]}")
        process = bench.start(command)
    faults += quiet.faults(study, within=WITHIN[pack])
    faults += [f"left running: {one}" for one in processes(str(study))]
    return kills, faults


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _compared(study: Path, known: dict[int, dict]) -> tuple[dict[int, dict], list[str]]:
    """(trials that have ended, what of those known before is lost or has changed)."""
    if not (study / "study.db").exists():
        return known, [f"study.db is gone, with {len(known)} trials"] if known else []
    now = {one["number"]: one for one in ended_trials(study)}
    return now, [f"lost or changed: {one} -> {now.get(key)}" for key, one in known.items() if now.get(key) != one]


def _reached(phase: str, study: Path, process: subprocess.Popen[str], quiet: Quiet, chance: random.Random) -> bool:
    """Wait for a phase and a random while in it; False when the study ended before."""
    steps = {"training": chance.uniform(0.02, 0.5), "late training": chance.uniform(0.5, 0.95)}
    goal = steps[phase] * quiet.steps if phase in steps else num_steps(study) + 1

    def is_there() -> bool:
        match phase:
            case "start":
                return True
            case "loading":
                return (study / "worker.log").exists()
            case "training" | "late training" | "checkpoint":
                return num_steps(study) >= goal
            case "outcome":
                return any(study.glob("trials/*/outcome.json"))
            case _:
                return (study / "result.json").exists()

    while not is_there():
        if process.poll() is not None:
            return False
        time.sleep(0.005)
    if phase == "checkpoint":
        process.send_signal(signal.SIGTERM)
    longest = {"start": 0.5, "loading": 0.4, "checkpoint": 0.05}.get(phase, 0.1) * max(quiet.seconds / 5, 1)
    end = time.monotonic() + chance.uniform(0, longest)
    while time.monotonic() < end and process.poll() is None:
        time.sleep(0.005)
    return process.poll() is None
