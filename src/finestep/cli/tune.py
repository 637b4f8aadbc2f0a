"""`finestep tune`: the main job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

MODEL = typer.Argument(
    None, help="Model folder or Hub name; with neither model nor data: the shipped example.", show_default=False
)
DATA = typer.Argument(None, help="Data file, folder or Hub name.", show_default=False)


def tune(
    model: str = MODEL,
    data: str = DATA,
    method: str = typer.Option("lora", help="full, lora or qlora."),
    strategy: str = typer.Option("sweep", help="How to search: sweep."),
    budget: float = typer.Option(16.0, help="At most this many full runs."),
    time: str = typer.Option(None, help="Start no trial that would end after this: 90s, 30m, 2h.", show_default=False),
    epochs: float = typer.Option(None, help="Passes over the data in a full run.", show_default=False),
    columns: str = typer.Option(
        None, help="Which column is which: prompt=question,completion=answer.", show_default=False
    ),
    data_format: str = typer.Option(
        None, "--format", help="alpaca, sharegpt, messages, prompt_completion, text or labels.", show_default=False
    ),
    eval_data: str = typer.Option(None, help="Validation rows of their own.", show_default=False),
    max_rows: int = typer.Option(None, help="Use at most this many rows.", show_default=False),
    max_length: int = typer.Option(None, help="Longest row in tokens.", show_default=False),
    metric: list[str] = typer.Option(None, help="Extra metric: exact_match or module:function.", show_default=False),
    setting: list[str] = typer.Option(
        None, "--set", help="Any field of the recipe: schedule.name=cosine.", show_default=False
    ),
    scaling: str = typer.Option("sqrt", help="How the rate moves with the batch in a sweep: sqrt, linear or none."),
    pack: str = typer.Option("auto", help="Trials that share a forward pass: auto (measured), off or a number."),
    out: Path = typer.Option(None, help="Folder of the study.", show_default=False),
    storage: str = typer.Option(None, help="Another Optuna storage URL.", show_default=False),
    device: str = typer.Option("auto", help="auto, cpu, cuda or mps."),
    threads: int = typer.Option(None, help="CPU threads of the worker.", show_default=False),
    unsafe_pickle: bool = typer.Option(False, "--unsafe-pickle", help="Also load weights that are not safetensors."),
    trust_remote_code: bool = typer.Option(False, "--trust-remote-code", help="Run code that comes with the model."),
    as_json: bool = typer.Option(False, "--json", help="The last line of standard output is the result as JSON."),
) -> None:
    """Find the learning rate and batch size of a fine-tune, and train it.

    Killed or interrupted, the same command goes on where it was.
    """
    from finestep.cli.study import parse_columns, parse_pack, parse_time, run_study, this_command
    from finestep.cli.values import checked
    from finestep.flows.session import StudyRun
    from finestep.flows.setup import RUNS_FOLDER, SHIPPED_MAX_LENGTH, shipped_default, starting_recipe, study_spec
    from finestep.store.recipe_file import apply_settings
    from finestep.study import Budget, DataSpec, ModelSpec

    model, data, is_shipped = shipped_default(model, data)
    data_spec = checked(
        DataSpec,
        "data",
        path=data,
        format=data_format,
        columns=parse_columns(columns),
        eval_path=eval_data,
        max_rows=max_rows,
        max_length=max_length or (SHIPPED_MAX_LENGTH if is_shipped else None),
    )
    model_spec = checked(
        ModelSpec, "model", path=model, device=device, unsafe_pickle=unsafe_pickle, trust_remote_code=trust_remote_code
    )
    recipe = starting_recipe(_method(method), data_spec)
    recipe = recipe.changed(num_epochs=epochs) if epochs else recipe
    recipe = apply_settings(recipe, setting or [])
    metrics = tuple(metric or (("exact_match",) if is_shipped else ()))
    spec = study_spec(
        model=model_spec,
        data=data_spec,
        recipe=recipe,
        strategy=strategy,
        scaling=_scaling(scaling),
        metrics=metrics,
        num_threads=threads,
    )
    study = StudyRun(
        spec,
        out or Path(RUNS_FOLDER) / spec.name,
        checked(Budget, "budget", full_runs=budget, time_s=parse_time(time)),
        command=this_command(),
        storage_url=storage,
        pack=parse_pack(pack),
    )
    run_study(study, as_json=as_json)


def _method(name: str) -> Any:
    return _one_of("--method", name, ("full", "lora", "qlora"))


def _scaling(name: str) -> str:
    return _one_of("--scaling", name, ("sqrt", "linear", "none"))


def _one_of(option: str, value: str, known: tuple[str, ...]) -> str:
    from finestep.errors import BadInput, did_you_mean

    if value not in known:
        raise BadInput(f"`{option}` must be one of {', '.join(known)}{did_you_mean(value, known)}", value=value)
    return value
