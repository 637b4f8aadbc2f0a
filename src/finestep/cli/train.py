"""`finestep train`: one recipe, trained and watched like a trial of a study."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from finestep.cli import options as o
from finestep.cli import with_options as w

if TYPE_CHECKING:
    from finestep.recipe import Recipe


def train(
    context: typer.Context,
    recipe: Annotated[
        Path | None,
        typer.Argument(help="Recipe file (YAML): of `tune`, `recommend --yaml`, or your own.", show_default=False),
    ] = None,
    model: Annotated[
        str | None,
        typer.Argument(help="Model folder or Hub name; shipped: the one in the package.", show_default=False),
    ] = None,
    data: o.DataArgument = None,
    setting: o.Set = None,
    unsafe_pickle: o.UnsafePickle = False,
    trust_remote_code: o.TrustRemoteCode = False,
    columns: o.Columns = None,
    data_format: o.Format = None,
    prompt: o.Prompt = None,
    completion: o.Completion = None,
    system: o.System = None,
    eval_data: o.EvalData = None,
    eval_share: o.EvalShare = None,
    template: o.Template = None,
    max_rows: o.MaxRows = None,
    metric: o.Metric = None,
    general_text: o.GeneralText = None,
    max_forgetting: o.MaxForgetting = None,
    on_trouble: Annotated[
        str,
        typer.Option(
            metavar="WHAT",
            help="When the run is lost: rollback (to its last good state, and on), stop, or ignore.",
            rich_help_panel=o.QUALITY,
        ),
    ] = "rollback",
    device: o.Device = "auto",
    threads: o.Threads = None,
    with_file: w.With = None,
    trainer: w.Trainer = None,
    with_data: w.Rows = None,
    launcher: w.Launcher = None,
    python: w.Python = None,
    parallel: w.Parallel = 1,
    guard: w.Guard = None,
    timeout: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="End `--with` when it takes longer: 30m.", rich_help_panel=w.CONFIG),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Folder of the run. [default: finestep-runs/MODEL-DATA-METHOD-train]",
            rich_help_panel=o.OUTPUT,
        ),
    ] = None,
    on: o.On = None,
    devices_per_trial: o.DevicesPerTrial = None,
    sharding: o.ShardingOption = "auto",
    check_saved: o.CheckSaved = True,
    report_to: o.ReportTo = None,
    watch: o.Watch = False,
    language: o.Language = None,
    as_json: o.Json = False,
) -> None:
    """Train one recipe.

    A run that goes wrong is taken back to its last good state. Killed or interrupted, the same command goes on where it
    was.
    """
    from finestep.cli.idle_options import given, idle_on_one_device, refuse_idle
    from finestep.cli.study import run_study, this_command
    from finestep.cli.values import named_specs, one_of, parse_retention, with_devices
    from finestep.cli.with_config import refuse_without_file, run_with
    from finestep.cluster.address import parse_cluster
    from finestep.protocol import TrialOptions
    from finestep.store.recipe_file import named_fields
    from finestep.studies.run import StudyRun
    from finestep.studies.spec import RUNS_FOLDER, StudyOptions, study_spec
    from finestep.study import Budget
    from finestep.trackers.known import parse_trackers

    trackers = parse_trackers(report_to)
    if with_file is not None:
        run_with(context, is_search=False)
        return
    refuse_without_file(context)
    refuse_idle(given(context), idle_on_one_device(context.params))
    settings = with_devices(setting, devices_per_trial)
    wanted = _wanted_recipe(recipe, settings, model=model, data=data)
    named = named_specs(context.params, max_length=wanted.max_length)
    spec = study_spec(
        model=named.model,
        data=named.data,
        recipe=wanted,
        strategy="single",
        own_fields=named_fields(settings),
        options=StudyOptions(
            num_threads=threads,
            metrics=tuple(metric or (("exact_match",) if named.is_shipped else ())),
            retention=parse_retention(general_text, max_forgetting),
        ),
    )
    study = StudyRun(
        spec,
        out or Path(RUNS_FOLDER) / f"{spec.name}-train",
        Budget(full_runs=1.0),
        command=this_command(),
        options=TrialOptions(on_trouble=one_of("--on-trouble", on_trouble, ("rollback", "stop", "ignore"))),
        check_saved=check_saved,
        cluster=None if on is None else parse_cluster(on, workers=None),
        sharding=one_of("--sharding", sharding, ("auto", "on", "off")),
    )
    run_study(study, as_json=as_json, trackers=trackers, watch=watch)


def _wanted_recipe(recipe: Path | None, settings: list[str], *, model: str | None, data: str | None) -> Recipe:
    """The recipe with its settings.

    Raises:
        BadInput: recipe, model or data is missing.
    """
    from finestep.errors import BadInput
    from finestep.store.recipe_file import apply_settings, read_recipe

    if recipe is None:
        raise BadInput("say which recipe to train", next_step="finestep train RECIPE MODEL DATA, or train --with FILE")
    wanted = apply_settings(read_recipe(recipe), settings)
    if model is None or data is None:
        raise BadInput(
            "say which model and data the recipe trains",
            value=f"{recipe}" if model is None else model,
            next_step="finestep train RECIPE MODEL DATA; `shipped` names the model of the package",
        )
    return wanted
