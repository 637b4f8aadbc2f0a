"""How a text is written from the columns of a row: columns with blank lines between, or a format string of the user's.

    prompt = Template("{context}\\n\\n{question}", option="--prompt")

A format string may name columns, and items in them (`{answers[text]}`); it can reach nothing else.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from finestep.errors import BadInput, did_you_mean
from finestep.study import DataFormat
from finestep.survey.cells import passages_of, text_of

Cell = Callable[[object, str, str], str]
"""From a cell, the name of its column and its place to text."""


class Writer(Protocol):
    """Writes one text from a row."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that it reads."""

    def write(self, row: Mapping[str, object], place: str) -> str:
        """The text."""

    def pattern(self) -> str:
        """The same as a format string."""


@dataclass(frozen=True)
class Joined:
    """The texts of columns, with blank lines between those that hold something."""

    columns: tuple[str, ...]
    cells: tuple[Cell, ...]
    required: tuple[str, ...] = ()

    def write(self, row: Mapping[str, object], place: str) -> str:
        for name in self.required:
            if name not in row:
                raise BadInput(f"the row has no `{name}`", value=list(row), place=place)
        texts = [cell(row.get(name), name, place) for name, cell in zip(self.columns, self.cells, strict=True)]
        return texts[0] if len(texts) == 1 else "\n\n".join(text for text in texts if text)

    def pattern(self) -> str:
        return "\\n\\n".join(f"{{{name}}}" for name in self.columns)


@dataclass(frozen=True)
class Template:
    """A format string of the user's; `\\n` and `\\t` in it are line breaks and tabs."""

    text: str
    option: str

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(path[0] for _, path in self._parts() if path))

    def check(self, known: Collection[str]) -> None:
        """Raise BadInput for a column that there is not, or a format string that says nothing or too much."""
        if not self.columns:
            raise BadInput(
                f"`{self.option}` must name a column", value=self.text, next_step="columns here: " + ", ".join(known)
            )
        for column in self.columns:
            if column not in known:
                raise BadInput(
                    f"no column `{column}`{did_you_mean(column, known)}",
                    place=self.option,
                    next_step="columns here: " + ", ".join(known),
                )

    def write(self, row: Mapping[str, object], place: str) -> str:
        return "".join(before + (_reach(row, path, place) if path else "") for before, path in self._parts())

    def pattern(self) -> str:
        return self.text

    def _parts(self) -> list[tuple[str, list[str]]]:
        """(text before, path of a column and the items in it) of each field."""
        plain = self.text.replace("\\n", "\n").replace("\\t", "\t")
        try:
            parsed = list(string.Formatter().parse(plain))
        except ValueError as error:
            raise BadInput(
                f"`{self.option}` is not a format string ({error})",
                value=self.text,
                next_step="write columns as {name}, and braces of the text itself twice: {{ }}",
            ) from None
        parts = []
        for before, name, spec, conversion in parsed:
            found = None if name is None else re.fullmatch(r"([^\[\]{}]+)((?:\[[^\[\]]+\])*)", name)
            if name is not None and (not found or spec or conversion):
                raise BadInput(
                    f"`{self.option}` takes columns as {{name}} or {{name[item]}}", value=f"{{{name}}}", place=self.text
                )
            parts.append((before, [found[1].strip(), *re.findall(r"\[([^\[\]]+)\]", found[2])] if found else []))
        return parts


@dataclass(frozen=True)
class Layout:
    """How a row is read: columns that hold structures by what they are for, and writers of texts."""

    format: DataFormat
    columns: Mapping[str, str] = field(default_factory=dict)
    writers: Mapping[str, Writer] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def used(self) -> set[str]:
        """All columns that reach the model, or the labels."""
        return {*self.columns.values(), *(name for writer in self.writers.values() for name in writer.columns)}


def _reach(row: Mapping[str, object], path: list[str], place: str) -> str:
    value: object = row.get(path[0])
    for step in path[1:]:
        if isinstance(value, list) and step.lstrip("-").isdecimal():
            value = value[int(step)] if -len(value) <= int(step) < len(value) else None
        elif isinstance(value, Mapping):
            value = value.get(step)
        elif value is not None:
            raise BadInput(f"`{path[0]}` has no item `{step}`", value=type(value).__name__, place=place)
    name = path[0] + "".join(f"[{step}]" for step in path[1:])
    return passages_of(value, name, place) if isinstance(value, list) else text_of(value, name, place)
