"""`finestep status`: how studies stand, also while they run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from finestep.studies.status import StudyStatus, UnderWay


def status(
    study: Annotated[
        Path | None, typer.Argument(help="Folder of a study, or of several. [default: finestep-runs]")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object with all studies.")] = False,
) -> None:
    """Show what runs, how far it is, what was spent and what is best.

    It reads files only: a running study is not disturbed. It needs no torch.
    """
    import json

    from finestep.cli.terminal import open_console
    from finestep.errors import FinestepError
    from finestep.studies.spec import RUNS_FOLDER
    from finestep.studies.status import studies_in, study_status

    console = open_console()
    shown: list[dict[str, object]] = []
    for folder in studies_in(study or Path(RUNS_FOLDER)):
        try:
            found = study_status(folder)
        except FinestepError as error:
            shown.append({"folder": str(folder), "error": str(error)})
            lines = [f"{folder}: {error}"]
        else:
            shown.append(found.as_values())
            lines = words_of(found)
        for line in () if as_json else lines:
            console.print(line, soft_wrap=True)
    if as_json:
        typer.echo(json.dumps({"studies": shown}))


def words_of(found: StudyStatus) -> list[str]:
    """One study in a few lines."""
    from finestep.studies.progress import left_words

    count = ", ".join(f"{number} {state}" for state, number in found.trials.items()) or "none yet"
    budget = f" of {found.budget:g}" if found.budget else ""
    left = f"; {left_words(found.seconds_left)}" if found.seconds_left is not None else ""
    lines = [f"{found.folder}: {found.state}; trials: {count}; {found.spent:.3g}{budget} full runs spent{left}"]
    lines += [f"    {_trial_words(trial)}" for trial in found.under_way]
    if found.reason is not None:
        lines.append(f"    no trial has a result: {found.reason}")
    if (best := found.best) is not None:
        settled = "" if found.working else "; settled" if found.settled else "; not settled"
        lines.append(
            f"    best: trial {best.trial}, {best.learning_rate:.1e} x {best.effective_batch_size}, "
            f"loss {best.eval_loss:.4g}{settled}"
        )
    if found.state == "paused":
        return [*lines, f"    go on with: finestep resume {found.folder}"]
    return [*lines, f"    go on with: {found.next_command}"] if found.next_command else lines


def _trial_words(trial: UnderWay) -> str:
    from finestep.studies.progress import time_words

    planned = f" of {trial.steps_planned}" if trial.steps_planned else ""
    where = "before its first step" if trial.step is None else f"step {trial.step}{planned}, loss {trial.loss:.4g}"
    left = f", {time_words(trial.seconds_left)} left" if trial.seconds_left is not None else ""
    return f"trial {trial.trial}: {trial.learning_rate:.1e} x {trial.effective_batch_size}, {where}{left}"
