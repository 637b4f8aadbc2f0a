"""How studies stand, from their files: what runs, what was spent, what is best. It takes no lock and writes nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from finestep.errors import BadInput
from finestep.result import StudyResult, read_result
from finestep.search.leader import leader
from finestep.store.commands import read_steering
from finestep.store.running import read_running
from finestep.store.study_files import StudyFiles, read_spec
from finestep.store.study_folder import is_locked
from finestep.studies.spent import study_spent
from finestep.study_layout import SPEC
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
class BestSoFar:
    """The best full run of a study."""

    trial: int
    learning_rate: float
    effective_batch_size: int
    eval_loss: float | None
    metrics: dict[str, float]


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
    best: BestSoFar | None = None
    settled: bool = False
    next_command: str | None = None
    command: str | None = field(default=None, repr=False)
    paused: bool = False

    def as_values(self) -> dict[str, object]:
        """The same as plain values."""
        return {**asdict(self), "folder": str(self.folder)}


@dataclass(frozen=True)
class Tally:
    """What a study's trials say together; it changes only when one of them begins or ends.

    Attributes:
        trials: number of trials by state.
        spent: cost of the trials that have ended, in full runs.
    """

    trials: dict[str, int]
    spent: float
    best: BestSoFar | None


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


def tally(files: StudyFiles) -> Tally:
    """What the trials of a study say together."""
    trials = files.trials()
    best = leader(files.spec, trials)
    return Tally(
        trials=dict(Counter(trial.state for trial in trials)),
        spent=round(study_spent(files.spec, trials, files.known_ready()), 3),
        best=None if best is None else _figures(best),
    )


def study_status(folder: Path, *, known: Tally | None = None) -> StudyStatus:
    """How one study stands.

    Args:
        known: what its trials say, by whom follows them anyway; then no trial is read, and `under_way` is empty.

    Raises:
        BadInput: the folder holds no study.
        StudyDamaged: its database is lost or damaged.
    """
    files, working = StudyFiles(folder, read_spec(folder)), is_locked(folder)
    trials = () if known else files.trials()
    steering, running = read_steering(folder), read_running(folder)
    result = read_result(folder)
    said = known or tally(files)
    return StudyStatus(
        folder,
        working,
        trials=said.trials,
        spent=said.spent,
        budget=_budget(running, steering.full_runs, result),
        under_way=tuple(_under_way(files, trial) for trial in trials if trial.state == "running"),
        best=said.best,
        settled=result is not None and bool(result.settled) and not working,
        next_command=None if working or result is None else result.next_command,
        command=(result.command if result is not None else None) or _text(running.get("command")),
        paused=steering.paused,
    )


def _budget(running: Mapping[str, object], extended: float | None, result: StudyResult | None) -> float | None:
    """Full runs that may be spent: as the command that runs it has said, or `finestep extend`."""
    asked = running.get("budget")
    known = asked.get("full_runs") if isinstance(asked, dict) else None
    known = known or (result.spent.budget_full_runs if result else None)
    return max([one for one in (known, extended) if isinstance(one, int | float)], default=None)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _figures(trial: Trial) -> BestSoFar:
    assert trial.outcome is not None
    return BestSoFar(
        trial.number,
        trial.recipe.learning_rate,
        trial.recipe.effective_batch_size,
        trial.outcome.eval_loss,
        dict(trial.outcome.metrics),
    )


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
