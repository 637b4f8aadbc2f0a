"""The command `finestep`: which commands there are, and how errors reach a person. It imports no heavy library."""

from __future__ import annotations

import functools
import os
import sys
from typing import TYPE_CHECKING, cast

import typer

from finestep.cli import (
    data,
    diagnose,
    doctor,
    export,
    mcp,
    merge,
    probe,
    recommend,
    report,
    rescale,
    schema,
    status,
    steer,
    train,
    tune,
    watch,
)
from finestep.cli.interrupt import Stoppable, Stopped
from finestep.cli.last_door import say_error, say_stopped
from finestep.cli.plain_help import GroupedCommand, QuickGroup
from finestep.errors import BadInput

if TYPE_CHECKING:
    from typer.core import TyperGroup

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
app.command("status", cls=GroupedCommand)(status.status)
app.command("watch", cls=GroupedCommand)(watch.watch)
for name in ("stop", "pause", "resume", "add", "extend"):
    app.command(name, cls=GroupedCommand)(getattr(steer, name))
app.command("diagnose", cls=GroupedCommand)(diagnose.diagnose)
app.command("rescale", cls=GroupedCommand)(rescale.rescale)
app.command("export", cls=GroupedCommand)(export.export)
app.command("schema", cls=GroupedCommand)(schema.schema)
app.command("mcp", cls=GroupedCommand)(mcp.mcp)
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


@functools.cache
def command() -> TyperGroup:
    """All commands with their options; built once in a process."""
    return cast("TyperGroup", typer.main.get_command(app))


def main() -> int:
    """Run the command line; whatever ends it is one message and an exit code."""
    # The search's matrices are small, and the cores belong to training.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    as_json = "--json" in sys.argv[1:]
    if not_text := [one for one in sys.argv[1:] if _has_surrogates(one)]:
        return say_error(BadInput("arguments must be text in UTF-8", value=not_text[0]), as_json=as_json)
    with Stoppable() as stop:
        try:
            code = command()(standalone_mode=False)
        except Stopped as stopped:
            return say_stopped(stopped.number)
        except (Exception, SystemExit) as error:
            if stop.number is not None:
                return say_stopped(stop.number)
            if isinstance(error, SystemExit):
                raise
            return say_error(error, as_json=as_json)
    return code if isinstance(code, int) else 0


def _has_surrogates(text: str) -> bool:
    """True for a name that is no text: nothing that keeps it as JSON could read it again."""
    return any("\ud800" <= char <= "\udfff" for char in text)


if __name__ == "__main__":
    sys.exit(main())
