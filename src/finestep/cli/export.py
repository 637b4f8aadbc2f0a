"""`finestep export`: a recipe as another framework's files, with the rows in its format; it runs none of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from finestep.cli import options as o


def export(
    recipe: Annotated[Path, typer.Argument(help="Recipe file.")],
    to: Annotated[
        str, typer.Option(help="hf, trl, llamafactory, axolotl, ms-swift, unsloth, litgpt, torchtune, deepspeed.")
    ],
    model: Annotated[str, typer.Option(help="Model folder or Hub name; shipped: the one in the package.")] = "MODEL",
    data: Annotated[
        str, typer.Option(help="Data: a local file is split and written in the format of the framework.")
    ] = "DATA",
    columns: o.Columns = None,
    data_format: o.Format = None,
    prompt: o.Prompt = None,
    completion: o.Completion = None,
    system: o.System = None,
    rows: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Training rows of data that are not here, to turn shares into steps.",
            rich_help_panel=o.DATA,
        ),
    ] = None,
    gpu: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The card that will train: h100, 24GB, cpu. [default: this machine]",
            rich_help_panel=o.MODEL,
        ),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "--out", metavar="FOLDER", help="Folder to write into.")] = Path(
        "."
    ),
    force: Annotated[bool, typer.Option("--force", help="Overwrite files that are there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Write a recipe as another framework's config, with its data."""
    import json
    import shlex

    from finestep.cli.terminal import open_console
    from finestep.cli.values import checked, parse_columns
    from finestep.disk import make_folder, write_whole
    from finestep.errors import BadInput
    from finestep.flows.export import export_recipe
    from finestep.study import DataSpec

    texts = {"format": data_format, "prompt": prompt, "completion": completion, "system": system}
    spec = checked(DataSpec, "data", path=data, columns=parse_columns(columns), **texts)
    exported = export_recipe(recipe, to, model=model, data=spec, num_rows=rows, hardware=gpu)
    make_folder(output)
    taken = [name for name in exported.files if (output / name).exists()]
    if taken and not force:
        raise BadInput(
            "the file exists already", value=str(output / taken[0]), next_step="give another --output, or --force"
        )
    out = open_console(stderr=as_json)
    for name, text in exported.files.items():
        make_folder((output / name).parent)
        write_whole(output / name, text)
        out.print(f"wrote {output / name}", soft_wrap=True)
    where = "" if output == Path(".") else f"cd {shlex.quote(str(output))} && "
    out.print(f"start it with: {where}{exported.command}", soft_wrap=True, markup=False)
    for line in exported.cannot:
        out.print(f"  not expressed: {line}", soft_wrap=True, markup=False)
    if as_json:
        files = [str(output / name) for name in exported.files]
        typer.echo(json.dumps({"files": files, "command": exported.command, "cannot": exported.cannot}))
