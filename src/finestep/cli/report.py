"""`finestep report`: draw the page of a study again from what is on disk."""

from __future__ import annotations

from pathlib import Path

import typer


def report(
    study: Path = typer.Argument(..., help="Folder of a study."),
    as_json: bool = typer.Option(False, "--json", help="Print the figures of the study as JSON."),
) -> None:
    """Show the card of a study, and write its page again.

    It needs no torch.
    """
    import json

    from rich.console import Console

    from finestep.cli.card import print_card
    from finestep.flows.show import show_study

    result = show_study(study)
    if as_json:
        typer.echo(json.dumps(result))
    else:
        print_card(Console(highlight=False), result)
