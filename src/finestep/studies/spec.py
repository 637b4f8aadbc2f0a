"""From what a user names to the specification of a study: its start, its checks, its name."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from finestep.errors import BadInput
from finestep.facts import DataFacts
from finestep.recipe import Recipe
from finestep.search.further_fields import with_starts
from finestep.search.starting_point import (
    RECOMMENDED_FIELDS,
    field_words,
    own_words,
    start_words,
    with_own_pair,
    with_start_fields,
)
from finestep.search.study_space import no_prior
from finestep.search.sweep import own_rates
from finestep.search.traits import traits_of
from finestep.studies.checks import check_command_study, check_metric, check_retention, is_labelled, one_length
from finestep.studies.continuing import continued, continuing_words
from finestep.studies.obeyed import check_recipe
from finestep.studies.start import epochs_words, starting_point
from finestep.studies.strategies import check_strategy
from finestep.study import (
    EXTERNAL,
    CommandSpec,
    DataSpec,
    Goal,
    ModelSpec,
    RetentionSpec,
    ScalingRule,
    SearchSpec,
    StartingPoint,
    StudySpec,
    TunedField,
)
from finestep.survey.data_sample import data_facts
from finestep.survey.rows import read_rows
from finestep.survey.split import check_one_validation
from finestep.trainers.command_fields import check_command, fields_of

RUNS_FOLDER = "finestep-runs"


@dataclass(frozen=True)
class StudyOptions:
    """What a study may be asked for besides model, data, recipe and strategy; the fields are those of `StudySpec` and `SearchSpec`."""

    scaling: ScalingRule = "sqrt"
    objective: str = "eval_loss"
    goal: Goal = "minimize"
    prefer: Literal["quality", "speed"] = "quality"
    tuned: tuple[TunedField, ...] = ()
    with_baseline: bool = True
    trainer: CommandSpec | None = None
    metrics: tuple[str, ...] = ()
    num_threads: int | None = None
    retention: RetentionSpec | None = None


def command_spec(
    command: str, results: Sequence[str], *, data: DataSpec, num_rows: int | None, timeout_s: float | None
) -> CommandSpec:
    """The trainer that a command is, checked; rows are counted where data were named."""
    if num_rows is None and data.path != EXTERNAL:
        num_rows = sum(1 for _ in read_rows(data.path, limit=data.max_rows))
    trainer = CommandSpec(command=command, results=tuple(results), num_rows=num_rows, timeout_s=timeout_s)
    check_command(trainer)
    return trainer


def study_name(model: str, data: str, method: str) -> str:
    """A short name from model, data and method, safe as a folder's.

    >>> study_name("/models/Tiny Llama/", "my/data.jsonl", "lora")
    'tiny-llama-data-lora'
    """
    parts = [Path(model.rstrip("/")).name, Path(data.rstrip("/")).name.partition(".")[0], method]
    return re.sub(r"[^a-z0-9._-]+", "-", "-".join(parts).lower()).strip("-.")[:60]


def tuning_spec(
    *,
    model: ModelSpec,
    data: DataSpec,
    recipe: Recipe,
    strategy: str,
    with_prior: bool,
    own_fields: Collection[str] = (),
    options: StudyOptions = StudyOptions(),
) -> tuple[StudySpec, list[str]]:
    """(a study that searches, what to tell the user about its start).

    Args:
        own_fields: fields of the recipe, or whole groups, that the user has set.
    """
    check_strategy(strategy)
    recipe = with_starts(continued(model.path, recipe, own_fields), options.tuned)
    start: StartingPoint | None = None
    notes: list[str] = []
    if traits_of(strategy).takes_prior:
        recipe, start, notes = _start(model, data, recipe, options, with_prior=with_prior, own_fields=own_fields)
    elif "learning_rate" in own_fields:
        start = with_own_pair(no_prior(recipe), recipe, {"learning_rate"})
        notes = [
            "as you set it: the scan begins with " + ", ".join(f"{rate:.1e}" for rate in own_rates(start.learning_rate))
        ]
    if options.trainer is None:
        check_metric(options.objective, options.metrics, data)
    else:
        check_command_study(options.trainer, options.objective, options.tuned)
    spec = study_spec(
        model=model,
        data=data,
        recipe=recipe,
        strategy=strategy,
        start=start,
        own_fields=own_fields,
        options=options,
    )
    return spec, [*continuing_words(model.path), *notes]


def _start(
    model: ModelSpec,
    data: DataSpec,
    recipe: Recipe,
    options: StudyOptions,
    *,
    with_prior: bool,
    own_fields: Collection[str],
) -> tuple[Recipe, StartingPoint, list[str]]:
    """The recipe with what `recommend` sets in it, what is believed of rate and batch, and what to say of that."""
    start, note, notes = no_prior(recipe), None, []
    if with_prior:
        known = _known_data(data, options.trainer)
        start, note = starting_point(model, known, recipe)
        if "num_epochs" not in own_fields:
            notes = epochs_words(model, known, recipe)
    own = {*own_fields, *_not_the_starts(options.trainer, options.tuned)}
    recipe, start = with_start_fields(recipe, start, own=own)
    start = with_own_pair(start, recipe, own_fields)
    return recipe, start, [note or start_words(start), *own_words(start), *field_words(start), *notes]


def _known_data(data: DataSpec, trainer: CommandSpec | None) -> DataSpec | DataFacts | None:
    """What the start may know of the data; what our own training would refuse is refused here, before anything is loaded."""
    if data.path == EXTERNAL:
        return None
    return data if trainer is not None else data_facts(data)


def _not_the_starts(trainer: CommandSpec | None, tuned: Sequence[TunedField]) -> list[str]:
    """Fields that a start cannot set: those that are searched, and those that a command is not told."""
    told = None if trainer is None else fields_of(trainer.command)
    untold = [name for name in RECOMMENDED_FIELDS if told is not None and name.rpartition(".")[2] not in told]
    return [*untold, *(field.name for field in tuned)]


def study_spec(
    *,
    model: ModelSpec,
    data: DataSpec,
    recipe: Recipe,
    strategy: str,
    start: StartingPoint | None = None,
    own_fields: Collection[str] = (),
    options: StudyOptions = StudyOptions(),
) -> StudySpec:
    """Put a study together; `max_length` of recipe and data are one, and what would change nothing is refused."""
    check_strategy(strategy)
    recipe = continued(model.path, recipe, own_fields)
    check_one_validation(data)
    check_recipe(
        recipe,
        trainer=options.trainer,
        named=own_fields,
        is_labelled=lambda: data.path == EXTERNAL or is_labelled(data),
        tuned=[field.name for field in options.tuned],
    )
    if options.retention is not None:
        check_retention(data, options.trainer)
    if not traits_of(strategy).tunes_fields:
        _check_loss_and_pair(strategy, options)
    length = one_length(data, recipe)
    return StudySpec(
        name=study_name(model.path, data.path, recipe.method),
        model=model,
        data=data.model_copy(update={"max_length": length}),
        recipe=recipe.changed(max_length=length),
        search=SearchSpec(
            strategy=strategy,
            scaling=options.scaling,
            start=start,
            prefer=options.prefer,
            tuned=options.tuned,
            with_baseline=options.with_baseline,
        ),
        objective=options.objective,
        goal=options.goal,
        trainer=options.trainer,
        metrics=options.metrics,
        num_threads=options.num_threads,
        retention=options.retention,
    )


def _check_loss_and_pair(strategy: str, options: StudyOptions) -> None:
    """A strategy that knows only the loss, the rate and the batch size."""
    if options.objective != "eval_loss":
        raise BadInput(
            f"`--strategy {strategy}` ranks by validation loss", value=options.objective, place="--objective"
        )
    if options.tuned:
        raise BadInput(f"`--strategy {strategy}` tunes learning rate and batch size only", place="--tune")
