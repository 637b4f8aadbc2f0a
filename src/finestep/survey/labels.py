"""Labels of a classifier: one spelling a class, and the kinds of labels that are none (fractions, lists, texts of their own).

It changes no row: it says what each written label stands for.
"""

from __future__ import annotations

import ast
import json
from collections import Counter
from collections.abc import Mapping

from finestep.errors import BadInput
from finestep.survey.cells import is_missing

MOST_CLASSES_SHARE, FEWEST_UNIQUE = 0.5, 12
SHOWN = 3


def written_label(value: object, place: str) -> str | None:
    """A label as it is written in a row; None when it is missing.

    Raises:
        BadInput: the row has several labels, or a mapping.
    """
    if is_missing(value):
        return None
    value = _unpacked(value)
    if isinstance(value, list | tuple):
        if len(value) > 1:
            raise BadInput(
                "a row must have one label; several labels a row (multi-label) cannot be trained here",
                value=value,
                place=place,
                next_step="keep one label a row, or write the labels as an answer: --completion '{labels}' with --prompt",
            )
        return written_label(value[0], place) if value else None
    if isinstance(value, dict):
        raise BadInput(
            "a label must be a word or a number",
            value=f"a mapping with {', '.join(map(str, list(value)[:4]))}",
            place=place,
        )
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = str(value)
    return text if text.strip() else None


def label_classes(written: Mapping[str, int], *, place: str) -> tuple[dict[str, str], list[str]]:
    """(written label -> class, notes): labels that differ by case or spaces are one class, by its most frequent spelling.

    Args:
        written: how often each label is written.

    Raises:
        BadInput: fewer than two classes, numbers with fractions, or a class for nearly each row.
    """
    _check_not_measured(written, place)
    spellings: dict[str, Counter[str]] = {}
    for label, count in written.items():
        spellings.setdefault(" ".join(label.split()).casefold(), Counter())[label] += count
    classes: dict[str, str] = {}
    notes = []
    for alike in spellings.values():
        chosen = " ".join(alike.most_common(1)[0][0].split())
        classes |= dict.fromkeys(alike, chosen)
        if len(alike) > 1:
            notes.append(f"labels that differ by case or spaces are one class: {_spelled(alike)} -> `{chosen}`")
    _check_classes(Counter({label: written[label] for label in written}), set(classes.values()), place)
    return classes, notes


def _unpacked(value: object) -> object:
    """A list that a table holds as text."""
    if not isinstance(value, str) or not (value.startswith("[") and value.rstrip().endswith("]")):
        return value
    for read in (json.loads, ast.literal_eval):
        try:
            found = read(value)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        return found if isinstance(found, list) else value
    return value


def _check_not_measured(written: Mapping[str, int], place: str) -> None:
    try:
        numbers = [float(label) for label in written]
    except ValueError:
        return
    broken = next((label for label, number in zip(written, numbers, strict=True) if not number.is_integer()), None)
    if broken is not None:
        raise BadInput(
            "labels must be classes; numbers with fractions are a measure (regression), which cannot be trained here",
            value=broken,
            place=place,
            next_step="turn them into classes, e.g. low, middle and high",
        )


def _check_classes(written: Counter[str], classes: set[str], place: str) -> None:
    if len(classes) < 2:
        raise BadInput("classification needs at least two labels", value=sorted(classes), place=place)
    num_rows = sum(written.values())
    if len(classes) >= FEWEST_UNIQUE and len(classes) > MOST_CLASSES_SHARE * num_rows:
        raise BadInput(
            f"labels must repeat; {len(classes):,} different ones in {num_rows:,} rows are texts rather than classes",
            value=next(iter(written)),
            place=place,
            next_step="if the column is an answer to write: --columns prompt=...,completion=...",
        )


def _spelled(alike: Counter[str]) -> str:
    shown = ", ".join(f"`{label}` ({count})" for label, count in alike.most_common(SHOWN))
    return shown + (f" and {len(alike) - SHOWN} more" if len(alike) > SHOWN else "")
