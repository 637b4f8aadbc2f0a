"""`finestep probe`: what fits into memory and how fast it trains; prints, and measures nothing itself."""

from __future__ import annotations

from collections.abc import Collection
from types import SimpleNamespace
from typing import Annotated

import typer

from finestep.cli import options as o

PREDICT, PRICE = "Prediction (--predict)", "Time and price"


def probe(
    context: typer.Context,
    model: o.ModelArgument = None,
    data: o.DataArgument = None,
    predict: Annotated[
        bool,
        typer.Option(
            "--predict", help="Only predict memory, as without data: no weights, no GPU.", rich_help_panel=PREDICT
        ),
    ] = False,
    gpu: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Predict for this instead of this machine: h100, 24GB, 4xa100, cpu.",
            rich_help_panel=PREDICT,
        ),
    ] = None,
    params: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Predict for a model of this size, e.g. 7B.", rich_help_panel=PREDICT),
    ] = None,
    optimizer: Annotated[
        str, typer.Option(metavar="NAME", help="adamw or adamw_8bit.", rich_help_panel=PREDICT)
    ] = "adamw",
    method: Annotated[str, typer.Option(metavar="NAME", help="full, lora or qlora.", rich_help_panel=o.MODEL)] = "lora",
    rank: Annotated[int, typer.Option(metavar="N", min=1, max=4096, help="LoRA rank.", rich_help_panel=o.MODEL)] = 16,
    batch: Annotated[
        int,
        typer.Option(
            metavar="N", min=1, help="Effective batch size: rows per optimizer step.", rich_help_panel=o.MODEL
        ),
    ] = 16,
    setting: o.Set = None,
    columns: o.Columns = None,
    max_length: Annotated[
        int | None,
        typer.Option(
            metavar="TOKENS",
            help="Cut rows that are longer. [default: what the model reads, at most 1,024; --predict: 1,024]",
            rich_help_panel=o.DATA,
        ),
    ] = None,
    price_per_hour: Annotated[
        float | None,
        typer.Option(metavar="MONEY", min=0, help="What an hour of this machine costs.", rich_help_panel=PRICE),
    ] = None,
    budget: Annotated[
        float,
        typer.Option(
            metavar="RUNS", help="Full runs of the study whose time and price are told.", rich_help_panel=PRICE
        ),
    ] = 16.0,
    device: o.Device = "auto",
    threads: o.Threads = None,
    time: Annotated[
        str, typer.Option(metavar="TIME", help="About how long to measure.", rich_help_panel=o.MEMORY)
    ] = "90s",
    again: Annotated[
        bool,
        typer.Option("--again", help="Measure even if this was measured before.", rich_help_panel=o.MEMORY),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.", rich_help_panel=o.OUTPUT)] = False,
) -> None:
    """Predict or measure memory, speed, noise, time and price.

    With a model alone its memory is predicted. With data too this machine is measured on them: largest micro-batch, speed,
    gain of trials that share a pass, gradient noise, and the learning rate that breaks.
    """
    from finestep.cli.idle_options import given, idle_in_probe, refuse_idle
    from finestep.cli.values import one_of
    from finestep.store.recipe_file import named_fields
    from finestep.studies.obeyed import MEASURED, PREDICTED, check_acting

    one_of("--optimizer", optimizer, ("adamw", "adamw_8bit"))
    one_of("--method", method, ("full", "lora", "qlora"))
    predicts, own = predict or params is not None or (model is not None and data is None), named_fields(setting or [])
    refuse_idle(given(context), idle_in_probe(predicts=predicts))
    check_acting(own, PREDICTED if predicts else MEASURED, place="a prediction" if predicts else "a measurement")
    if predicts:
        _predict(context, own)
    else:
        _measure(context, own)


def _predict(context: typer.Context, own: set[str]) -> None:
    """Memory from shapes alone."""
    from finestep.cli import probe_view as view
    from finestep.cli.idle_options import given
    from finestep.flows import probe as flow
    from finestep.recipe import Recipe
    from finestep.store.recipe_file import apply_settings
    from finestep.studies.checks import one_length
    from finestep.studies.obeyed import check_recipe
    from finestep.study import DataSpec
    from finestep.survey.shipped import model_path

    asked = SimpleNamespace(**context.params)
    start = Recipe.model_validate({"method": asked.method, "lora": {"rank": asked.rank}})
    recipe = apply_settings(start, asked.setting or [])
    check_recipe(recipe, trainer=None, named=own, is_labelled=lambda: True)
    _check_agreement(given(context), own)
    answer = flow.predict_memory(
        None if asked.model is None else model_path(asked.model),
        recipe,
        params=asked.params,
        hardware=asked.gpu,
        length=one_length(DataSpec(path="", max_length=asked.max_length), recipe),
        optimizer=asked.optimizer,
    )
    view.show_memory(answer, as_json=asked.as_json)


def _measure(context: typer.Context, own: set[str]) -> None:
    """Memory, speed, noise and the rate that breaks, on this machine and these data."""
    from finestep.cli import probe_view as view
    from finestep.cli.idle_options import given
    from finestep.cli.study import parse_time
    from finestep.cli.values import named_specs
    from finestep.flows import probe as flow
    from finestep.store.recipe_file import apply_settings
    from finestep.studies.asked import starting_recipe
    from finestep.studies.checks import is_labelled, one_length
    from finestep.studies.obeyed import check_recipe

    asked = SimpleNamespace(**context.params)
    named = named_specs(context.params)
    start = starting_recipe(asked.method, named.data)
    start = start.changed(lora={"rank": asked.rank}, effective_batch_size=asked.batch)
    recipe = apply_settings(start, asked.setting or [])
    check_recipe(recipe, trainer=None, named=own, is_labelled=lambda: is_labelled(named.data))
    _check_agreement(given(context), own)
    length = one_length(named.data, recipe)
    with view.progress(silent=asked.as_json) as note:
        report = flow.probe(
            named.model,
            named.data.model_copy(update={"max_length": length}),
            recipe.changed(max_length=length),
            budget_s=parse_time(asked.time) or 90.0,
            full_runs=asked.budget,
            price_per_hour=asked.price_per_hour,
            num_threads=asked.threads,
            again=asked.again,
            note=note,
        )
    view.show_report(report, as_json=asked.as_json)


def _check_agreement(options: Collection[str], fields: Collection[str]) -> None:
    """An option and `--set` for the same field: one would overrule the other."""
    from finestep.errors import BadInput

    same = {"method": "method", "rank": "lora.rank", "batch": "effective_batch_size"}
    for option, field in same.items():
        if option in options and field in fields:
            raise BadInput(f"`--{option}` and `--set {field}` are the same", next_step="give one of them")
