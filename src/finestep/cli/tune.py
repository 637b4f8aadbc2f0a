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
    method: str = typer.Option("lora", help="full, lora or qlora; a --recipe has its own."),
    recipe_file: Path = typer.Option(
        None, "--recipe", help="Start from this recipe, e.g. of recommend --yaml.", show_default=False
    ),
    strategy: str = typer.Option("auto", help="How to search: auto, sweep, random, or an Optuna sampler: tpe, gp, ..."),
    budget: float = typer.Option(
        None, help="At most this many full runs. [default: 6 for auto, else 16]", show_default=False
    ),
    time: str = typer.Option(None, help="Start no trial that would end after this: 90s, 30m, 2h.", show_default=False),
    objective: str = typer.Option(
        None, help="eval_loss, accuracy, macro_f1, exact_match, or min:NAME / max:NAME.", show_default=False
    ),
    prefer: str = typer.Option("quality", help="speed: take a faster batch size that costs at most 0.1 %."),
    tuned: str = typer.Option(
        None, "--tune", help="Search these too: rank,warmup or rank=8/16/64.", show_default=False
    ),
    prior: bool = typer.Option(True, help="Start from what `recommend` says."),
    baseline: bool = typer.Option(True, help="Run the usual default too, to compare with."),
    command: str = typer.Option(
        None, help="Train by this command instead: 'train.sh {learning_rate} {num_steps}'.", show_default=False
    ),
    result: list[str] = typer.Option(
        None, help="How its result is read: 'eval_loss=loss ([0-9.]+)' or eval_loss=out.json:key.", show_default=False
    ),
    rows: int = typer.Option(None, min=1, help="Training rows of the command.", show_default=False),
    timeout: str = typer.Option(None, help="End a command that takes longer: 30m.", show_default=False),
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
    general_text: Path = typer.Option(
        None, help="General text: show how far the model moves from its base on it.", show_default=False
    ),
    max_forgetting: float = typer.Option(
        None, help="Choose no state that moved further: KL in nats a token, e.g. 0.1.", show_default=False
    ),
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
    from finestep.cli.study import parse_pack, parse_time, run_study, this_command
    from finestep.cli.values import checked, command_of, named_specs, one_of, parse_retention
    from finestep.flows.session import StudyRun
    from finestep.flows.setup import RUNS_FOLDER, starting_recipe, tuning_spec
    from finestep.flows.start import RECOMMENDED_FIELDS
    from finestep.flows.strategies import default_budget_runs, objective_and_goal
    from finestep.search.further_fields import parse_tuned
    from finestep.store.recipe_file import apply_settings, named_fields, read_recipe
    from finestep.study import Budget

    named = named_specs(
        model,
        data,
        columns=columns,
        data_options={"format": data_format, "eval_path": eval_data, "max_rows": max_rows, "max_length": max_length},
        model_options={"device": device, "unsafe_pickle": unsafe_pickle, "trust_remote_code": trust_remote_code},
        is_external=command is not None,
    )
    trainer = command_of(command, result, data=named.data, rows=rows, timeout=timeout)
    recipe = read_recipe(recipe_file) if recipe_file else starting_recipe(_method(method), named.data)
    recipe = recipe.changed(num_epochs=epochs) if epochs else recipe
    recipe = apply_settings(recipe, setting or [])
    name, goal = objective_and_goal(objective)
    spec, notes = tuning_spec(
        model=named.model,
        data=named.data,
        recipe=recipe,
        strategy=strategy,
        with_prior=prior,
        own_fields=RECOMMENDED_FIELDS if recipe_file else named_fields(setting or []),
        scaling=one_of("--scaling", scaling, ("sqrt", "linear", "none")),
        metrics=tuple(metric or (("exact_match",) if named.is_shipped else ())),
        num_threads=threads,
        objective=name,
        goal=goal,
        prefer=one_of("--prefer", prefer, ("quality", "speed")),
        tuned=parse_tuned(tuned, recipe),
        with_baseline=baseline,
        trainer=trainer,
        retention=parse_retention(general_text, max_forgetting),
    )
    study = StudyRun(
        spec,
        out or Path(RUNS_FOLDER) / spec.name,
        checked(
            Budget,
            "budget",
            full_runs=default_budget_runs(strategy) if budget is None else budget,
            time_s=parse_time(time),
        ),
        command=this_command(),
        storage_url=storage,
        pack=parse_pack(pack),
    )
    run_study(study, as_json=as_json, notes=notes)


def _method(name: str) -> Any:
    from finestep.cli.values import one_of

    return one_of("--method", name, ("full", "lora", "qlora"))
