"""Options into checked values: a wrong one is a message, not a traceback."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from finestep.errors import BadInput

Value = TypeVar("Value", bound=BaseModel)
OPTION_NAMES = {
    "full_runs": "--budget",
    "time_s": "--time",
    "format": "--format",
    "device": "--device",
    "max_rows": "--max-rows",
    "max_length": "--max-length",
    "num_epochs": "--epochs",
    "num_threads": "--threads",
}


def checked(kind: type[Value], place: str, **values: Any) -> Value:
    """Make a value of `kind`, or raise BadInput that names the option."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise option_error(error, place) from None


def option_error(error: ValidationError, place: str) -> BadInput:
    """The first complaint of pydantic, in our words."""
    first = error.errors()[0]
    field = str(first["loc"][0]) if first["loc"] else place
    law = first["msg"].removeprefix("Value error, ")
    return BadInput(f"`{OPTION_NAMES.get(field, field)}`: {law[0].lower()}{law[1:]}", value=first["input"])
