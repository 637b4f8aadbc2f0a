"""The command `finestep`: which commands there are, and how errors reach a person. It imports no heavy library."""

from __future__ import annotations

import sys

import typer

from finestep.cli import data, diagnose, doctor, export, probe, recommend, report, rescale, train, tune
from finestep.errors import FinestepError

app = typer.Typer(
    name="finestep",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Finds the learning rate and the batch size of a fine-tune, trains the winner, and explains the answer.",
)
app.command("recommend")(recommend.recommend)
app.command("probe")(probe.probe)
app.command("tune")(tune.tune)
app.command("train")(train.train)
app.command("data")(data.data)
app.command("report")(report.report)
app.command("diagnose")(diagnose.diagnose)
app.command("rescale")(rescale.rescale)
app.command("export")(export.export)
app.command("doctor")(doctor.doctor)


def _version(wanted: bool) -> None:
    if wanted:
        from finestep import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    pass


def main() -> int:
    """Run the command line; errors that a user can act on are one message and their exit code."""
    try:
        app(standalone_mode=True)
    except FinestepError as error:
        sys.stderr.write(f"finestep: {error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
