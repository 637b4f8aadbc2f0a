"""`finestep stop`, `pause`, `resume`, `add`, `extend`: what a user asks of a study while it runs, or for its next start."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Study = Annotated[Path, typer.Argument(help="Folder of the study.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print what was done as one JSON object.")]


def stop(
    study: Study,
    trial: Annotated[int | None, typer.Argument(help="End this trial alone; the search goes on.", min=0)] = None,
    as_json: Json = False,
) -> None:
    """End a study or one of its trials.

    A study writes checkpoints, its report and its best model so far, and the same command goes on from there. A trial that
    is stopped by hand is measured once more, and teaches the search what it has shown.
    """
    wanted: dict[str, object] = {"kind": "stop"} if trial is None else {"kind": "stop_trial", "trial": trial}
    _steer(study, wanted, as_json=as_json)


def pause(study: Study, as_json: Json = False) -> None:
    """Free the device for a while.

    The trials write checkpoints and their processes end; `finestep resume` goes on from there. A study under `--command`
    lets the command that runs come to its end, and starts no other.
    """
    _steer(study, {"kind": "pause"}, as_json=as_json)


def resume(study: Study, as_json: Json = False) -> None:
    """Go on after a pause."""
    _steer(study, {"kind": "resume"}, as_json=as_json)


def add(
    study: Study,
    lr: Annotated[float, typer.Option("--lr", metavar="RATE", help="Its peak learning rate.", show_default=False)],
    batch: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Its effective batch size. [default: the study's start]")
    ] = None,
    length: Annotated[
        float, typer.Option(metavar="SHARE", help="Share of a full run that it trains, e.g. 0.33.")
    ] = 1.0,
    as_json: Json = False,
) -> None:
    """Add a trial of your own.

    It runs next, counts towards the budget, is marked as yours, and teaches the search like any other.
    """
    wanted = {"kind": "add", "learning_rate": lr, "effective_batch_size": batch, "fidelity": length}
    _steer(study, wanted, as_json=as_json)


def extend(
    study: Study,
    budget: Annotated[
        float, typer.Option(metavar="RUNS", help="The whole budget from now on, in full runs.", show_default=False)
    ],
    as_json: Json = False,
) -> None:
    """Give a study a larger budget."""
    _steer(study, {"kind": "extend", "full_runs": budget}, as_json=as_json)


def _steer(study: Path, wanted: dict[str, object], *, as_json: bool) -> None:
    import json

    from finestep.cli.terminal import open_console
    from finestep.studies.steer import steer

    told = steer(study.expanduser(), wanted)
    if as_json:
        typer.echo(json.dumps(told))
    else:
        console = open_console()
        console.print(told["said"], soft_wrap=True, markup=False)
        if told["start_again"]:
            console.print(f"start it with: {told['start_again']}", soft_wrap=True, markup=False)
    if told["said"].startswith("refused"):
        raise typer.Exit(2)
