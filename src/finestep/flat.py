"""Flat records: values that are grouped into parts in Python, and stand side by side in a file, a log or a table.

A field of a value is a part when its type is a dataclass (or, of a `Flat`, a `Part`). It knows nothing of what the values mean.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from typing import TypeVar, cast, get_type_hints

from pydantic import (
    BaseModel,
    ConfigDict,
    GetJsonSchemaHandler,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

Record = TypeVar("Record")


@cache
def parts_of(kind: type) -> dict[str, type | None]:
    """Name of each field of a dataclass, with the dataclass behind it where the field is a part."""
    hints = get_type_hints(kind)
    return {
        one.name: hints[one.name] if isinstance(hints[one.name], type) and is_dataclass(hints[one.name]) else None
        for one in fields(kind)
    }


@cache
def flat_names(kind: type) -> tuple[str, ...]:
    """The names of a dataclass and of its parts, in their order."""
    return tuple(
        name for field, part in parts_of(kind).items() for name in ((field,) if part is None else flat_names(part))
    )


def from_flat(kind: type[Record], values: Mapping[str, object]) -> Record:
    """A dataclass with its parts, from values side by side.

    Raises:
        TypeError: a value belongs nowhere, or one that is needed is missing.
    """
    plain: type = kind
    unknown = values.keys() - set(flat_names(plain))
    if unknown:
        raise TypeError(f"{plain.__name__} has no {', '.join(sorted(unknown))}")
    given: dict[str, object] = {}
    for name, part in parts_of(plain).items():
        if part is not None:
            given[name] = from_flat(part, {one: values[one] for one in flat_names(part) if one in values})
        elif name in values:
            given[name] = values[name]
    return cast(Callable[..., Record], kind)(**given)


def flat_values(value: object) -> dict[str, object]:
    """The values of a dataclass and of its parts, side by side.

    >>> from dataclasses import dataclass
    >>> @dataclass
    ... class Point:
    ...     x: float
    >>> flat_values(Point(x=1.0))
    {'x': 1.0}
    """
    kind: type = type(value)
    found: dict[str, object] = {}
    for name, part in parts_of(kind).items():
        one = getattr(value, name)
        found |= {name: one} if part is None else flat_values(one)
    return found


class Part(BaseModel):
    """A group of fields of a `Flat`, which has no place of its own in a file."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Flat(BaseModel):
    """A value of a file whose keys stand side by side, whatever parts they belong to here."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _grouped(cls, values: object) -> object:
        """Keys that stand side by side, put into their parts; values that are in their parts stay there."""
        if not isinstance(values, Mapping):
            return values
        given = dict(values)
        for name, part in _parts(cls).items():
            if name not in given:
                given[name] = {one: given.pop(one) for one in part.model_fields if one in given}
        return given

    @model_serializer(mode="wrap")
    def _side_by_side(self, handler: SerializerFunctionWrapHandler) -> dict[str, object]:
        parts = _parts(type(self))
        told: dict[str, object] = {}
        for name, value in handler(self).items():
            told |= value if name in parts else {name: value}
        return told

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """The schema of the file."""
        told, parts = handler.resolve_ref_schema(handler(schema)), _parts(cls)
        properties: JsonSchemaValue = {}
        required: list[str] = []
        for name, one in told["properties"].items():
            if name in parts:
                inner = handler.resolve_ref_schema(handler(parts[name].__pydantic_core_schema__))
                properties |= inner["properties"]
                required += inner.get("required", [])
            else:
                properties[name] = one
                required += [name] if name in told.get("required", []) else []
        return {**told, "properties": properties, "required": required}


@cache
def _parts(kind: type[Flat]) -> dict[str, type[Part]]:
    return {
        name: field.annotation
        for name, field in kind.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, Part)
    }
