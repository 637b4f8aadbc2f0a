"""`finestep probe`: what fits into memory and how fast it trains; prints, and measures nothing itself."""

from __future__ import annotations

import typer

MODEL = typer.Argument(
    None, help="Model folder or Hub name; with neither model nor data: the shipped example.", show_default=False
)
DATA = typer.Argument(None, help="Data file, folder or Hub name; not needed with --predict.", show_default=False)


def probe(
    model: str = MODEL,
    data: str = DATA,
    predict: bool = typer.Option(False, "--predict", help="Only predict memory: no weights, no data, no GPU."),
    method: str = typer.Option("lora", help="full, lora or qlora."),
    gpu: str = typer.Option(
        None, help="Predict for this instead of this machine: h100, 24GB, 4xa100, cpu.", show_default=False
    ),
    max_length: int = typer.Option(None, help="Longest row in tokens (--predict: 1,024).", show_default=False),
    rank: int = typer.Option(16, min=1, max=4096, help="LoRA rank."),
    batch: int = typer.Option(16, min=1, help="Effective batch size."),
    optimizer: str = typer.Option("adamw", help="adamw or adamw_8bit, for --predict."),
    columns: str = typer.Option(
        None, help="Which column is which: prompt=question,completion=answer.", show_default=False
    ),
    setting: list[str] = typer.Option(None, "--set", help="Any field of the recipe.", show_default=False),
    price_per_hour: float = typer.Option(None, min=0, help="What an hour of this machine costs.", show_default=False),
    budget: float = typer.Option(16.0, help="Full runs of the study whose cost is told."),
    time: str = typer.Option("90s", help="About how long to measure."),
    again: bool = typer.Option(False, "--again", help="Measure even if this was measured before."),
    device: str = typer.Option("auto", help="auto, cpu, cuda or mps."),
    threads: int = typer.Option(None, help="CPU threads.", show_default=False),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object."),
) -> None:
    """Largest micro-batch, speed, packing, gradient noise, learning-rate ceiling, time and price of a run."""
    from finestep.cli import probe_view as view
    from finestep.cli.study import parse_time
    from finestep.cli.values import named_specs, one_of
    from finestep.flows import probe as flow
    from finestep.flows.setup import starting_recipe
    from finestep.recipe import Recipe
    from finestep.store.recipe_file import apply_settings

    one_of("--optimizer", optimizer, ("adamw", "adamw_8bit"))
    one_of("--method", method, ("full", "lora", "qlora"))
    if predict:
        recipe = apply_settings(Recipe.model_validate({"method": method, "lora": {"rank": rank}}), setting or [])
        answer = flow.predict_memory(
            _only_model(model),
            recipe,
            hardware=gpu,
            length=max_length or flow.LENGTH_ASSUMED,
            optimizer=optimizer,  # type: ignore[arg-type]
        )
        view.show_memory(answer, as_json=as_json)
        return
    named = named_specs(
        model, data, columns=columns, data_options={"max_length": max_length}, model_options={"device": device}
    )
    recipe = starting_recipe(method, named.data)  # type: ignore[arg-type]
    recipe = apply_settings(recipe.changed(lora={"rank": rank}, effective_batch_size=batch), setting or [])
    with view.progress(silent=as_json) as note:
        report = flow.probe(
            named.model,
            named.data,
            recipe,
            budget_s=parse_time(time) or 90.0,
            full_runs=budget,
            price_per_hour=price_per_hour,
            num_threads=threads,
            again=again,
            note=note,
        )
    view.show_report(report, as_json=as_json)


def _only_model(model: str | None) -> str:
    from finestep.errors import BadInput
    from finestep.flows.setup import SHIPPED_MODEL

    if model is None:
        raise BadInput("say which model", next_step="give a folder with a config.json, or a known name")
    return str(SHIPPED_MODEL) if model == "shipped" else model
