"""How studies stand, from their files: what runs, what was spent, what is best. It takes no lock and writes nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from finestep.disk import read_object
from finestep.errors import BadInput
from finestep.flows.tune import runs_spent
from finestep.search.leader import leader
from finestep.store.commands import read_steering
from finestep.store.running import read_running
from finestep.store.study_files import RESULT, SPEC, StudyFiles, read_spec
from finestep.store.study_folder import is_locked
from finestep.trial import StepRecord, Trial

MOST_FOLDERS_DEEP = 3


@dataclass(frozen=True)
class UnderWay:
    """A trial that runs, or was running when its study stopped. `loss` and `step` are its last; None before the first step."""

    trial: int
    learning_rate: float
    effective_batch_size: int
    fidelity: float
    step: int | None
    loss: float | None


@dataclass(frozen=True)
class StudyStatus:
    """One study now.

    Attributes:
        working: a process holds the study; False: it has ended, or was stopped and goes on when its command is given again.
        spent: cost of the trials that have ended, in full runs.
        paused: `finestep pause` holds it; `finestep resume` goes on.
        best: number, rate, batch and loss of the best full run so far; None before the first.
    """

    folder: Path
    working: bool
    trials: dict[str, int]
    spent: float
    budget: float | None
    under_way: tuple[UnderWay, ...] = ()
    best: dict[str, Any] | None = None
    settled: bool = False
    next_command: str | None = None
    command: str | None = field(default=None, repr=False)
    paused: bool = False

    def as_values(self) -> dict[str, Any]:
        """The same as plain values."""
        return {**asdict(self), "folder": str(self.folder)}


def studies_in(folder: Path) -> Iterator[Path]:
    """The folders of studies at a place: itself, or those below it, in the order of their names.

    Raises:
        BadInput: there is none.
    """
    if (folder / SPEC).is_file():
        yield folder
        return
    patterns = ("/".join(["*"] * depth + [SPEC]) for depth in range(1, MOST_FOLDERS_DEEP + 1))
    found = sorted({path.parent for pattern in patterns for path in folder.glob(pattern)}) if folder.is_dir() else []
    if not found:
        raise BadInput(
            "no study is here", value=str(folder), next_step="give the folder of a study, or one that holds some"
        )
    yield from found


def study_status(folder: Path) -> StudyStatus:
    """How one study stands.

    Raises:
        BadInput: the folder holds no study.
        StudyDamaged: its database is lost or damaged.
    """
    spec = read_spec(folder)
    files, working = StudyFiles(folder, spec), is_locked(folder)
    trials = files.trials()
    result = read_object(folder / RESULT) or {}
    spent, steering = result.get("spent"), read_steering(folder)
    best = leader(spec, trials)
    return StudyStatus(
        folder,
        working,
        trials=dict(Counter(trial.state for trial in trials)),
        spent=round(runs_spent(trials), 3),
        budget=_budget(folder, steering.full_runs, spent if isinstance(spent, dict) else {}),
        under_way=tuple(_under_way(files, trial) for trial in trials if trial.state == "running"),
        best=None if best is None else _figures(best),
        settled=bool(result.get("settled")) and not working,
        next_command=None if working else result.get("next_command"),
        command=result.get("command") or read_running(folder).get("command"),
        paused=steering.paused,
    )


def _budget(folder: Path, extended: float | None, spent: dict[str, Any]) -> float | None:
    """Full runs that may be spent: as the command that runs it has said, or `finestep extend`."""
    known = (read_running(folder).get("budget") or {}).get("full_runs") or spent.get("budget_full_runs")
    both = [one for one in (known, extended) if isinstance(one, int | float)]
    return max(both, default=None)


def _figures(trial: Trial) -> dict[str, Any]:
    assert trial.outcome is not None
    return {
        "trial": trial.number,
        "learning_rate": trial.recipe.learning_rate,
        "effective_batch_size": trial.recipe.effective_batch_size,
        "eval_loss": trial.outcome.eval_loss,
        "metrics": dict(trial.outcome.metrics),
    }


def _under_way(files: StudyFiles, trial: Trial) -> UnderWay:
    steps: list[StepRecord] = files.steps(trial.number)
    last = steps[-1] if steps else None
    return UnderWay(
        trial.number,
        trial.recipe.learning_rate,
        trial.recipe.effective_batch_size,
        trial.fidelity,
        step=None if last is None else last.step,
        loss=None if last is None else last.loss,
    )
