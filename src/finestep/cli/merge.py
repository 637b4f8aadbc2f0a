"""`finestep merge`: an adapter and its base as one model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def merge(
    folder: Annotated[Path, typer.Argument(help="Folder of an adapter, e.g. finestep-runs/STUDY/model.")],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Folder of the merged model, a new one. [default: FOLDER-merged]"),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="The last line of standard output is the result as one JSON object.")
    ] = False,
) -> None:
    """Merge an adapter into its base.

    The new folder is a whole model that loads without PEFT. It is loaded again before it gets its name, and must compute
    what the adapter does.
    """
    import json

    from finestep import wording
    from finestep.flows.merge import merge as merge_adapter
    from finestep.plain_text import plain

    result = merge_adapter(folder, out)
    if as_json:
        typer.echo(json.dumps(result))
        return
    typer.echo(f"merged model: {plain(wording.near(str(result['out'])))}")
    typer.echo(
        f"loaded again, its logits on a probe row are within {result['difference']:.1g} of the adapter's, in units of their "
        f"spread (at most {result['limit']:g} is allowed)"
    )
    typer.echo("how to load it: README.md in that folder")
