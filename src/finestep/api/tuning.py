"""`tune` and `train` from Python: the same studies as on the command line, and the same folders."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from finestep.api.rows import Rows, data_path
from finestep.api.running import RunningStudy, run
from finestep.api.study import Study
from finestep.cli.values import checked, one_of
from finestep.cluster.address import parse_cluster
from finestep.errors import BadInput
from finestep.protocol import ClusterRequest, TrialOptions
from finestep.recipe import Method, Recipe
from finestep.search.further_fields import parse_tuned
from finestep.search.traits import traits_of
from finestep.store.recipe_file import write_recipe
from finestep.studies.asked import asked_recipe
from finestep.studies.event import TuneEvent
from finestep.studies.run import StudyRun
from finestep.studies.spec import RUNS_FOLDER, StudyOptions, study_spec, tuning_spec
from finestep.studies.strategies import objective_and_goal
from finestep.study import Budget, DataSpec, ModelSpec, StudySpec
from finestep.survey.shipped import SHIPPED_DATA, SHIPPED_MAX_LENGTH, shipped_default

OnEvent = Callable[[TuneEvent], None]
ASKED = "asked.yaml"
"""The recipe that a study was begun with, where it was not a file."""
DATA_OPTIONS = {
    "format": "--format",
    "prompt": "--prompt",
    "completion": "--completion",
    "system": "--system",
    "eval_path": "--eval-data",
    "eval_fraction": "--eval-share",
    "template": "--template",
    "max_rows": "--max-rows",
    "max_length": "--max-length",
}


def tune(
    model: str | Path | None = None,
    data: Rows | None = None,
    *,
    out: str | Path | None = None,
    method: Method | None = None,
    budget: float | None = None,
    time_s: float | None = None,
    recipe: Recipe | str | Path | None = None,
    epochs: float | None = None,
    settings: Mapping[str, object] | None = None,
    strategy: str = "auto",
    prior: bool = True,
    baseline: bool = True,
    tuned: str | None = None,
    objective: str | None = None,
    metrics: Sequence[str] = (),
    device: str = "auto",
    threads: int | None = None,
    pack: int | None = None,
    on: str | None = None,
    workers: int | None = None,
    check_saved: bool = True,
    on_event: OnEvent | None = None,
    progress: bool = True,
    background: bool = False,
    **data_options: object,
) -> Study | RunningStudy:
    """Find the learning rate and the batch size, train, and answer with the study. Called again, it goes on where it was.

    Args:
        model: folder or Hub name; `shipped` or None (without data) for the small model of the package.
        data: path or Hub name, rows as a list of dicts or a dict of lists, a DataFrame, or a `datasets.Dataset`.
        out: folder of the study; None: `finestep-runs/MODEL-DATA-METHOD`.
        method: full, lora or qlora; None: lora, or the recipe's.
        budget: most full runs to spend; None: 3 for `auto`, else 16.
        time_s: start no trial that would end after so many seconds.
        recipe: search around this recipe, or the file of one.
        settings: single fields by dotted name, e.g. `{"lora.rank": 8}`.
        tuned: further fields to search, e.g. `rank=8/16/64`.
        pack: trials that share a forward pass; None: measured.
        on: `ray://auto` or `ray://HOST:PORT`: train on the nodes of a Ray cluster.
        workers: with `on`, at most so many; None: one a GPU, else one a node.
        on_event: is called with each event, in the thread that runs the study; what it raises ends the study cleanly.
        progress: show a line an event.
        background: return at once, with a handle that can wait and stop.
        data_options: fields of `finestep.study.DataSpec`: columns, prompt, completion, system, eval_path, eval_fraction,
            max_rows, max_length, template, format.

    Raises:
        FinestepError: what the command would refuse, in the same words.

    >>> study = tune("Qwen/Qwen3-0.6B", rows, budget=3, out="runs/mine")  # doctest: +SKIP
    >>> study.best.recipe.learning_rate  # doctest: +SKIP
    """
    model_spec, data_spec, is_shipped = _specs(model, data, device, data_options)
    words = [f"{name}={_word(value)}" for name, value in (settings or {}).items()]
    asked = asked_recipe(data_spec, method=method, recipe=_recipe_or_file(recipe), epochs=epochs, settings=words)
    name, goal = objective_and_goal(objective)
    spec, notes = tuning_spec(
        model=model_spec,
        data=data_spec,
        recipe=asked.recipe,
        strategy=strategy,
        with_prior=prior,
        own_fields=asked.own_fields,
        options=StudyOptions(
            metrics=tuple(metrics or (("exact_match",) if is_shipped else ())),
            num_threads=threads,
            objective=name,
            goal=goal,
            tuned=parse_tuned(tuned, asked.recipe),
            with_baseline=baseline,
        ),
    )
    folder = Path(out or Path(RUNS_FOLDER) / spec.name).expanduser()
    limit = _limit(strategy, budget, time_s)
    options: dict[str, object] = {
        "--method": method,
        "--recipe": _kept_recipe(recipe, folder),
        "--epochs": epochs,
        "--set": words,
        "--budget": limit.full_runs,
        "--time": None if time_s is None else f"{time_s:g}s",
        "--strategy": strategy if strategy != "auto" else None,
        "--no-prior": not prior,
        "--no-baseline": not baseline,
        "--tune": tuned,
        "--objective": objective,
        "--on": on,
        "--workers": workers,
    }
    command = _command("tune", [model_spec.path, data_spec.path], options, spec, folder)
    where = _cluster(on, workers)
    study = StudyRun(spec, folder, limit, command=command, pack=pack, check_saved=check_saved, cluster=where)
    return run(study, notes=notes, on_event=on_event, progress=progress, background=background)


def train(
    recipe: Recipe | str | Path,
    model: str | Path,
    data: Rows,
    *,
    out: str | Path | None = None,
    metrics: Sequence[str] = (),
    device: str = "auto",
    threads: int | None = None,
    on_trouble: str = "rollback",
    on: str | None = None,
    check_saved: bool = True,
    on_event: OnEvent | None = None,
    progress: bool = True,
    background: bool = False,
    **data_options: object,
) -> Study | RunningStudy:
    """Train one recipe; a run that goes wrong is taken back to its last good state. Called again, it goes on where it was.

    Args:
        recipe: a recipe, or the file of one, e.g. `study.best.recipe`.
        on_trouble: rollback, stop or ignore.

    The other arguments are those of `tune`.
    """
    model_spec, data_spec, is_shipped = _specs(model, data, device, data_options)
    wanted = asked_recipe(data_spec, recipe=_recipe_or_file(recipe)).recipe
    spec = study_spec(
        model=model_spec,
        data=data_spec,
        recipe=wanted,
        strategy="single",
        options=StudyOptions(num_threads=threads, metrics=tuple(metrics or (("exact_match",) if is_shipped else ()))),
    )
    folder = Path(out or Path(RUNS_FOLDER) / f"{spec.name}-train").expanduser()
    kept = _kept_recipe(recipe, folder)
    options: dict[str, object] = {"--on-trouble": on_trouble if on_trouble != "rollback" else None, "--on": on}
    command = _command("train", [kept, model_spec.path, data_spec.path], options, spec, folder)
    study = StudyRun(
        spec,
        folder,
        Budget(full_runs=1.0),
        command=command,
        options=TrialOptions(on_trouble=one_of("on_trouble", on_trouble, ("rollback", "stop", "ignore"))),
        check_saved=check_saved,
        cluster=_cluster(on, None),
    )
    return run(study, on_event=on_event, progress=progress, background=background)


def _limit(strategy: str, budget: float | None, time_s: float | None) -> Budget:
    """What a study may cost; full runs by the strategy where nothing is said."""
    runs = traits_of(strategy).default_budget_runs if budget is None else budget
    return checked(Budget, "budget", full_runs=runs, time_s=time_s)


def _cluster(on: str | None, workers: int | None) -> ClusterRequest | None:
    """Where the study trains; None: on this machine."""
    if on is None and workers is not None:
        raise BadInput("`workers` would change nothing: it counts the workers of `on`", next_step="leave it out")
    return None if on is None else parse_cluster(on, workers=workers)


def _specs(
    model: str | Path | None, data: Rows | None, device: str, data_options: Mapping[str, object]
) -> tuple[ModelSpec, DataSpec, bool]:
    path, rows, is_shipped = shipped_default(
        None if model is None else str(model), None if data is None else data_path(data)
    )
    options = dict(data_options)
    if is_shipped and options.get("max_length") is None:
        options["max_length"] = SHIPPED_MAX_LENGTH
    return (
        checked(ModelSpec, "model", path=path, device=device),
        checked(DataSpec, "data", path=rows, **options),
        is_shipped,
    )


def _recipe_or_file(recipe: Recipe | str | Path | None) -> Recipe | Path | None:
    return Path(recipe) if isinstance(recipe, str) else recipe


def _word(value: object) -> str:
    """A setting's value as YAML reads it."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _kept_recipe(recipe: Recipe | str | Path | None, folder: Path) -> Path | None:
    """The file of a recipe; one that is in memory is written into the folder of the study, so that a command can name it."""
    if not isinstance(recipe, Recipe):
        return None if recipe is None else Path(recipe)
    folder.mkdir(parents=True, exist_ok=True)
    write_recipe(folder / ASKED, recipe)
    return folder / ASKED


def _command(name: str, places: Sequence[object], options: Mapping[str, object], spec: StudySpec, folder: Path) -> str:
    """The command line that repeats or continues the study."""
    data, shared = spec.data, {"--device": spec.model.device, "--threads": spec.num_threads, "--out": folder}
    of_data = {option: getattr(data, field) for field, option in DATA_OPTIONS.items()}
    columns = ",".join(f"{name}={column}" for name, column in data.columns.items()) or None
    metrics = () if (data.path, spec.metrics) == (str(SHIPPED_DATA), ("exact_match",)) else spec.metrics
    words = ["finestep", name, *map(str, places)]
    for option, value in {**options, "--columns": columns, **of_data, "--metric": metrics, **shared}.items():
        words += _option(option, value)
    return shlex.join(words)


def _option(name: str, value: object) -> list[str]:
    """An option as words; nothing for what is not said, or as it is by itself."""
    if value in (None, False, "auto", (), []):
        return []
    if value is True:
        return [name]
    if isinstance(value, list | tuple):
        return [word for one in value for word in (name, str(one))]
    return [name, f"{value:g}" if isinstance(value, float) else str(value)]
