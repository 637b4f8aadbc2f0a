"""How a CSV file is written: what separates its fields, and the names of its columns; it reads no rows beyond a few."""

from __future__ import annotations

import csv
import itertools
import re
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from finestep.survey.opening import kind_of, opened_text, other_encoding

CANDIDATES = (",", ";", "\t", "|")
SAMPLE_RECORDS, SAMPLE_CHARACTERS = 30, 2**18
WORDS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}


@dataclass(frozen=True)
class Dialect:
    """What separates fields, lines to skip before the header, and what to say."""

    delimiter: str
    lines_before_header: int = 0
    notes: list[str] = field(default_factory=list)


def dialect_of(file: Path) -> Dialect:
    """The separator of a file: the one that its header holds and that cuts most of its first rows alike."""
    about = file.stat()
    return _dialect(file, about.st_mtime_ns, about.st_size)


def named_columns(header: list[str]) -> tuple[list[str], list[str]]:
    """(a name of its own for each column, what to say about names that stood twice or were empty).

    >>> named_columns(["text", "label", "label"])[0]
    ['text', 'label', 'label_2']
    """
    names: list[str] = []
    notes = []
    for place, raw in enumerate(header, start=1):
        name = own = raw.strip() or f"column_{place}"
        for count in itertools.count(2):
            if own not in names:
                break
            own = f"{name}_{count}"
        if own != name:
            notes.append(f"column `{name}` stands more than once: the one at place {place} is called `{own}`")
        names.append(own)
    return names, notes


@lru_cache(maxsize=256)
def _dialect(file: Path, changed: int, size: int) -> Dialect:
    try:
        with opened_text(file, newline="") as handle:
            sample = handle.read(SAMPLE_CHARACTERS)
    except UnicodeDecodeError as error:
        raise other_encoding(error, file) from None
    first, _, rest = sample.partition("\n")
    if told := re.fullmatch(r"sep=(.)\s*", first):  # a line that spreadsheets write before the header
        return _with_notes(Dialect(told[1], 1), rest)
    default = "\t" if kind_of(file) in (".tsv", ".tab") else ","
    best = max(CANDIDATES, key=lambda mark: (*_fit(sample, mark), mark == default))
    return _with_notes(Dialect(best if _fit(sample, best)[0] > 0 else default), sample, default=default)


def _fit(sample: str, mark: str) -> tuple[float, int]:
    """(share of the first records with as many fields as the header, number of fields); (0, 0) for a single field."""
    counts = [len(fields) for fields in _records(sample, mark)]
    if not counts or counts[0] < 2:
        return 0.0, 0
    return sum(count == counts[0] for count in counts) / len(counts), counts[0]


def _records(sample: str, mark: str) -> list[list[str]]:
    try:
        found = itertools.islice(csv.reader(sample.splitlines(keepends=True), delimiter=mark), SAMPLE_RECORDS)
        return [fields for fields in found if fields]
    except csv.Error:
        return []


def _with_notes(dialect: Dialect, sample: str, *, default: str = ",") -> Dialect:
    header = next(iter(_records(sample, dialect.delimiter)), [])
    notes = list(named_columns(header)[1])
    if dialect.delimiter != default:
        notes.insert(0, f"fields are separated by {WORDS.get(dialect.delimiter, repr(dialect.delimiter))}")
    return Dialect(dialect.delimiter, dialect.lines_before_header, notes)
