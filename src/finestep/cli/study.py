"""What `tune` and `train` share: run a study, show it, print its card, and end with the right exit code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from finestep.studies.run import StudyRun


STOPPED = 130
"""Exit code of a study that `finestep stop` has ended: that of Ctrl-C."""


def run_study(
    study: StudyRun,
    *,
    as_json: bool,
    notes: Sequence[str] = (),
    trackers: Sequence[str] = (),
    watch: bool = False,
) -> None:
    """Run to the end; with `as_json` everything but the last line goes to standard error.

    Args:
        notes: are said first.
        trackers: of `trackers.known.parse_trackers`.
        watch: serve the live page beside it.
    """
    from finestep.cli.card import print_card
    from finestep.cli.interrupt import Interrupt
    from finestep.cli.plots import print_plots
    from finestep.cli.screen import Screen
    from finestep.cli.terminal import open_console
    from finestep.trackers.launch import Trackers
    from finestep.watch.launch import PageBeside

    console = open_console(stderr=as_json)
    screen = Screen(console, study.spec, study.budget)
    with (
        Trackers(study.folder, trackers) as followed,
        PageBeside(study.folder, wanted=watch) as page,
        Interrupt(study.executor, say=screen.say) as interrupt,
        screen,
    ):
        if watch:
            screen.say(f"watch: {page.address}")
        for note in notes:
            screen.say(note)
        for event in study.events(interrupt.requested):
            screen.show(event)
    result = study.result
    if result is not None and not interrupt.requested() and not study.stopped_by_command:
        print_card(console, result)
        print_plots(console, result)
    for line in followed.ended():
        console.print(line, soft_wrap=True, markup=False)
    if as_json:
        typer.echo("{}" if result is None else result.as_json())
    if interrupt.exit_code is not None:
        console.print(f"stopped; go on with: {study.command}", soft_wrap=True)
        raise typer.Exit(interrupt.exit_code)
    if study.stopped_by_command:
        console.print(f"stopped by `finestep stop`; go on with: {study.command}", soft_wrap=True)
        raise typer.Exit(STOPPED)
    if result is None or not result.has_answer:
        raise typer.Exit(1)


def parse_time(text: str | None, *, option: str = "--time") -> float | None:
    """`90s`, `30m`, `2h` or plain seconds, in seconds.

    >>> parse_time("90s"), parse_time("2h")
    (90.0, 7200.0)
    """
    from finestep.errors import BadInput

    if text is None:
        return None
    units = {"s": 1.0, "m": 60.0, "h": 3600.0}
    unit = units.get(text[-1:].lower())
    try:
        seconds = float(text[:-1]) * unit if unit else float(text)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < float("inf"):
        raise BadInput(f"`{option}` takes a positive time", value=text, next_step="e.g. 90s, 30m or 2h")
    return seconds


def parse_pack(text: str) -> int | None:
    """Trials that share a forward pass: None for `auto`, 1 for `off`, or a number.

    >>> parse_pack("off"), parse_pack("4")
    (1, 4)
    """
    from finestep.errors import BadInput

    if text in {"auto", "off"}:
        return None if text == "auto" else 1
    if not text.isdecimal() or not 1 <= int(text) <= 64:
        raise BadInput("`--pack` takes auto, off or a number from 1 to 64", value=text)
    return int(text)


def this_command() -> str:
    """The command line that repeats what runs now."""
    import shlex
    import sys

    from finestep.plain_text import without_passwords

    return shlex.join(["finestep", *map(without_passwords, sys.argv[1:])])
