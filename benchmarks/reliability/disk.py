"""The disk is full at every size from empty to almost enough: one sentence and exit code 75; with more room the study goes on to
the result of a quiet run. It mounts a disk in memory for each size, which needs root."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

from benchmarks.reliability.studies import Bench, Quiet, ended_trials, gone, quiet_run, trials_of

PAUSED = 75


def run(bench: Bench, *, number: int, seed: int, pack: str) -> tuple[int, int]:
    """(sizes at which everything was as it should be, sizes)."""
    quiet = quiet_run(bench, pack=pack)
    used = subprocess.run(["du", "-sk", bench.folder / f"quiet-{pack}"], capture_output=True, text=True, check=True)
    whole = int(used.stdout.split()[0])
    chance, passed = random.Random(seed), 0
    print(f"the study takes {whole} KiB", flush=True)
    for turn in range(number):
        size = max(4, int(whole * (turn + chance.random()) / number))
        faults, said = _one(bench, quiet, bench.folder / "disk", size, 4 * whole, pack=pack)
        passed += not faults
        print(f"{size} KiB: {faults or 'ok'}: {said}", flush=True)
    print(f"disk full: passed {passed} of {number}", flush=True)
    return passed, number


def _one(bench: Bench, quiet: Quiet, disk: Path, size: int, enough: int, *, pack: str) -> tuple[list[str], str]:
    disk.mkdir(exist_ok=True)
    study, faults = disk / "study", []
    command = bench.tune(study, pack=pack)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", disk], check=True)
    try:
        code, said = bench.run(command)
        sentence = " ".join(said.split())[-160:]
        if code == 0:
            sentence = "it fits"
        elif code != PAUSED or "Traceback" in said or "space" not in said.lower():
            faults.append(f"exit code {code}: {said[-400:]}")
        before = _ended(study)
        subprocess.run(["mount", "-o", f"remount,size={enough}k", disk], check=True)
        again, said = bench.run(command)
        if again:
            faults.append(f"does not go on: exit code {again}: {said[-400:]}")
        else:
            faults += quiet.faults(study)
            faults += [f"lost: {one}" for one in before if one not in trials_of(study)]
        faults += [f"still running: {one}" for one in gone(study, within_s=20)]
    finally:
        subprocess.run(["umount", "-l", disk], check=True)
    return faults, sentence


def _ended(study: Path) -> list[dict]:
    """Trials that have ended; none where the disk was full before there was a table."""
    try:
        return ended_trials(study) if (study / "study.db").exists() else []
    except Exception:  # whatever Optuna says about half a database
        return []
