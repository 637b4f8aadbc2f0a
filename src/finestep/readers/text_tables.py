"""Tables in text: those of notebooks, of model cards (with bars between the cells), of fastai and of spaCy; it opens no file."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping

from finestep.readers.column_names import role_of
from finestep.readers.row_table import RowTable

_NUMBER = r"(?:[-+]?[\d.,]+(?:[eE][-+]?\d+)?|nan|NaN|\d+(?::\d\d)+|None|No[ _]log)"
_CELLS = re.compile(rf"\s*{_NUMBER}(?:\s+{_NUMBER})+\s*")
_BARRED_CELLS = re.compile(rf"\s*\|\s*{_NUMBER}\s*(?:\|\s*{_NUMBER}\s*)+\|?\s*")
_RULE = re.compile(r"\s*\|?[\s|:-]*-{3}[\s|:-]*")
"""The line between a header and its rows."""
_SPACY = {"E": "epoch", "#": "step", "SCORE": "eval_score"}


def table_header(first: list[str]) -> list[str] | None:
    """The names of a table: a line of known names, then lines of as many numbers."""
    shown = [line for line in first[:2000] if line.strip() and not _RULE.fullmatch(line[:2000])]
    for line, after in itertools.pairwise(shown):
        values = _cells(after)
        if len(values) < 2:
            continue
        names = _names(line, len(values))
        roles = [role_of(name) for name in names]
        if len(names) == len(values) and any(role is not None and role.slot == "loss" for role in roles):
            return names
    return None


def read_table(header: list[str], stream: Iterator[str], table: RowTable) -> None:
    """The rows of a table with these names; lines of another length are something else."""
    is_spacy = "eval_score" in header
    for line in stream:
        values = _cells(line[:2000])
        if len(values) == len(header):
            row = dict(zip(header, values, strict=True))
            table.add(_without_first_sum(row) if is_spacy else row)
        if table.is_full:
            return


def _cells(line: str) -> list[str]:
    """The values of a line that holds nothing but numbers, times and cells without a value."""
    if "|" in line:
        return (
            [cell.strip() for cell in line.strip().strip("|").split("|")]
            if _BARRED_CELLS.fullmatch(line[:2000])
            else []
        )
    return line.replace("No log", "No_log").split() if _CELLS.fullmatch(line[:2000]) else []


def _names(line: str, count: int) -> list[str]:
    if "|" in line:
        return [name.strip() for name in line.strip().strip("|").split("|")]
    names = [name.strip() for name in re.split(r"\t|\s{2,}", line.strip())]
    if names[:2] == ["E", "#"]:
        return _names_of_spacy(names)
    return names if len(names) == count else _joined(line.split(), count)


def _names_of_spacy(names: list[str]) -> list[str]:
    """The loss of the last component is taken for that of the run; the shared layer's own stands before it."""
    losses = [name for name in names if name.startswith("LOSS ")]
    own = {losses[-1]: "loss"} if losses else {}
    return [own.get(name) or _SPACY.get(name, name) for name in names]


def _without_first_sum(row: Mapping[str, object]) -> dict[str, object]:
    """spaCy sums its losses since the last row, so that of step 0 is one batch and comparable to no other."""
    return {name: value for name, value in row.items() if name != "loss" or row.get("step") != "0"}


def _joined(words: list[str], count: int) -> list[str]:
    """Words joined into known names, longest first: `Step Training Loss` -> `Step`, `Training Loss`."""
    names: list[str] = []
    place = 0
    while place < len(words) and len(names) <= count:
        size = next((size for size in (3, 2) if role_of(" ".join(words[place : place + size])) is not None), 1)
        names.append(" ".join(words[place : place + size]))
        place += size
    return names
