"""What a study cannot be: settings that contradict each other or the data, refused before anything is loaded."""

from __future__ import annotations

from collections.abc import Sequence

from finestep.errors import BadInput
from finestep.recipe import Recipe
from finestep.study import CommandSpec, DataSpec, TunedField
from finestep.survey.formats import SAMPLE_ROWS
from finestep.survey.layout import choose_layout
from finestep.survey.rows import read_rows
from finestep.trainers.command_fields import fields_of

FIELD_OF_COMMAND = {"schedule.name": "schedule"}


def check_metric(objective: str, metrics: tuple[str, ...], data: DataSpec) -> None:
    """A metric that no run would have is refused before anything is trained."""
    if objective in ("accuracy", "macro_f1") and not is_labelled(data):
        raise BadInput(f"`{objective}` needs data with labels", value=data.path, place="--objective")
    if objective == "exact_match" and "exact_match" not in metrics:
        raise BadInput("the objective must be measured", value=objective, next_step="add --metric exact_match")


def check_command_study(trainer: CommandSpec, objective: str, tuned: Sequence[TunedField]) -> None:
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


def one_length(data: DataSpec, recipe: Recipe) -> int | None:
    """The longest row that options and recipe ask for; two different ones are refused."""
    if data.max_length and recipe.max_length and data.max_length != recipe.max_length:
        raise BadInput(
            "`--max-length` and `max_length` of the recipe must be the same",
            value=f"{data.max_length} and {recipe.max_length}",
            next_step="give one of them",
        )
    return recipe.max_length or data.max_length


def check_retention(data: DataSpec, trainer: CommandSpec | None) -> None:
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
