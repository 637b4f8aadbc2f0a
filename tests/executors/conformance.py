"""The contract of `finestep/executor.py` as a suite: give it a `Rig`, and every promise is tried.

A new executor adds its rig to `RIGS` and passes; nothing here knows how an executor works inside.
"""

from __future__ import annotations

import atexit
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from finestep.executor import Executor
from finestep.executors.command import CommandExecutor
from finestep.executors.framework import FrameworkExecutor
from finestep.executors.local import LocalExecutor
from finestep.executors.process import worker_environment
from finestep.executors.ray import RayExecutor
from finestep.executors.replay import ReplayExecutor
from finestep.protocol import ClusterRequest, Event, SessionRequest, Spread, TrialRequest
from finestep.recipe import Recipe
from finestep.study import CommandSpec, DataSpec, FrameworkSpec, Launch, ModelSpec
from finestep.trial import Outcome

RECIPE = Recipe(learning_rate=1e-3, effective_batch_size=16, num_epochs=0.5)
BROKEN = RECIPE.changed(learning_rate=5e-3)
"""A trial that a rig can let fail."""


@dataclass
class Rig:
    """An executor to try, and what it can be asked.

    Attributes:
        can_fail: a trial of `BROKEN` fails.
        stops_within: it can be stopped in the middle of a trial.
    """

    executor: Executor
    folder: Path
    can_fail: bool = False
    stops_within: bool = False

    def request(self, number: int, recipe: Recipe = RECIPE) -> TrialRequest:
        return TrialRequest(number=number, recipe=recipe, folder=str(self.folder / f"{number}"))

    def outcome(self, number: int) -> Outcome:
        """What stands on disk about the end of a trial."""
        return Outcome.model_validate_json((self.folder / f"{number}" / "outcome.json").read_text())


def local_rig(folder: Path, model: Path, data: Path) -> Rig:
    session = SessionRequest(
        model=ModelSpec(path=str(model), device="cpu"),
        recipe=RECIPE,
        study_dir=str(folder),
        num_threads=1,
        data=DataSpec(path=str(data), max_length=96),
    )
    return Rig(LocalExecutor(session, folder=folder), folder, stops_within=True)


def replay_rig(folder: Path, model: Path, data: Path) -> Rig:
    def recording(recipe: Recipe, fidelity: float) -> list[float] | None:
        return None if recipe == BROKEN else [2.0, 1.5, 1.0]

    return Rig(ReplayExecutor(recording, num_train_rows=90), folder, can_fail=True)


def command_rig(folder: Path, model: Path, data: Path) -> Rig:
    command = "test {learning_rate} != 0.005 && echo eval_loss: 1.0"
    spec = CommandSpec(command=command, results=("eval_loss=eval_loss: ([0-9.]+)",), num_rows=90)
    return Rig(CommandExecutor(spec, folder=folder), folder, can_fail=True)


def framework_rig(folder: Path, model: Path, data: Path) -> Rig:
    stand_in = Path(__file__).parent.parent / "trainers" / "stand_in.py"
    text = "learning_rate: 1e-3\nfails_above: 0.004\nrows: 90\noutput_dir: out\n"
    launcher = f"{{python}} {stand_in} {{config}}"
    spec = FrameworkSpec(
        name="hf", config="c.yaml", text=text, launch=Launch(launcher=launcher, working_dir=str(folder))
    )
    return Rig(FrameworkExecutor(spec, RECIPE, folder=folder), folder, can_fail=True)


def ray_rig(folder: Path, model: Path, data: Path) -> Rig:
    session = SessionRequest(
        model=ModelSpec(path=str(model), device="cpu"),
        recipe=RECIPE,
        study_dir=str(folder / "study"),
        num_threads=1,
        data=DataSpec(path=str(data), max_length=96),
        pack=2,
        spread=Spread(cluster=ClusterRequest(address=local_cluster())),
    )
    (folder / "study").mkdir()
    return Rig(RayExecutor(session, folder=folder / "study"), folder, stops_within=True)


@lru_cache(maxsize=1)
def local_cluster() -> str:
    """The address of a cluster of one node that lives as long as this process."""
    code = (
        "import sys\nfrom ray.cluster_utils import Cluster\n"
        "cluster = Cluster(initialize_head=True, head_node_args={'num_cpus': 1, 'include_dashboard': False})\n"
        "print('address', cluster.address, flush=True)\nsys.stdin.read()\ncluster.shutdown()\n"
    )
    quiet = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0", "RAY_raylet_start_wait_time_s": "120"}
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**worker_environment(), **quiet},
    )
    atexit.register(process.communicate)
    assert process.stdout is not None
    return next(line.split()[1] for line in process.stdout if line.startswith("address"))


RIGS: dict[str, Callable[[Path, Path, Path], Rig]] = {
    "local": local_rig,
    "replay": replay_rig,
    "command": command_rig,
    "framework": framework_rig,
    "ray": ray_rig,
}
"""From (folder of the trials, a small model, a small data set) to a rig."""


def ends(events: list[Event]) -> dict[int, list[str]]:
    """How each trial ended: one word a trial, where the contract is kept."""
    out: dict[int, list[str]] = {}
    for event in events:
        if event.kind in ("finished", "interrupted") and event.trial is not None:
            out.setdefault(event.trial, []).append(event.kind)
    return out
