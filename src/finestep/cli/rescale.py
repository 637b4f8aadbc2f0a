"""`finestep rescale`: move a recipe to another batch or number of GPUs and say what changes; it trains nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from finestep.cli import options as o


def rescale(
    recipe: Annotated[Path, typer.Argument(help="Recipe file, or the folder of a study.")],
    batch: Annotated[int | None, typer.Option(min=1, max=65536, help="New effective batch size.")] = None,
    gpus: Annotated[int | None, typer.Option(min=1, help="New number of devices.")] = None,
    rule: Annotated[str, typer.Option(help="measured, sqrt, linear or none.")] = "measured",
    noise_scale: Annotated[
        float | None, typer.Option(min=1.0, help="Measured gradient noise scale in rows: a cap.")
    ] = None,
    adam: Annotated[bool, typer.Option("--adam", help="Also move Adam's betas and epsilon.")] = False,
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="The recipe's model: encoders move otherwise than decoders.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "--out", metavar="FILE", help="Write the new recipe here.", rich_help_panel=o.OUTPUT),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.", rich_help_panel=o.OUTPUT)] = False,
) -> None:
    """Move a recipe to another batch size or number of GPUs."""
    from dataclasses import asdict
    from json import dumps

    from finestep.cli.terminal import open_console
    from finestep.flows.next_command import after_rescale
    from finestep.flows.rescale import origin_of
    from finestep.flows.rescale import rescale as run
    from finestep.store.recipe_file import write_recipe

    origin = origin_of(recipe, model=model)
    old = origin.recipe
    moved = run(origin, batch=batch, devices=gpus, rule=rule, noise_scale=noise_scale, scale_adam=adam)  # type: ignore[arg-type]
    if output is not None:
        write_recipe(output, moved.recipe, header=f"Rescaled by finestep from {recipe.name}.")
    if json:
        print(dumps({**asdict(moved), "recipe": moved.recipe.model_dump(), "rate": moved.rate.model_dump()}))
        return
    out, rate, new = open_console(), moved.rate, moved.recipe
    if new == old:
        out.print(f"{moved.remarks[0]}, and the learning rate stays {old.learning_rate:.2e}", soft_wrap=True)
        return
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
    if output is not None:
        command = after_rescale(new, str(output), model=origin.model, data=origin.data)
        out.print(f"Next: {command}", soft_wrap=True, markup=False)
