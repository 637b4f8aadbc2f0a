"""Ask something of a study: checked against its files, put before its controller, and its answer awaited for a moment."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict

from pydantic import ValidationError

from finestep.errors import BadInput, first_complaint
from finestep.store.commands import Command, ask, read_steering
from finestep.store.study_files import StudyFiles, read_spec
from finestep.store.study_folder import is_locked
from finestep.studies.spent import study_spent
from finestep.studies.status import study_status
from finestep.study import StudySpec
from finestep.trial import Trial


class Told(TypedDict):
    """What became of a wish: in words, and for programs."""

    study: str
    command: dict[str, object]
    id: str
    working: bool
    done: bool
    said: str
    start_again: str | None


ANSWER_WITHIN_S = 5.0
LOOK_EVERY_S = 0.1


def steer(folder: Path, wanted: Mapping[str, object], *, wait_s: float = ANSWER_WITHIN_S) -> Told:
    """Ask a study for something; `said` is what it answered, or that it will look at its next start.

    Args:
        wanted: fields of `finestep.store.commands.Command`.
        wait_s: how long to wait for the answer of a study that runs.

    Raises:
        BadInput: the folder is no study, or what is wanted makes no sense for it.
    """
    command, spec = checked_command(wanted), read_spec(folder)
    working = is_locked(folder)
    _check(command, spec, folder, working=working)
    name = ask(folder, command)
    working = working or is_locked(folder)  # it may have been started meanwhile
    said = _answer(folder, name, wait_s) if working else None
    is_heard = said is not None
    if said is None:
        said = (
            "asked; the study answers when it has loaded, or between two steps"
            if working
            else "no process runs this study: it is done at its next start"
        )
    return Told(
        study=str(folder),
        command=command.model_dump(exclude_defaults=True),
        id=name,
        working=working,
        done=is_heard and not said.startswith("refused"),
        said=said,
        start_again=None if working else _start_again(folder),
    )


def checked_command(wanted: Mapping[str, object]) -> Command:
    """The command in some values.

    Raises:
        BadInput: a value breaks a law.
    """
    try:
        return Command.model_validate(dict(wanted))
    except ValidationError as error:
        name, law, value = first_complaint(error)
        raise BadInput(
            f"`{name}`: {law}", value=value, place="a command for a study", next_step="give another value"
        ) from None


def _check(command: Command, spec: StudySpec, folder: Path, *, working: bool) -> None:
    place = str(folder)
    if command.kind == "stop" and not working:
        raise BadInput(
            "no process runs this study: there is nothing to stop",
            place=place,
            next_step=f"`finestep status {folder}` shows how it stands",
        )
    if command.kind == "stop_trial":
        _check_trial(StudyFiles(folder, spec).trials(), command.trial, place)
    if command.kind == "add" and spec.search.strategy == "single":
        raise BadInput(
            "one training run has no search to add a trial to",
            place=place,
            next_step="`finestep tune` makes a study that takes trials of yours",
        )
    if command.kind == "extend":
        files = StudyFiles(folder, spec)
        spent = study_spent(spec, files.trials(), files.known_ready())
        if (command.full_runs or 0.0) <= spent:
            raise BadInput(
                f"the budget must be larger than what is spent, {spent:.3g} full runs",
                value=command.full_runs,
                place=place,
                next_step=f"e.g. --budget {spent + 4:.0f}; `finestep stop {folder}` ends the study",
            )
        now = study_status(folder).budget or 0.0
        if (command.full_runs or 0.0) < now:
            raise BadInput(
                f"the budget is {now:g} full runs already, and can only be made larger",
                value=command.full_runs,
                place=place,
                next_step=f"e.g. --budget {now + 2:g}; `finestep stop {folder}` ends the study sooner",
            )


def _check_trial(trials: list[Trial], number: int | None, place: str) -> None:
    running = [trial.number for trial in trials if trial.state == "running"]
    if number in running:
        return
    known = ", ".join(map(str, running)) or "none"
    if number is None or number >= len(trials):
        law = f"the study has no trial {number}"
    else:
        law = f"trial {number} has ended already ({trials[number].state})"
    raise BadInput(f"{law}; under way: {known}", place=place, next_step="name one that is under way")


def _answer(folder: Path, name: str, wait_s: float) -> str | None:
    until = time.monotonic() + wait_s
    while True:
        for done in read_steering(folder).done:
            if done.id == name:
                return done.said
        if time.monotonic() >= until or not is_locked(folder):
            return None
        time.sleep(LOOK_EVERY_S)


def _start_again(folder: Path) -> str | None:
    return study_status(folder).command
