"""`finestep tune`: the main job."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Annotated

import typer

from finestep.cli import options as o
from finestep.cli import with_options as w

if TYPE_CHECKING:
    from finestep.cli.values import Named
    from finestep.recipe import Method, Recipe
    from finestep.studies.spec import StudyOptions
    from finestep.study import StudySpec


def tune(
    context: typer.Context,
    model: o.ModelArgument = None,
    data: o.DataArgument = None,
    method: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="full (all weights), lora (a small adapter), qlora (an adapter on a 4-bit base). [default: lora, or the recipe's]",
            rich_help_panel=o.MODEL,
        ),
    ] = None,
    recipe_file: Annotated[
        Path | None,
        typer.Option(
            "--recipe",
            metavar="FILE",
            help="Search around this recipe, e.g. of `recommend --yaml`.",
            rich_help_panel=o.MODEL,
        ),
    ] = None,
    epochs: Annotated[
        float | None,
        typer.Option(
            metavar="N",
            help="Passes over the data in a full run. [default: 1, for labels 3]",
            rich_help_panel=o.MODEL,
        ),
    ] = None,
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
    max_length: o.MaxLength = None,
    budget: Annotated[
        float | None,
        typer.Option(
            metavar="RUNS",
            help="Cost at most as much as this many full runs (all data, --epochs times). [default: 3 for auto, else 16]",
            rich_help_panel=o.SEARCH,
        ),
    ] = None,
    time: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Start no trial that would end after this: 90s, 30m, 2h.",
            rich_help_panel=o.SEARCH,
        ),
    ] = None,
    strategy: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="auto; sweep (the classic procedure); random; or an Optuna sampler: tpe, gp, cmaes, ...",
            rich_help_panel=o.SEARCH,
        ),
    ] = "auto",
    tuned: Annotated[
        str | None,
        typer.Option(
            "--tune",
            metavar="FIELDS",
            help="Search these besides rate and batch size: rank,warmup or rank=8/16/64.",
            rich_help_panel=o.SEARCH,
        ),
    ] = None,
    prior: Annotated[
        bool, typer.Option(help="Start from what `recommend` says, or know nothing.", rich_help_panel=o.SEARCH)
    ] = True,
    baseline: Annotated[
        bool,
        typer.Option(
            help="With a budget of 4 and more, run the usual default too, to compare with.", rich_help_panel=o.SEARCH
        ),
    ] = True,
    scaling: Annotated[
        str,
        typer.Option(
            metavar="RULE",
            help="sweep only: how the rate moves with the batch size: sqrt, linear or none.",
            rich_help_panel=o.SEARCH,
        ),
    ] = "sqrt",
    objective: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="What is best: accuracy, macro_f1 (labels), exact_match, min:NAME or max:NAME. [default: eval_loss]",
            rich_help_panel=o.QUALITY,
        ),
    ] = None,
    prefer: Annotated[
        str,
        typer.Option(
            metavar="WHAT",
            help="quality, or speed: take a faster batch size where that costs at most 0.1 %.",
            rich_help_panel=o.QUALITY,
        ),
    ] = "quality",
    metric: o.Metric = None,
    general_text: o.GeneralText = None,
    max_forgetting: o.MaxForgetting = None,
    device: o.Device = "auto",
    threads: o.Threads = None,
    pack: Annotated[
        str,
        typer.Option(
            metavar="N",
            help="Trials that share a forward pass or the cores of a CPU: auto (measured), off, or a number a pass.",
            rich_help_panel=o.MEMORY,
        ),
    ] = "auto",
    command: Annotated[
        str | None,
        typer.Option(
            metavar="COMMAND",
            help="Train by this shell command instead: 'train.sh {learning_rate} {num_steps}'.",
            rich_help_panel=o.COMMAND,
        ),
    ] = None,
    result: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=WHERE",
            help="Where its result is: 'eval_loss=loss ([0-9.]+)' in its output, or eval_loss=out.json:key.",
            rich_help_panel=o.COMMAND,
        ),
    ] = None,
    rows: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="How many rows it trains on, if no data are named.",
            rich_help_panel=o.COMMAND,
        ),
    ] = None,
    timeout: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="End it when it takes longer: 30m.", rich_help_panel=o.COMMAND),
    ] = None,
    check_log: w.CheckLog = True,
    with_file: w.With = None,
    trainer: w.Trainer = None,
    with_data: w.Rows = None,
    launcher: w.Launcher = None,
    python: w.Python = None,
    parallel: w.Parallel = 1,
    guard: w.Guard = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Folder of the study. [default: finestep-runs/MODEL-DATA-METHOD]",
            rich_help_panel=o.OUTPUT,
        ),
    ] = None,
    on: o.On = None,
    workers: o.Workers = None,
    devices_per_trial: o.DevicesPerTrial = None,
    sharding: o.ShardingOption = "auto",
    storage: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Keep the trials in a database: postgresql://USER@HOST/NAME. [default: $FINESTEP_STORAGE]",
            rich_help_panel=o.OUTPUT,
        ),
    ] = None,
    check_saved: o.CheckSaved = True,
    report_to: o.ReportTo = None,
    watch: o.Watch = False,
    language: o.Language = None,
    as_json: o.Json = False,
) -> None:
    """Find the learning rate and the batch size, and train.

    The best model, its recipe and a report are left in the folder of the study. Killed or interrupted, the same command
    goes on where it was.
    """
    from finestep.cli.study import parse_pack, parse_time, run_study, this_command
    from finestep.cli.values import checked, one_of
    from finestep.cli.with_config import refuse_without_file, run_with
    from finestep.cluster.address import parse_cluster
    from finestep.search.traits import traits_of
    from finestep.store.storage_url import storage_url
    from finestep.studies.run import StudyRun
    from finestep.studies.spec import RUNS_FOLDER
    from finestep.study import Budget
    from finestep.trackers.known import parse_trackers

    trackers = parse_trackers(report_to)
    if with_file is not None:
        run_with(context, is_search=True)
        return
    refuse_without_file(context)
    spec, notes = planned(context)
    folder = out or Path(RUNS_FOLDER) / spec.name
    study = StudyRun(
        spec,
        folder,
        checked(
            Budget,
            "budget",
            full_runs=traits_of(strategy).default_budget_runs if budget is None else budget,
            time_s=parse_time(time),
        ),
        command=this_command(),
        storage_url=storage_url(storage, folder=folder),
        pack=parse_pack(pack),
        check_saved=check_saved,
        cluster=None if on is None else parse_cluster(on, workers=workers),
        sharding=one_of("--sharding", sharding, ("auto", "on", "off")),
    )
    run_study(study, as_json=as_json, notes=notes, trackers=trackers, watch=watch)


def planned(context: typer.Context) -> tuple[StudySpec, list[str]]:
    """(the study that the options of `tune` ask for, what to say of its start); nothing is run or written."""
    from finestep.cli.idle_options import given, idle_in_tune, idle_on_one_device, refuse_idle
    from finestep.cli.values import named_specs, with_devices
    from finestep.studies.asked import asked_recipe
    from finestep.studies.spec import tuning_spec

    asked = SimpleNamespace(**context.params)
    has_command = asked.command is not None
    idle = idle_in_tune(strategy=asked.strategy, has_command=has_command, has_data=asked.data is not None)
    refuse_idle(given(context), idle | idle_on_one_device(context.params))
    named = named_specs(context.params, is_external=has_command)
    wanted = asked_recipe(
        named.data,
        method=_method(asked.method),
        recipe=asked.recipe_file,
        epochs=asked.epochs,
        settings=with_devices(asked.setting, asked.devices_per_trial),
    )
    return tuning_spec(
        model=named.model,
        data=named.data,
        recipe=wanted.recipe,
        strategy=asked.strategy,
        with_prior=asked.prior,
        own_fields=wanted.own_fields | ({"num_epochs"} if asked.epochs is not None else set()),
        options=_options(asked, named, wanted.recipe),
    )


def _options(asked: SimpleNamespace, named: Named, recipe: Recipe) -> StudyOptions:
    """What the study is asked for besides model, data, recipe and strategy."""
    from finestep.cli.values import command_of, one_of, parse_retention
    from finestep.search.further_fields import parse_tuned
    from finestep.studies.spec import StudyOptions
    from finestep.studies.strategies import objective_and_goal

    objective, goal = objective_and_goal(asked.objective)
    trainer = command_of(asked.command, asked.result, data=named.data, rows=asked.rows, timeout=asked.timeout)
    if trainer is not None and not asked.check_log:
        trainer = trainer.model_copy(update={"check_log": False})
    return StudyOptions(
        scaling=one_of("--scaling", asked.scaling, ("sqrt", "linear", "none")),
        metrics=tuple(asked.metric or (("exact_match",) if named.is_shipped else ())),
        num_threads=asked.threads,
        objective=objective,
        goal=goal,
        prefer=one_of("--prefer", asked.prefer, ("quality", "speed")),
        tuned=parse_tuned(asked.tuned, recipe),
        with_baseline=asked.baseline,
        trainer=trainer,
        retention=parse_retention(asked.general_text, asked.max_forgetting),
    )


def _method(name: str | None) -> Method | None:
    from finestep.cli.values import one_of

    known: tuple[Method, ...] = ("full", "lora", "qlora")
    return None if name is None else one_of("--method", name, known)
