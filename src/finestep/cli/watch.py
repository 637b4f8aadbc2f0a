"""`finestep watch`: a study, or all under a folder, in the browser while they run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def watch(
    study: Annotated[
        Path | None, typer.Argument(help="Folder of a study, or of several. [default: finestep-runs]")
    ] = None,
    port: Annotated[
        int, typer.Option(metavar="N", help="Port; if 8765 is taken, the next free one.", min=0, max=65535)
    ] = 8765,
    open_it: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Address to listen on; others than this machine's need --token.")
    ] = "127.0.0.1",
    token: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Who knows it may read and steer; `new` makes one.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the address as one JSON object.")] = False,
) -> None:
    """Show studies live in the browser.

    It shows what runs, curves as they come, what the search believes and what it will try next. The page is the report's; only
    this machine can reach it. Its buttons stop, pause, add and extend. It reads files only: a study does not notice it.
    """
    import json

    from finestep.cli.terminal import open_console
    from finestep.studies.spec import RUNS_FOLDER
    from finestep.studies.status import studies_in
    from finestep.watch.serve import Address, check_place, check_server_installed, serve

    place = (study or Path(RUNS_FOLDER)).expanduser()
    check_place(host, token)
    check_server_installed()
    next(studies_in(place))
    console = open_console()

    def say(address: Address) -> None:
        if as_json:
            typer.echo(json.dumps({"watching": str(place), "url": address.url}))
            return
        console.print(f"watching {place} at {address.url}", soft_wrap=True, markup=False)
        console.print("end with Ctrl-C", markup=False)
        if open_it:
            import webbrowser

            webbrowser.open(address.url)

    serve(place, host=host, port=port, token=token, say=say)
