"""Rows that differ in nothing but their numbers, as the rows of a long log mostly do: read together, without a value of its own for
each. Whatever is not exactly so is left to the readers that look at each row.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from finestep.diagnosis.training_log import Column

_PLACE = re.compile(r"(?<=[:\s])-?\d[\d.eE+-]*(?=[,}\s])")
"""A number that is the value of a name."""
_IN_NUMBERS = str.maketrans("", "", "0123456789.eE+-")
MOST_NAMES = 30


def numbers_of(texts: Sequence[str], first: object) -> tuple[tuple[str, ...], Column] | None:
    """(names, values [texts, names]) of texts that are written as the first one; None when one of them is not.

    Args:
        first: what the first text says: its names and numbers.

    >>> numbers_of(['{"step": 1, "loss": 2.5}', '{"step": 2, "loss": 2.25}'], {"step": 1, "loss": 2.5})[1].tolist()
    [[1.0, 2.5], [2.0, 2.25]]
    """
    if not isinstance(first, dict) or not 0 < len(first) <= MOST_NAMES:
        return None
    pieces, numbers = _PLACE.split(texts[0]), _PLACE.findall(texts[0])
    if not all(pieces) or not _are_the_numbers(numbers, list(first.values())):
        return None
    # What stands between two numbers becomes one mark each, another at every place of a row, so that no order is mistaken.
    marks = [chr(1 + place) for place in range(len(first))]
    between = [*pieces[1:-1], f"{pieces[-1]}\n{pieces[0]}"]
    text = "\n".join(texts)
    if not (text.startswith(pieces[0]) and text.endswith(pieces[-1])):
        return None
    text = text[len(pieces[0]) : len(text) - len(pieces[-1])]
    for piece, mark in zip(between, marks, strict=True):
        text = text.replace(piece, mark)
    values = _values(text, "".join(marks), len(texts))
    return None if values is None else (tuple(first), values)


def cells_of(lines: Sequence[str], num_cells: int, delimiter: str) -> Column | None:
    """Values [lines, cells] of the lines of a table when every cell is a number, otherwise None.

    >>> cells_of(["1,2.5", "2,2.25"], 2, ",").tolist(), cells_of(["1,2.5", "2,"], 2, ",")
    ([[1.0, 2.5], [2.0, 2.25]], None)
    """
    return _values("\n".join(lines), delimiter * (num_cells - 1) + "\n", len(lines))


def _values(text: str, marks: str, num_rows: int) -> Column | None:
    """The numbers between marks, which must stand in the same order in every row; the last mark ends a row."""
    if text.translate(_IN_NUMBERS) != (marks * num_rows)[:-1]:
        return None
    try:
        values = np.array(list(map(float, text.translate(dict.fromkeys(map(ord, marks), ",")).split(","))))
    except ValueError:
        return None
    return values.reshape(num_rows, len(marks))


def _are_the_numbers(texts: list[str], values: list[object]) -> bool:
    """True when the texts are all of the values, in their order: then no value is a word, a list or a row of its own."""
    try:
        return len(texts) == len(values) and all(
            type(value) in (int, float) and float(text) == value for text, value in zip(texts, values, strict=True)
        )
    except ValueError:
        return False
