"""The contract of `finestep/executor.py` as a suite: give it a `Rig`, and every promise is tried.

A new executor adds its rig to `RIGS` and passes; nothing here knows how an executor works inside.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from finestep.executor import Executor
from finestep.executors.command import CommandExecutor
from finestep.executors.framework import FrameworkExecutor
from finestep.executors.local import LocalExecutor
from finestep.executors.replay import ReplayExecutor
from finestep.protocol import Event, SessionRequest, TrialRequest
from finestep.recipe import Recipe
from finestep.study import CommandSpec, DataSpec, FrameworkSpec, ModelSpec
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
    spec = FrameworkSpec(name="hf", config="c.yaml", text=text, launcher=launcher, working_dir=str(folder))
    return Rig(FrameworkExecutor(spec, RECIPE, folder=folder), folder, can_fail=True)


RIGS: dict[str, Callable[[Path, Path, Path], Rig]] = {
    "local": local_rig,
    "replay": replay_rig,
    "command": command_rig,
    "framework": framework_rig,
}
"""From (folder of the trials, a small model, a small data set) to a rig."""


def ends(events: list[Event]) -> dict[int, list[str]]:
    """How each trial ended: one word a trial, where the contract is kept."""
    out: dict[int, list[str]] = {}
    for event in events:
        if event.kind in ("finished", "interrupted") and event.trial is not None:
            out.setdefault(event.trial, []).append(event.kind)
    return out
