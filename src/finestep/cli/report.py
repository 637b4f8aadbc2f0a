"""`finestep report`: draw the page of a study again from what is on disk."""

from __future__ import annotations

from pathlib import Path

import typer

from finestep.cli import options as o


def report(
    study: Path = typer.Argument(..., help="Folder of a study."),
    rebuild: bool = typer.Option(
        False, "--rebuild", help="Make a lost or damaged study.db again from the trials' own files."
    ),
    language: o.Language = None,
    as_json: bool = typer.Option(False, "--json", help="Print the figures of the study as JSON."),
) -> None:
    """Show the card of a study, and write its page again.

    It needs no torch, and shows a study that is being worked on too.
    """
    from rich.text import Text

    from finestep.cli.card import print_card
    from finestep.cli.terminal import open_console
    from finestep.plain_text import plain_lines
    from finestep.studies.show import show_study

    result = show_study(study, rebuild_it=rebuild)
    if as_json:
        typer.echo(result.as_json())
        return
    console = open_console()
    print_card(console, result)
    for line in result.shown:
        console.print(Text(plain_lines(line)), soft_wrap=True)
