"""How studies stand, from their files: what runs, what was spent, what is best. It takes no lock and writes nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from finestep.errors import BadInput
from finestep.flows.next_command import with_budget
from finestep.result import StudyResult, read_result
from finestep.search.leader import leader
from finestep.store.commands import read_steering, waiting
from finestep.store.running import read_running
from finestep.store.study_files import StudyFiles, read_spec
from finestep.store.study_folder import is_locked
from finestep.studies.progress import Progress, progress_of
from finestep.study_layout import READY, SPEC
from finestep.trial import RANKED_STATES, Trial

MOST_FOLDERS_DEEP = 3
State = Literal["loading", "running", "paused", "stopped", "ended"]
RESUMES = "stopped (resumes)"
"""A trial that was under way when its study stopped; `stopped` alone is one that was ended early, for good."""


@dataclass(frozen=True)
class UnderWay:
    """A trial that runs, or was running when its study stopped.

    Attributes:
        step, loss: its last; None before the first step.
        steps_planned: of the whole trial; None where that is not known.
        seconds_left: until it has made them, by its last steps; None where that is not known.
    """

    trial: int
    learning_rate: float
    effective_batch_size: int
    fidelity: float
    step: int | None
    loss: float | None
    steps_planned: int | None = None
    seconds_left: float | None = None


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
        state: `loading` before its first step, `stopped` where trials wait to go on from their checkpoints.
        spent: cost so far in full runs: trials that have ended, and of those under way what they have made.
        seconds_left: until the whole budget is spent, which a search may end before; None where that is not known.
        paused: `finestep pause` holds it; `finestep resume` goes on.
        best: number, rate, batch and loss of the best full run so far; None before the first.
        reason: of a study that has ended without a result: why its trials did.
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
    state: State = "loading"
    seconds_left: float | None = None
    reason: str | None = None

    def as_values(self) -> dict[str, object]:
        """The same as plain values."""
        return {**asdict(self), "folder": str(self.folder)}


@dataclass(frozen=True)
class Tally:
    """What a study's trials say together; it changes only when one of them begins or ends.

    Attributes:
        trials: number of trials by state.
        progress: what was made until the tally was taken.
        reason: why trials ended, where none has a result.
    """

    trials: dict[str, int]
    best: BestSoFar | None
    progress: Progress
    reason: str | None = None


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
        best=None if best is None else _figures(best),
        progress=progress_of(files, trials),
        reason=_reason(trials),
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
    steering, running, result = read_steering(folder), read_running(folder), read_result(folder)
    said = known or tally(files)
    extended = _extended(folder, steering.full_runs)
    budget = _budget(running, extended, result)
    state = _state(folder, said, running, working=working, paused=steering.paused)
    command = (result.command if result is not None else None) or _text(running.get("command"))
    command = with_budget(command, budget) if command and budget and extended == budget else command
    return StudyStatus(
        folder,
        working,
        trials=said.trials if working else {RESUMES if one == "running" else one: n for one, n in said.trials.items()},
        spent=round(said.progress.spent(), 3),
        budget=budget,
        under_way=() if known else tuple(_under_way(said.progress, is_running=state == "running")),
        best=said.best,
        settled=result is not None and bool(result.settled) and not working,
        next_command=_next_command(folder, state, command, result),
        command=command,
        paused=steering.paused,
        state=state,
        seconds_left=said.progress.left_s(budget) if state == "running" else None,
        reason=said.reason if state == "ended" else None,
    )


def _state(folder: Path, said: Tally, running: Mapping[str, object], *, working: bool, paused: bool) -> State:
    if paused:
        return "paused"
    if not working:
        return "stopped" if said.trials.get("running") or not said.trials else "ended"
    has_ended = any(state != "running" for state in said.trials)
    has_begun = has_ended or any(made.step for made in said.progress.made.values())
    return "running" if has_begun and _is_loaded(folder, running) else "loading"


def _is_loaded(folder: Path, running: Mapping[str, object]) -> bool:
    """The trainer has said what it found since the study was started."""
    began = running.get("began")
    try:
        return not isinstance(began, int | float) or (folder / READY).stat().st_mtime >= began
    except OSError:
        return False


def _next_command(folder: Path, state: State, command: str | None, result: StudyResult | None) -> str | None:
    """What goes on: the same command where a trial or a wish waits for it, a larger budget for a study that ended unsettled."""
    if state == "stopped" or (state == "ended" and waiting(folder)):
        return command
    return result.next_command if state == "ended" and result is not None else None


def _extended(folder: Path, known: float | None) -> float | None:
    """The budget that `finestep extend` has set, or sets when the study starts."""
    asked = [command.full_runs for _, command in waiting(folder) if command is not None and command.full_runs]
    return max([*asked, *([known] if known else [])], default=None)


def _reason(trials: Sequence[Trial]) -> str | None:
    """Why trials ended, where none has a result."""
    ended = [trial.outcome for trial in trials if trial.outcome]
    if not ended or any(one.eval_loss is not None and one.state in RANKED_STATES for one in ended):
        return None
    return "; ".join(dict.fromkeys(f"{one.state.replace('_', ' ')}: {one.reason}" for one in ended))


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


def _under_way(progress: Progress, *, is_running: bool) -> Iterator[UnderWay]:
    for trial in progress.trials:
        if trial.state != "running":
            continue
        made, left = progress.made[trial.number], progress.trial_left_s(trial) if is_running else None
        yield UnderWay(
            trial.number,
            trial.recipe.learning_rate,
            trial.recipe.effective_batch_size,
            trial.fidelity,
            step=made.step or None,
            loss=made.loss,
            steps_planned=progress.planned_steps(trial),
            seconds_left=None if left is None else round(left, 1),
        )
