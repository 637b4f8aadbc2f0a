"""A small study that gates break: how it is started, killed and read, and what must be the same afterwards."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.reliability.warm import warm
from finestep.survey.shipped import SHIPPED_DATA, SHIPPED_MODEL

ROWS = SHIPPED_DATA
NUM_ROWS = 64
LAYERS = 1
"""The model is the shipped one without its other layers: a gate is about files and processes, not about what is learned."""
PATIENCE_S = 600.0
"""Gates run on machines that do other work: only what never ends is called a hang."""


@dataclass
class Bench:
    """Where a gate works, and how it starts finestep."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def rows(self) -> Path:
        """The small data file."""
        path = self.folder / "rows.jsonl"
        if not path.exists():
            path.write_text("".join(ROWS.read_text().splitlines(keepends=True)[:NUM_ROWS]))
        return path

    @property
    def model(self) -> Path:
        """The small model."""
        place = self.folder / "model"
        if not place.exists():
            small_model(place)
        return place

    def tune(self, out: Path, *, pack: str = "off") -> list[str]:
        """The command of a study of two full runs."""
        wanted = ["tune", self.model, self.rows, "--budget", 2, "--threads", 1, "--pack", pack, "--out", out]
        return [sys.executable, "-m", "finestep", *map(str, wanted)]

    def start(self, command: list[str]) -> subprocess.Popen[str]:
        """Start a command in a session of its own, its output kept."""
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )

    def run(self, command: list[str]) -> tuple[int, str]:
        """(exit code, output) of a command that is left alone."""
        process = self.start(command)
        said, _ = process.communicate(timeout=PATIENCE_S)
        return process.returncode, said


@contextlib.contextmanager
def bench(folder: Path, *, is_warm: bool) -> Iterator[Bench]:
    """A bench; warm: its processes are forks of one that has everything imported."""
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    cold = Bench(folder, environment=dict(os.environ, OMP_NUM_THREADS="1", FINESTEP_CACHE=str(folder / "cache")))
    if not is_warm:
        yield cold
        return
    with warm(folder / "warm", cold.environment, model=cold.model):
        yield cold


def small_model(place: Path, *, layers: int = LAYERS) -> None:
    """Write the shipped model with its first layers alone."""
    from safetensors.numpy import load_file, save_file

    shutil.copytree(SHIPPED_MODEL, place)
    tensors = load_file(place / "model.safetensors")
    first = tuple(f"model.layers.{number}." for number in range(layers))
    kept = {name: value for name, value in tensors.items() if ".layers." not in name or name.startswith(first)}
    save_file(kept, place / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((place / "config.json").read_text())
    (place / "config.json").write_text(json.dumps({**config, "num_hidden_layers": layers}))


def processes(word: str) -> list[tuple[int, str]]:
    """(pid, command line) of the living processes whose command line has this word, this one left out."""
    found = []
    for place in Path("/proc").iterdir():
        if place.name.isdigit() and int(place.name) != os.getpid():
            with contextlib.suppress(OSError):
                line = (place / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                state = (place / "stat").read_text().rpartition(")")[2].split()[0]
                if word in line and state != "Z":
                    found.append((int(place.name), line))
    return found


def workers_of(study: Path) -> list[int]:
    """Processes that train, or load a model, for this study."""
    return [pid for pid, line in processes(f"{study}/") if "finestep.worker" in line or "finestep.saved" in line]


def gone(study: Path, *, within_s: float = 60.0) -> list[tuple[int, str]]:
    """What of a study is still running after so long."""
    end = time.monotonic() + within_s
    while (left := processes(str(study))) and time.monotonic() < end:
        time.sleep(0.05)
    return left


def trials_of(study: Path) -> list[dict[str, Any]]:
    """The trials as plain Optuna reads them."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    url = f"sqlite:///{study}/study.db"
    names = optuna.get_all_study_names(url)
    if not names:
        return []
    out = []
    for trial in optuna.load_study(study_name=names[0], storage=url).get_trials():
        ours = json.loads(trial.user_attrs["trial"])
        outcome = ours.get("outcome") or {}
        out.append(
            {
                "number": ours["number"],
                "state": ours["state"],
                "optuna": trial.state.name,
                "rate": ours["recipe"]["learning_rate"],
                "batch": ours["recipe"]["effective_batch_size"],
                "fidelity": ours["fidelity"],
                "loss": outcome.get("eval_loss"),
            }
        )
    return out


def ended_trials(study: Path) -> list[dict[str, Any]]:
    """Those that have ended, for Optuna too.

    The outcome is written before Optuna's own state: what falls between the two leaves a trial that the next start ends for Optuna.
    """
    return [one for one in trials_of(study) if "running" not in (one["state"], one["optuna"].lower())]


def weights_of(study: Path) -> dict[str, str]:
    """SHA-256 of the weights in `model/`."""
    return {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted((study / "model").glob("*.safetensors"))
    }


def num_steps(study: Path) -> int:
    """Steps that all trials have recorded."""
    return sum(file.read_bytes().count(b"\n") for file in study.glob("trials/*/steps.jsonl"))


@dataclass(frozen=True)
class Quiet:
    """What a study comes to that nothing disturbs."""

    trials: list[dict[str, Any]]
    weights: dict[str, str]
    best: int
    steps: int
    seconds: float

    def faults(self, study: Path, *, within: float = 0.0) -> list[str]:
        """In what a study that was disturbed differs. `within`: what its losses may differ by, relatively."""
        found = trials_of(study)
        if [{**one, "loss": None} for one in found] != [{**one, "loss": None} for one in self.trials]:
            return [f"other trials or states: {found}"]
        faults = []
        worst = max(abs(a["loss"] - b["loss"]) / abs(b["loss"]) for a, b in zip(found, self.trials, strict=True))
        if worst > within:
            faults.append(f"losses differ by {worst:.1e}")
        if not within and weights_of(study) != self.weights:
            faults.append("other weights in model/")
        if best_of(study) != self.best:
            faults.append(f"another winner: {best_of(study)}")
        for file in study.glob("trials/*/steps.jsonl"):
            steps = {json.loads(line)["step"] for line in file.read_text().splitlines() if line.endswith("}")}
            if steps != set(range(1, len(steps) + 1)):
                faults.append(f"steps are missing in {file}")
        return faults

    def difference(self, study: Path) -> float:
        """The largest relative difference of a loss."""
        pairs = zip(trials_of(study), self.trials, strict=True)
        return max(abs(a["loss"] - b["loss"]) / abs(b["loss"]) for a, b in pairs)


def best_of(study: Path) -> int | None:
    """Number of the trial that `result.json` calls the best."""
    best = json.loads((study / "result.json").read_text())["best"]
    return best["trial"] if best else None


def quiet_run(bench: Bench, *, pack: str = "off") -> Quiet:
    """Run the study undisturbed; twice, since the first measures how trials share the device."""
    for name in (f"first-{pack}", f"quiet-{pack}"):
        began, study = time.monotonic(), bench.folder / name
        code, said = bench.run(bench.tune(study, pack=pack))
        if code:
            raise SystemExit(f"the undisturbed study ended with {code}: {said[-500:]}")
    best = best_of(study)
    assert best is not None
    return Quiet(trials_of(study), weights_of(study), best, num_steps(study), time.monotonic() - began)
