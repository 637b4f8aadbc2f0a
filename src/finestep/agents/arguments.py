"""What the tools take: types with their descriptions, which several tools share."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from finestep.errors import BadInput
from finestep.export.registry import framework_name


def lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def _known_framework(value: object) -> object:
    """The framework by the name that is known here, if it is one."""
    try:
        return framework_name(value) if isinstance(value, str) else value
    except BadInput:
        return value


Model = Annotated[str, Field(description="Folder or Hub name; `shipped` for the small model of the package.")]
Data = Annotated[str, Field(description="File, folder or Hub name of the rows.")]
MaybeData = Annotated[str | None, Field(description="File, folder or Hub name of the rows; null: what holds for any.")]
Columns = Annotated[str | None, Field(description="Which column is which, e.g. prompt=question,completion=answer.")]
Prompt = Annotated[
    str | None, Field(description="The prompt of a row as a format string over its columns, e.g. 'Q: {question}'.")
]
Completion = Annotated[
    str | None, Field(description="The answer of a row as a format string over its columns, e.g. '{answer}'.")
]
Method = Annotated[
    Literal["full", "lora", "qlora"] | None,
    BeforeValidator(lower),
    Field(description="All weights, a small adapter, or an adapter on a 4-bit base; null: chosen for you."),
]
Gpu = Annotated[str | None, Field(description="The card that will train, e.g. 24GB, h100, 8xh100; null: this machine.")]
MaxLength = Annotated[
    int | None, Field(ge=1, description="Tokens at which rows are cut, at most the model's context; null: by the data.")
]
Study = Annotated[str, Field(description="Folder of the study: `out` of start_study.")]
LogMethod = Annotated[
    Literal["full", "lora", "qlora", "prompt", "p-tuning", "prefix"] | None,
    BeforeValidator(lower),
    Field(description="How it was trained, where no file beside the log says it."),
]
Framework = Annotated[
    Literal["hf", "trl", "llamafactory", "axolotl", "ms-swift", "unsloth", "litgpt", "torchtune", "deepspeed"],
    BeforeValidator(_known_framework),
    Field(description="The trainer that the files are for, in capitals or not."),
]
