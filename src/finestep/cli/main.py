"""The command `finestep`: which commands there are, and how errors reach a person. It imports no heavy library."""

from __future__ import annotations

import os
import sys

import typer

from finestep.cli import data, diagnose, doctor, export, merge, probe, recommend, report, rescale, train, tune
from finestep.cli.plain_help import GroupedCommand, QuickGroup
from finestep.errors import FinestepError
from finestep.plain_text import plain_lines

app = typer.Typer(
    name="finestep",
    cls=QuickGroup,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Finds the learning rate and the batch size of a fine-tune, trains the winner, and explains the answer.",
)
app.command("recommend", cls=GroupedCommand)(recommend.recommend)
app.command("probe", cls=GroupedCommand)(probe.probe)
app.command("tune", cls=GroupedCommand)(tune.tune)
app.command("train", cls=GroupedCommand)(train.train)
app.command("merge", cls=GroupedCommand)(merge.merge)
app.command("data", cls=GroupedCommand)(data.data)
app.command("report", cls=GroupedCommand)(report.report)
app.command("diagnose", cls=GroupedCommand)(diagnose.diagnose)
app.command("rescale", cls=GroupedCommand)(rescale.rescale)
app.command("export", cls=GroupedCommand)(export.export)
app.command("doctor", cls=GroupedCommand)(doctor.doctor)


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
    # The search's matrices are small, and the cores belong to training.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        app(standalone_mode=True)
    except FinestepError as error:
        sys.stderr.write(f"finestep: {plain_lines(str(error))}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
