"""`finestep export`: a recipe as another framework's files; it runs none of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def export(
    recipe: Annotated[Path, typer.Argument(help="Recipe file.")],
    to: Annotated[
        str, typer.Option(help="hf, trl, llamafactory, axolotl, ms-swift, unsloth, litgpt, torchtune, deepspeed.")
    ],
    model: Annotated[str, typer.Option(help="Model folder or Hub name to write into the file.")] = "MODEL",
    data: Annotated[str, typer.Option(help="Data to write into the file; a local file is counted too.")] = "DATA",
    rows: Annotated[
        int | None, typer.Option(min=1, help="Training rows, to turn shares of the run into steps.")
    ] = None,
    output: Annotated[Path, typer.Option(help="Folder to write into.")] = Path("."),
    force: Annotated[bool, typer.Option("--force", help="Overwrite files that are there.")] = False,
) -> None:
    """Write a recipe as another framework's config."""
    from finestep.cli.terminal import open_console
    from finestep.disk import make_folder, write_whole
    from finestep.errors import BadInput
    from finestep.flows.export import count_rows, export_recipe

    num_rows = rows if rows is not None else None if data == "DATA" else count_rows(data)
    exported = export_recipe(recipe, to, model=model, data=data, num_rows=num_rows)
    make_folder(output)
    taken = [name for name in exported.files if (output / name).exists()]
    if taken and not force:
        raise BadInput(
            "the file exists already", value=str(output / taken[0]), next_step="give another --output, or --force"
        )
    out = open_console()
    for name, text in exported.files.items():
        write_whole(output / name, text)
        out.print(f"wrote {output / name}", soft_wrap=True)
    out.print(f"start it with: {exported.command}", soft_wrap=True, markup=False)
    for line in exported.cannot:
        out.print(f"  not expressed: {line}", soft_wrap=True, markup=False)
