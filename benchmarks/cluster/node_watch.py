"""A node of the local cluster seen from outside: what its worker has written on its disk, and its end at a chosen moment."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

LOOK_S = 0.002
SCRATCH = re.compile(rb"(\S*/finestep-node-[^/\0]+)/")


class NodeWatch:
    """One node, and the study that it works for.

    Args:
        name: of the node, as `scripts/local_cluster.py` knows it.
        study: the study's folder.
        alone: the same study on one machine: it says where evaluations are due.
    """

    def __init__(self, name: str, study: Path, *, alone: Path):
        self._space, self._study, self._alone = f"fs-{name}", study, alone
        self._scratch: Path | None = None
        self._pids: list[int] = []
        self._pids_read = 0.0
        self._some_step: int | None = None
        self._at_home: dict[str, bool] = {}
        self.lost_steps: dict[int, list[dict[str, float]]] = {}
        """Steps that the node had made, by trial, when it was killed."""
        self.silence_s = 0.0

    # ---- the moment

    def wait_for(self, is_so: Callable[[], bool], seconds: float) -> bool:
        """True once it is so."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if self._trials() is not None and is_so():
                return True
            time.sleep(LOOK_S)
        return False

    def wait_for_worker(self, seconds: float) -> bool:
        """True once a worker of the node runs."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if self._find_scratch():
                return True
            time.sleep(0.05)
        return False

    def is_ready(self) -> bool:
        """True when a trial has begun there."""
        return bool(self._trials() and any((trial / "steps.jsonl").exists() for trial in self._trials() or []))

    def num_steps(self) -> int:
        """Steps of its trial."""
        trial = self._trial()
        return len(_records(trial / "steps.jsonl")) if trial is not None else 0

    def some_step(self, chance: random.Random) -> int:
        """A step in the first half of its trial, the same whenever it is asked."""
        trial = self._trial()
        if self._some_step is None and trial is not None:
            total = len(_records(self._alone / "trials" / trial.name / "steps.jsonl"))
            self._some_step = chance.randint(max(1, total // 8), max(2, total // 2))
        return self._some_step or 1

    def is_evaluating(self) -> bool:
        """True when the newest step is one after which an evaluation is due that is not there."""
        trial = self._trial()
        if trial is None:
            return False
        due = {record["step"] for record in _records(self._alone / "trials" / trial.name / "evaluations.jsonl")}
        made = {record["step"] for record in _records(trial / "evaluations.jsonl")}
        steps = _records(trial / "steps.jsonl")
        return bool(steps) and steps[-1]["step"] in due - made

    def newest_checkpoint(self) -> str:
        """Name of the newest checkpoint of its trial; empty: there is none."""
        trial = self._trial()
        return max((place.name for place in (trial / "checkpoints").glob("step-????????")), default="") if trial else ""

    def is_near_the_end(self) -> bool:
        """True in the last steps of its trial."""
        trial = self._trial()
        total = len(_records(self._alone / "trials" / trial.name / "steps.jsonl")) if trial is not None else 0
        return total > 0 and self.num_steps() >= total - 4

    def has_ended(self) -> bool:
        """True when its trial has an outcome."""
        trial = self._trial()
        return trial is not None and (trial / "outcome.json").exists()

    def freeze(self) -> None:
        """Stop all that talks to others; the worker goes on. What it writes from now on cannot leave the node."""
        for pid in self._processes(anew=True):
            with contextlib.suppress(OSError):
                if b"finestep.worker" not in Path(f"/proc/{pid}/cmdline").read_bytes():
                    os.kill(pid, signal.SIGSTOP)

    def kill(self) -> None:
        """End every process of the node at once."""
        for pid in self._processes(anew=time.monotonic() - self._pids_read > 1.0):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        trial = self._trial()
        if trial is not None:
            newest = next(iter(sorted((trial / "checkpoints").glob("step-????????"), reverse=True)), None)
            is_there = newest is not None and (self._home(trial) / "checkpoints" / newest.name).exists()
            self._at_home = {"transfer": is_there, "finish": self._is_home(trial)}
        for pid in self._processes(anew=True):  # what was started meanwhile
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def was_in_time(self, phase: str) -> bool:
        """False when what should have been lost was at home already."""
        if phase == "evaluation":
            return self.is_evaluating()
        return not self._at_home.get(phase, False)

    # ---- afterwards

    def keep_steps(self) -> None:
        """Read what the node had done, before its folder goes."""
        for trial in self._trials() or []:
            self.lost_steps[int(trial.name)] = _records(trial / "steps.jsonl")

    def follow(self, process: subprocess.Popen[bytes], seconds: float) -> int | None:
        """The exit code of the study; None when it did not end. The longest time without any news is kept."""
        until, last, size, has_begun = time.monotonic() + seconds, time.monotonic(), _size(self._study), False
        while (code := process.poll()) is None and time.monotonic() < until:
            time.sleep(0.1)
            if (now := _size(self._study)) != size:
                last, size, has_begun = time.monotonic(), now, True
            if has_begun:  # the first news wait for models to be loaded
                self.silence_s = max(self.silence_s, time.monotonic() - last)
        return code

    def forget(self) -> None:
        """Take away what the lost node has left on the disk that all nodes share here."""
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)

    # ---- inside

    def _trials(self) -> list[Path] | None:
        if self._scratch is None and not self._find_scratch():
            return None
        assert self._scratch is not None
        return sorted(self._scratch.glob("*/trials/*"))

    def _trial(self) -> Path | None:
        """The trial that it works on: the newest."""
        return max(self._trials() or [], key=lambda trial: int(trial.name), default=None)

    def _home(self, trial: Path) -> Path:
        return self._study / "trials" / trial.name

    def _is_home(self, trial: Path) -> bool:
        return (self._home(trial) / "outcome.json").exists()

    def _find_scratch(self) -> bool:
        for pid in self._processes():
            with contextlib.suppress(OSError):
                words = Path(f"/proc/{pid}/cmdline").read_bytes()
                if b"finestep.worker" in words and (found := SCRATCH.search(words.replace(b"\0", b" "))):
                    self._scratch = Path(found[1].decode())
                    return True
        return False

    def _processes(self, *, anew: bool = False) -> list[int]:
        if anew or time.monotonic() - self._pids_read > 0.3:
            said = subprocess.run(["ip", "netns", "pids", self._space], capture_output=True, text=True, check=False)
            self._pids, self._pids_read = [int(one) for one in said.stdout.split()], time.monotonic()
        return self._pids


def _records(path: Path) -> list[dict[str, float]]:
    """Whole lines of a record."""
    with contextlib.suppress(OSError):
        lines = path.read_text().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("}\n")]
    return []


def _size(study: Path) -> int:
    """Bytes of all records of a study."""
    total = 0
    for file in study.glob("trials/*/*.json*"):
        with contextlib.suppress(OSError):
            total += file.stat().st_size
    return total
