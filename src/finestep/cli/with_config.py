"""`tune --with` and `train --with`: the review of somebody's config first, then its study."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

import typer

from finestep.cli.with_options import NOT_OF_WITH, OF_WITH

if TYPE_CHECKING:
    from finestep.studies.with_config import Wishes


def run_with(context: typer.Context, *, is_search: bool) -> None:
    """Review, plan, run and show."""
    from finestep.cli.recommend_view import show_review
    from finestep.cli.study import parse_time, run_study, this_command
    from finestep.cli.values import checked
    from finestep.search.traits import traits_of
    from finestep.store.storage_url import storage_url
    from finestep.studies.run import StudyRun
    from finestep.studies.spec import RUNS_FOLDER
    from finestep.studies.with_config import planned_study
    from finestep.study import Budget

    asked = SimpleNamespace(**context.params)
    _refuse_others(context)
    wishes = _wishes(asked, is_search=is_search)
    suffix = "" if is_search else "-train"
    planned, folder = planned_study(asked.with_file, wishes, folder=asked.out, runs_folder=RUNS_FOLDER, suffix=suffix)
    if not asked.as_json:
        show_review(planned.review, as_json=False)
    runs = getattr(asked, "budget", None)
    budget = checked(
        Budget,
        "budget",
        full_runs=1.0 if not is_search else traits_of(wishes.strategy).default_budget_runs if runs is None else runs,
        time_s=parse_time(getattr(asked, "time", None)),
    )
    study = StudyRun(
        planned.spec,
        folder,
        budget,
        command=this_command(),
        storage_url=storage_url(getattr(asked, "storage", None), folder=folder),
        check_saved=False,
    )
    run_study(study, as_json=asked.as_json, notes=planned.notes)


def _wishes(asked: SimpleNamespace, *, is_search: bool) -> Wishes:
    from finestep.cli.study import parse_time
    from finestep.cli.values import checked, one_of
    from finestep.studies.strategies import check_strategy, objective_and_goal
    from finestep.studies.with_config import Wishes
    from finestep.study import DataSpec

    name, goal = objective_and_goal(getattr(asked, "objective", None))
    data = None
    if asked.with_data is not None:
        rows = {"eval_path": asked.eval_data, "eval_fraction": asked.eval_share, "max_rows": asked.max_rows}
        data = checked(DataSpec, "data", path=asked.with_data, **rows)
    strategy = getattr(asked, "strategy", "single") if is_search else "single"
    check_strategy(strategy)
    method = getattr(asked, "method", None)
    return Wishes(
        trainer=asked.trainer,
        data=data,
        launcher=asked.launcher,
        python=asked.python,
        method=None if method is None else one_of("--method", method, ("full", "lora", "qlora")),
        epochs=getattr(asked, "epochs", None),
        timeout_s=parse_time(getattr(asked, "timeout", None), option="--timeout"),
        parallel=asked.parallel,
        guards=tuple(asked.guard or ()),
        objective=name,
        goal=goal,
        prefer=one_of("--prefer", getattr(asked, "prefer", "quality"), ("quality", "speed")),
        strategy=strategy,
        with_prior=getattr(asked, "prior", True),
        with_baseline=getattr(asked, "baseline", True),
    )


def _refuse_others(context: typer.Context) -> None:
    """Options that would change nothing beside `--with`."""
    from finestep.cli.idle_options import given, refuse_idle

    idle = dict.fromkeys(NOT_OF_WITH, "the config of `--with` decides it, or its trainer is not told")
    idle |= {"model": "the config of `--with` names the model", "data": "rows for `--with` are given by `--data`"}
    if context.params.get("with_data") is None:
        idle |= dict.fromkeys(("eval_data", "eval_share", "max_rows"), "no `--data` are given beside `--with`")
    refuse_idle(given(context), idle)


def refuse_without_file(context: typer.Context) -> None:
    """Options of `--with` that were given without it."""
    from finestep.cli.idle_options import given, refuse_idle

    refuse_idle(given(context), dict.fromkeys(OF_WITH, "it belongs to `--with`"))
