"""`finestep train`: one recipe, trained and watched like a trial of a study."""

from __future__ import annotations

from pathlib import Path

import typer


def train(
    recipe: Path = typer.Argument(..., help="Recipe file (YAML), e.g. what `tune` wrote."),
    model: str = typer.Argument(
        None, help="Model folder or Hub name; with neither model nor data: the shipped example.", show_default=False
    ),
    data: str = typer.Argument(None, help="Data file, folder or Hub name.", show_default=False),
    columns: str = typer.Option(
        None, help="Which column is which: prompt=question,completion=answer.", show_default=False
    ),
    data_format: str = typer.Option(
        None, "--format", help="alpaca, sharegpt, messages, prompt_completion, text or labels.", show_default=False
    ),
    eval_data: str = typer.Option(None, help="Validation rows of their own.", show_default=False),
    max_rows: int = typer.Option(None, help="Use at most this many rows.", show_default=False),
    metric: list[str] = typer.Option(None, help="Extra metric: exact_match or module:function.", show_default=False),
    on_trouble: str = typer.Option(
        "rollback", help="When the run is lost: rollback to its last good state and go on, stop, or ignore it."
    ),
    general_text: Path = typer.Option(
        None, help="General text: show how far the model moves from its base on it.", show_default=False
    ),
    max_forgetting: float = typer.Option(
        None, help="Choose no state that moved further: KL in nats a token, e.g. 0.1.", show_default=False
    ),
    setting: list[str] = typer.Option(None, "--set", help="Change a field of the recipe: seed=1.", show_default=False),
    out: Path = typer.Option(None, help="Folder of the run.", show_default=False),
    device: str = typer.Option("auto", help="auto, cpu, cuda or mps."),
    threads: int = typer.Option(None, help="CPU threads of the worker.", show_default=False),
    unsafe_pickle: bool = typer.Option(False, "--unsafe-pickle", help="Also load weights that are not safetensors."),
    trust_remote_code: bool = typer.Option(False, "--trust-remote-code", help="Run code that comes with the model."),
    as_json: bool = typer.Option(False, "--json", help="The last line of standard output is the result as JSON."),
) -> None:
    """Train a recipe. Killed or interrupted, the same command goes on where it was."""
    from finestep.cli.study import run_study, this_command
    from finestep.cli.values import named_specs, one_of, parse_retention
    from finestep.flows.session import StudyRun
    from finestep.flows.setup import RUNS_FOLDER, study_spec
    from finestep.store.recipe_file import apply_settings, read_recipe
    from finestep.study import Budget

    wanted = apply_settings(read_recipe(recipe), setting or [])
    named = named_specs(
        model,
        data,
        columns=columns,
        data_options={
            "format": data_format,
            "eval_path": eval_data,
            "max_rows": max_rows,
            "max_length": wanted.max_length,
        },
        model_options={"device": device, "unsafe_pickle": unsafe_pickle, "trust_remote_code": trust_remote_code},
    )
    spec = study_spec(
        model=named.model,
        data=named.data,
        recipe=wanted,
        strategy="single",
        num_threads=threads,
        metrics=tuple(metric or (("exact_match",) if named.is_shipped else ())),
        retention=parse_retention(general_text, max_forgetting),
    )
    study = StudyRun(
        spec,
        out or Path(RUNS_FOLDER) / f"{spec.name}-train",
        Budget(full_runs=1.0),
        command=this_command(),
        options={"on_trouble": one_of("--on-trouble", on_trouble, ("rollback", "stop", "ignore"))},
    )
    run_study(study, as_json=as_json)
