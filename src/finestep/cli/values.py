"""Options into checked values: a wrong one is a message, not a traceback."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from finestep.errors import BadInput, did_you_mean, first_complaint
from finestep.study import CommandSpec, DataSpec, ModelSpec, RetentionSpec

Value = TypeVar("Value", bound=BaseModel)
Word = TypeVar("Word", bound=str)
OPTION_NAMES = {
    "full_runs": "--budget",
    "time_s": "--time",
    "format": "--format",
    "device": "--device",
    "max_rows": "--max-rows",
    "eval_fraction": "--eval-share",
    "template": "--template",
    "max_length": "--max-length",
    "num_epochs": "--epochs",
    "num_threads": "--threads",
    "max_forgetting": "--max-forgetting",
}


def checked(kind: type[Value], place: str, **values: object) -> Value:
    """Make a value of `kind`, or raise BadInput that names the option."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise option_error(error, place) from None


def option_error(error: ValidationError, place: str) -> BadInput:
    """The first complaint of pydantic, in our words."""
    name, law, value = first_complaint(error)
    field = name.partition(".")[0] or place
    return BadInput(f"`{OPTION_NAMES.get(field, field)}`: {law[0].lower()}{law[1:]}", value=value)


@dataclass(frozen=True)
class Named:
    """What the user named on the command line: a model, data, and whether they are the shipped pair."""

    model: ModelSpec
    data: DataSpec
    is_shipped: bool


DATA_PARAMETERS = {
    "data_format": "format",
    "prompt": "prompt",
    "completion": "completion",
    "system": "system",
    "eval_data": "eval_path",
    "eval_share": "eval_fraction",
    "template": "template",
    "max_rows": "max_rows",
    "max_length": "max_length",
}
"""Parameters of the commands that read data, and the fields of `DataSpec` that they are."""
MODEL_PARAMETERS = ("device", "unsafe_pickle", "trust_remote_code")


def named_specs(asked: Mapping[str, object], *, max_length: int | None = None, is_external: bool = False) -> Named:
    """Model and data from the options that `tune`, `train`, `data` and `probe` share.

    Args:
        asked: the parameters of the command by name; those that it does not have stay as they are by default.
        max_length: of the recipe, where the command has no option for it.
        is_external: another program trains; neither model nor data need be named.
    """
    from finestep.study import EXTERNAL
    from finestep.survey.shipped import SHIPPED_MAX_LENGTH, shipped_default

    model, data = (None if asked.get(name) is None else str(asked[name]) for name in ("model", "data"))
    if is_external:
        model_path, data_path, is_shipped = model or EXTERNAL, data or EXTERNAL, False
    else:
        model_path, data_path, is_shipped = shipped_default(model, data)
    options = {field: asked[name] for name, field in DATA_PARAMETERS.items() if asked.get(name) is not None}
    length = options.pop("max_length", max_length)
    if length is None and is_shipped:
        length = SHIPPED_MAX_LENGTH
    columns = parse_columns(asked.get("columns"))
    data_spec = checked(DataSpec, "data", path=data_path, columns=columns, max_length=length, **options)
    of_model = {name: asked[name] for name in MODEL_PARAMETERS if name in asked}
    return Named(checked(ModelSpec, "model", path=model_path, **of_model), data_spec, is_shipped)


def with_devices(settings: list[str] | None, devices: int | None) -> list[str]:
    """The settings of the recipe with what `--devices-per-trial` says.

    >>> with_devices(["seed=1"], 2)
    ['seed=1', 'num_devices=2']
    """
    named = list(settings or [])
    if devices is None:
        return named
    if any(one.startswith("num_devices=") and one != f"num_devices={devices}" for one in named):
        raise BadInput("`--devices-per-trial` and `--set num_devices` must agree", value=devices, next_step="give one")
    return [*named, f"num_devices={devices}"]


def command_of(
    command: str | None, results: list[str] | None, *, data: DataSpec, rows: int | None, timeout: str | None
) -> CommandSpec | None:
    """The user's own trainer from `--command` and its options; None without one."""
    from finestep.cli.study import parse_time
    from finestep.studies.spec import command_spec

    if command is None:
        for option, value in (("--result", results), ("--rows", rows), ("--timeout", timeout)):
            if value:
                raise BadInput(f"`{option}` belongs to `--command`", value=value)
        return None
    return command_spec(
        command, results or (), data=data, num_rows=rows, timeout_s=parse_time(timeout, option="--timeout")
    )


def parse_columns(text: object) -> dict[str, str]:
    """`prompt=question,completion=answer` as a mapping.

    >>> parse_columns("prompt=question, completion=answer")
    {'prompt': 'question', 'completion': 'answer'}
    """
    pairs = [part.partition("=") for part in str(text or "").split(",") if part.strip()]
    if any(not name.strip() or not column.strip() for name, _, column in pairs):
        raise BadInput(
            "`--columns` takes name=column pairs", value=text, next_step="e.g. prompt=question,completion=answer"
        )
    return {name.strip(): column.strip() for name, _, column in pairs}


def one_of(option: str, value: str, known: tuple[Word, ...]) -> Word:
    """The value, if it is one of the known words.

    >>> one_of("--prefer", "speed", ("quality", "speed"))
    'speed'
    """
    for word in known:
        if word == value:
            return word
    raise BadInput(f"`{option}` must be one of {', '.join(known)}{did_you_mean(value, known)}", value=value)


def parse_retention(general_text: Path | None, max_forgetting: float | None) -> RetentionSpec | None:
    """The watch on forgetting from `--general-text` and `--max-forgetting`; None without either."""
    from finestep.survey.shipped import SHIPPED_GENERAL_TEXT

    if general_text is None and max_forgetting is None:
        return None
    path = general_text or SHIPPED_GENERAL_TEXT
    return checked(RetentionSpec, "retention", text_path=str(path), max_forgetting=max_forgetting)
