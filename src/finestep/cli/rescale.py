"""`finestep rescale`: move a recipe to another batch or number of GPUs and say what changes; it trains nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def rescale(
    recipe: Annotated[Path, typer.Argument(help="Recipe file.")],
    batch: Annotated[int | None, typer.Option(min=1, max=65536, help="New effective batch size.")] = None,
    gpus: Annotated[int | None, typer.Option(min=1, help="New number of devices.")] = None,
    rule: Annotated[str, typer.Option(help="measured, sqrt, linear or none.")] = "measured",
    noise_scale: Annotated[
        float | None, typer.Option(min=1.0, help="Measured gradient noise scale in rows: a cap.")
    ] = None,
    adam: Annotated[bool, typer.Option("--adam", help="Also move Adam's betas and epsilon.")] = False,
    output: Annotated[Path | None, typer.Option(help="Write the new recipe here.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Move a recipe to another batch size or number of GPUs."""
    from dataclasses import asdict
    from json import dumps

    from finestep.cli.terminal import open_console
    from finestep.flows.rescale import rescale as run
    from finestep.store.recipe_file import read_recipe, write_recipe

    old = read_recipe(recipe)
    moved = run(old, batch=batch, devices=gpus, rule=rule, noise_scale=noise_scale, scale_adam=adam)  # type: ignore[arg-type]
    if output is not None:
        write_recipe(output, moved.recipe, header=f"Rescaled by finestep from {recipe.name}.")
    if json:
        print(dumps({**asdict(moved), "recipe": moved.recipe.model_dump(), "rate": moved.rate.model_dump()}))
        return
    out, rate, new = open_console(), moved.rate, moved.recipe
    interval = f"80 % interval {rate.low:.1e} - {rate.high:.1e}"
    out.print(
        f"learning rate {old.learning_rate:.2e} -> [bold]{rate.value:.2e}[/bold] ({interval})",
        soft_wrap=True,
        markup=True,
    )
    out.print(f"  {rate.why}", soft_wrap=True)
    out.print(f"effective batch {old.effective_batch_size} -> {new.effective_batch_size}")
    out.print(f"devices {old.num_devices} -> {new.num_devices}")
    for remark in moved.remarks:
        out.print(f"  - {remark}", soft_wrap=True)
