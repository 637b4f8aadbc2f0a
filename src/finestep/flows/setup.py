"""From what a user names to a study that can run: defaults, the shipped model and data, the name of the study."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import finestep
from finestep.errors import BadInput, FinestepError, did_you_mean
from finestep.executors.command import BATCH_FIELDS, LENGTH_FIELDS, check_command, fields_of
from finestep.recipe import Method, Recipe
from finestep.search.automatic import Automatic
from finestep.search.further_fields import with_starts
from finestep.search.random_search import RandomSearch
from finestep.search.single import Single
from finestep.search.space import SearchSpace
from finestep.search.strategy import Strategy
from finestep.search.study_space import no_prior, objective_of, search_prior, search_space
from finestep.search.sweep import BASELINE_RATES, Sweep, sweep_batches
from finestep.store.optuna_sampler import OptunaSearch, check_sampler, is_sampler, sampler_names
from finestep.study import Budget, CommandSpec, DataSpec, ModelSpec, StartingPoint, StudySpec, TunedField
from finestep.survey.formats import choose_format
from finestep.survey.rows import read_rows

SHIPPED = Path(finestep.__file__).parent / "shipped"
SHIPPED_MODEL, SHIPPED_DATA = SHIPPED / "base", SHIPPED / "instruct.jsonl"
SHIPPED_GENERAL_TEXT = SHIPPED / "general.txt"
SHIPPED_MAX_LENGTH = 128
RUNS_FOLDER = "finestep-runs"
EXTERNAL = "external"
"""Stands for a model or data that only a user's own command knows."""
ASSUMED_ROWS = 10_000
LABEL_EPOCHS = 3.0
STRATEGIES = ("auto", "sweep", "random")
DEFAULT_BUDGET_RUNS = {"auto": 6.0, "single": 1.0}
"""`auto` stops by itself before, in most cases; the others take what a sweep needs."""
SWEEP_RUNS = 16.0
MAXIMISED = ("accuracy", "macro_f1", "exact_match")
MINIMISED = ("eval_loss", "perplexity")
FIELD_OF_COMMAND = {"schedule.name": "schedule"}
LEAST_BATCH_SD, LEAST_RATE_SD = 1.0, 0.6
"""Octaves: a recommendation is not believed more narrowly than this."""


def shipped_default(model: str | None, data: str | None) -> tuple[str, str, bool]:
    """(model, data, is it the shipped pair): without arguments, the pair that comes with the package."""
    if model is None and data is None:
        return str(SHIPPED_MODEL), str(SHIPPED_DATA), True
    if model is None or data is None:
        raise BadInput("give a model and data, or neither for the shipped example", value=model or data)
    return (str(SHIPPED_MODEL) if model == "shipped" else model), data, False


def command_spec(
    command: str, results: Sequence[str], *, data: DataSpec, num_rows: int | None, timeout_s: float | None
) -> CommandSpec:
    """The trainer that a command is, checked; rows are counted where data were named."""
    if num_rows is None and data.path != EXTERNAL:
        num_rows = sum(1 for _ in read_rows(data.path))
    trainer = CommandSpec(command=command, results=tuple(results), num_rows=num_rows, timeout_s=timeout_s)
    check_command(trainer)
    return trainer


def starting_recipe(method: Method, data: DataSpec) -> Recipe:
    """The conservative start: batch 16, the usual rate of the method, linear decay, early stopping off."""
    changes: dict[str, Any] = {"method": method, "learning_rate": BASELINE_RATES[method], "effective_batch_size": 16}
    if data.path != EXTERNAL and _is_labelled(data):
        changes |= {"num_epochs": LABEL_EPOCHS}
    return Recipe.model_validate(changes)


def study_name(model: str, data: str, method: str) -> str:
    """A short name from model, data and method, safe as a folder's.

    >>> study_name("/models/Tiny Llama/", "my/data.jsonl", "lora")
    'tiny-llama-data-lora'
    """
    parts = [Path(model.rstrip("/")).name, Path(data.rstrip("/")).name.partition(".")[0], method]
    return re.sub(r"[^a-z0-9._-]+", "-", "-".join(parts).lower()).strip("-.")[:60]


def check_strategy(name: str) -> None:
    """Raise BadInput for a strategy that does not exist."""
    if name in STRATEGIES or name == "single":
        return
    if not is_sampler(name):
        known = (*STRATEGIES, *(sampler for sampler in sampler_names() if sampler not in STRATEGIES))
        raise BadInput(
            f"unknown strategy{did_you_mean(name, known)}", value=name, next_step="known: " + ", ".join(known)
        )
    check_sampler(name)


def default_budget_runs(strategy: str) -> float:
    """Most full runs that a strategy may use when the user says nothing."""
    return DEFAULT_BUDGET_RUNS.get(strategy, SWEEP_RUNS)


def objective_and_goal(text: str | None) -> tuple[str, str]:
    """`accuracy`, `min:error_rate` or `max:bleu` as a name and a direction.

    >>> objective_and_goal(None), objective_and_goal("macro_f1"), objective_and_goal("min:wer")
    (('eval_loss', 'minimize'), ('macro_f1', 'maximize'), ('wer', 'minimize'))
    """
    if not text:
        return "eval_loss", "minimize"
    head, colon, tail = text.partition(":")
    if colon and head in ("min", "max"):
        return tail, "minimize" if head == "min" else "maximize"
    if text in MINIMISED:
        return text, "minimize"
    if text in MAXIMISED:
        return text, "maximize"
    hint = did_you_mean(text, (*MAXIMISED, *MINIMISED))
    raise BadInput(
        f"the direction of this objective is not known{hint}", value=text, next_step="say min:NAME or max:NAME"
    )


def starting_point(model: ModelSpec, data: DataSpec, recipe: Recipe) -> tuple[StartingPoint, str | None]:
    """(what `recommend` says about the best rate and batch, a note when it could say nothing)."""
    from finestep.flows.recommend import recommend
    from finestep.rules.compose import Ask

    if model.path == EXTERNAL:
        return no_prior(recipe), "no prior: no model was named, so the search starts from the method's usual rate"

    ask = Ask(
        method=recipe.method,
        rank=None if recipe.method == "full" else recipe.lora.rank,
        alpha=None if recipe.method == "full" else recipe.lora.alpha,
        num_epochs=recipe.num_epochs,
        num_devices=recipe.num_devices,
        target_modules=recipe.lora.target_modules,
    )
    try:
        found = recommend(model.path, None if data.path == EXTERNAL else data, ask=ask)
    except FinestepError as error:
        return no_prior(recipe), f"no prior from `recommend` ({error}): searching a wide range"
    batch = found.estimates["effective_batch_size"]
    octaves = math.log2(batch.high / batch.low) / 2.56
    return StartingPoint(
        learning_rate=10**found.log10_center,
        learning_rate_sd=max(found.log10_sd * math.log2(10), LEAST_RATE_SD),
        batch_size=batch.value,
        batch_size_sd=max(octaves, LEAST_BATCH_SD),
        why="recommend",
    ), None


def make_strategy(spec: StudySpec, card: Mapping[str, Any], *, budget: Budget | None = None) -> Strategy:
    """The strategy of a study, once the size of its data is known."""
    if spec.strategy == "single":
        return Single(spec.recipe)
    facts = card.get("facts", {})
    num_rows = int(facts.get("num_rows") or 0)
    if spec.strategy == "sweep":
        batch = spec.recipe.effective_batch_size
        batches = sweep_batches(num_rows, spec.recipe.num_epochs, baseline=batch)
        return Sweep(spec.recipe.method, batch=batch, batches=batches, scaling=spec.scaling)
    judge = make_judge(spec, card, budget=budget)
    if spec.strategy == "random":
        return RandomSearch(judge.space, seed=spec.recipe.seed)
    if spec.strategy != "auto":
        return OptunaSearch(spec.strategy, judge.space, objective_of(spec, ()), seed=spec.recipe.seed)
    return judge


def make_judge(spec: StudySpec, card: Mapping[str, Any], *, budget: Budget | None = None) -> Automatic:
    """The structured view of a study: it proposes for `auto`, and says what any study has found out."""
    facts = card.get("facts", {})
    num_rows, num_eval_rows = int(facts.get("num_rows") or 0), int(facts.get("num_eval_rows") or 0)
    start = spec.start or no_prior(spec.recipe)
    space = search_space(spec, start, num_rows=num_rows or ASSUMED_ROWS)
    return Automatic(
        spec,
        space if spec.trainer is None else _within_command(space, spec.trainer, spec.recipe),
        search_prior(start),
        num_eval_rows=num_eval_rows,
        budget_runs=budget.full_runs if budget else math.inf,
    )


def _within_command(space: SearchSpace, trainer: CommandSpec, recipe: Recipe) -> SearchSpace:
    """What the command can be told: without a length only full runs, without a batch size only its own."""
    names = fields_of(trainer.command)
    changes: dict[str, Any] = {}
    if not names & LENGTH_FIELDS:
        changes["fidelities"] = (1.0,)
    if not names & BATCH_FIELDS:
        changes["batch_sizes"] = (recipe.effective_batch_size,)
    return space.model_copy(update=changes)


def tuning_spec(
    *, model: ModelSpec, data: DataSpec, recipe: Recipe, strategy: str, with_prior: bool, **more: Any
) -> tuple[StudySpec, list[str]]:
    """(a study that searches, what to tell the user about its start)."""
    check_strategy(strategy)
    recipe = with_starts(recipe, more.get("tuned", ()))
    start, notes = None, []
    if strategy != "sweep":
        start, note = starting_point(model, data, recipe) if with_prior else (no_prior(recipe), None)
        notes = [note or start_words(start)]
    if more.get("trainer") is None:
        _check_metric(more.get("objective", "eval_loss"), more.get("metrics", ()), data)
    else:
        _check_command_study(more["trainer"], more.get("objective", "eval_loss"), more.get("tuned", ()))
    return study_spec(model=model, data=data, recipe=recipe, strategy=strategy, start=start, **more), notes


def start_words(start: StartingPoint) -> str:
    """The starting point in a sentence, with its central 80 %."""
    factor = 2 ** (1.28 * start.learning_rate_sd)
    return (
        f"start: learning rate {start.learning_rate:.1e} ({start.learning_rate / factor:.1e} to "
        f"{start.learning_rate * factor:.1e}) at batch {start.batch_size:g}, from {start.why}"
    )


def _check_metric(objective: str, metrics: tuple[str, ...], data: DataSpec) -> None:
    """A metric that no run would have is refused before anything is trained."""
    if objective in ("accuracy", "macro_f1") and not _is_labelled(data):
        raise BadInput(f"`{objective}` needs data with labels", value=data.path, place="--objective")
    if objective == "exact_match" and "exact_match" not in metrics:
        raise BadInput("the objective must be measured", value=objective, next_step="add --metric exact_match")


def _check_command_study(trainer: CommandSpec, objective: str, tuned: Sequence[TunedField]) -> None:
    """The objective is read, and what is tuned can be told to the command."""
    names = [result.partition("=")[0].strip() for result in trainer.results]
    if objective not in names:
        raise BadInput(
            "the objective must be one of the results", value=objective, next_step=f"add --result '{objective}=...'"
        )
    told = fields_of(trainer.command)
    for field in tuned:
        leaf = FIELD_OF_COMMAND.get(field.name, field.name.rpartition(".")[2])
        if leaf not in told:
            raise BadInput("`--command` must take what is tuned", value=field.name, next_step=f"add {{{leaf}}}")


def study_spec(*, model: ModelSpec, data: DataSpec, recipe: Recipe, strategy: str, **more: Any) -> StudySpec:
    """Put a study together; `max_length` of recipe and data are one."""
    check_strategy(strategy)
    if strategy == "sweep" and more.get("objective", "eval_loss") != "eval_loss":
        raise BadInput("`--strategy sweep` ranks by validation loss", value=more["objective"], place="--objective")
    if more.get("tuned") and strategy in ("sweep", "single"):
        raise BadInput(f"`--strategy {strategy}` tunes learning rate and batch size only", place="--tune")
    length = recipe.max_length or data.max_length
    data, recipe = data.model_copy(update={"max_length": length}), recipe.changed(max_length=length)
    name = study_name(model.path, data.path, recipe.method)
    return StudySpec(name=name, model=model, data=data, recipe=recipe, strategy=strategy, **more)


def _is_labelled(data: DataSpec) -> bool:
    sample = [row for _, row in read_rows(data.path, limit=50)]
    return bool(sample) and choose_format(sample, data, place=data.path)[1] == "labels"
