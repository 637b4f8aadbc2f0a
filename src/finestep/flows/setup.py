"""From what a user names to a study that can run: defaults, the shipped model and data, the name of the study."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import finestep
from finestep.errors import BadInput
from finestep.facts import DataFacts
from finestep.flows.continuing import continued, continuing_words
from finestep.flows.obeyed import check_recipe
from finestep.flows.start import (
    EXTERNAL,
    RECOMMENDED_FIELDS,
    epochs_words,
    field_words,
    own_words,
    start_words,
    starting_point,
    with_own_pair,
    with_start_fields,
)
from finestep.flows.strategies import check_strategy
from finestep.recipe import Method, Recipe
from finestep.search.further_fields import with_starts
from finestep.search.study_space import no_prior
from finestep.search.sweep import BASELINE_RATES, own_rates
from finestep.study import CommandSpec, DataSpec, ModelSpec, StudySpec, TunedField
from finestep.survey.data_sample import data_facts
from finestep.survey.formats import SAMPLE_ROWS
from finestep.survey.layout import choose_layout
from finestep.survey.rows import read_rows
from finestep.survey.split import check_one_validation
from finestep.trainers.command_fields import check_command, fields_of

SHIPPED = Path(finestep.__file__).parent / "shipped"
SHIPPED_MODEL, SHIPPED_DATA = SHIPPED / "base", SHIPPED / "instruct.jsonl"
SHIPPED_GENERAL_TEXT = SHIPPED / "general.txt"
SHIPPED_MAX_LENGTH = 128
RUNS_FOLDER = "finestep-runs"
LABEL_EPOCHS = 3.0
FIELD_OF_COMMAND = {"schedule.name": "schedule"}


def model_path(name: str) -> str:
    """A model as it is named on the command line; `shipped` is the one in the package."""
    return str(SHIPPED_MODEL) if name == "shipped" else name


def shipped_default(model: str | None, data: str | None) -> tuple[str, str, bool]:
    """(model, data, is it the shipped pair): without arguments, the pair that comes with the package."""
    if model is None and data is None:
        return str(SHIPPED_MODEL), str(SHIPPED_DATA), True
    if model is None or data is None:
        raise BadInput("give a model and data, or neither for the shipped example", value=model or data)
    return model_path(model), data, False


def command_spec(
    command: str, results: Sequence[str], *, data: DataSpec, num_rows: int | None, timeout_s: float | None
) -> CommandSpec:
    """The trainer that a command is, checked; rows are counted where data were named."""
    if num_rows is None and data.path != EXTERNAL:
        num_rows = sum(1 for _ in read_rows(data.path, limit=data.max_rows))
    trainer = CommandSpec(command=command, results=tuple(results), num_rows=num_rows, timeout_s=timeout_s)
    check_command(trainer)
    return trainer


def starting_recipe(method: Method, data: DataSpec) -> Recipe:
    """The conservative start: batch 16, the usual rate of the method, linear decay, early stopping off."""
    changes: dict[str, Any] = {"method": method, "learning_rate": BASELINE_RATES[method], "effective_batch_size": 16}
    if data.path != EXTERNAL and is_labelled(data):
        changes |= {"num_epochs": LABEL_EPOCHS}
    return Recipe.model_validate(changes)


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
    **more: Any,
) -> tuple[StudySpec, list[str]]:
    """(a study that searches, what to tell the user about its start).

    Args:
        own_fields: fields of the recipe, or whole groups, that the user has set.
    """
    check_strategy(strategy)
    recipe = with_starts(continued(model.path, recipe, own_fields), more.get("tuned", ()))
    start, notes = None, []
    if strategy != "sweep":
        start, note = no_prior(recipe), None
        if with_prior:
            known = _known_data(data, more.get("trainer"))
            start, note = starting_point(model, known, recipe)
            if "num_epochs" not in own_fields:
                notes += epochs_words(model, known, recipe)
        own = {*own_fields, *_not_the_starts(more.get("trainer"), more.get("tuned", ()))}
        recipe, start = with_start_fields(recipe, start, own=own)
        start = with_own_pair(start, recipe, own_fields)
        notes = [note or start_words(start), *own_words(start), *field_words(start), *notes]
    elif "learning_rate" in own_fields:
        start = with_own_pair(no_prior(recipe), recipe, {"learning_rate"})
        notes = [
            "as you set it: the scan begins with " + ", ".join(f"{rate:.1e}" for rate in own_rates(start.learning_rate))
        ]
    if more.get("trainer") is None:
        _check_metric(more.get("objective", "eval_loss"), more.get("metrics", ()), data)
    else:
        _check_command_study(more["trainer"], more.get("objective", "eval_loss"), more.get("tuned", ()))
    spec = study_spec(
        model=model, data=data, recipe=recipe, strategy=strategy, start=start, own_fields=own_fields, **more
    )
    return spec, [*continuing_words(model.path), *notes]


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


def _check_metric(objective: str, metrics: tuple[str, ...], data: DataSpec) -> None:
    """A metric that no run would have is refused before anything is trained."""
    if objective in ("accuracy", "macro_f1") and not is_labelled(data):
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


def study_spec(
    *,
    model: ModelSpec,
    data: DataSpec,
    recipe: Recipe,
    strategy: str,
    own_fields: Collection[str] = (),
    **more: Any,
) -> StudySpec:
    """Put a study together; `max_length` of recipe and data are one, and what would change nothing is refused."""
    check_strategy(strategy)
    recipe = continued(model.path, recipe, own_fields)
    check_one_validation(data)
    check_recipe(
        recipe,
        trainer=more.get("trainer"),
        named=own_fields,
        is_labelled=lambda: data.path == EXTERNAL or is_labelled(data),
        tuned=[field.name for field in more.get("tuned", ())],
    )
    if more.get("retention") is not None:
        _check_retention(data, more.get("trainer"))
    if strategy == "sweep" and more.get("objective", "eval_loss") != "eval_loss":
        raise BadInput("`--strategy sweep` ranks by validation loss", value=more["objective"], place="--objective")
    if more.get("tuned") and strategy in ("sweep", "single"):
        raise BadInput(f"`--strategy {strategy}` tunes learning rate and batch size only", place="--tune")
    length = one_length(data, recipe)
    data, recipe = data.model_copy(update={"max_length": length}), recipe.changed(max_length=length)
    name = study_name(model.path, data.path, recipe.method)
    return StudySpec(name=name, model=model, data=data, recipe=recipe, strategy=strategy, **more)


def one_length(data: DataSpec, recipe: Recipe) -> int | None:
    """The longest row that options and recipe ask for; two different ones are refused."""
    if data.max_length and recipe.max_length and data.max_length != recipe.max_length:
        raise BadInput(
            "`--max-length` and `max_length` of the recipe must be the same",
            value=f"{data.max_length} and {recipe.max_length}",
            next_step="give one of them",
        )
    return recipe.max_length or data.max_length


def _check_retention(data: DataSpec, trainer: CommandSpec | None) -> None:
    """Forgetting is measured on what the model writes, by our own worker."""
    place, drop = "--general-text or --max-forgetting", "leave out --general-text and --max-forgetting"
    if trainer is not None:
        raise BadInput(
            "what a command trains cannot be held against its base",
            value=trainer.command,
            place=place,
            next_step=f"{drop}, or read a figure of your own with --result",
        )
    if data.format == "labels" or (data.format is None and is_labelled(data)):
        raise BadInput(
            "forgetting is the distance between what a model would write and what its base would; a classifier writes nothing",
            value=data.path,
            place=place,
            next_step=drop,
        )


def is_labelled(data: DataSpec) -> bool:
    """True when the rows have labels rather than texts to write."""
    sample = [row for _, row in read_rows(data.path, limit=SAMPLE_ROWS)]
    return bool(sample) and choose_layout(sample, data, place=data.path).format == "labels"
