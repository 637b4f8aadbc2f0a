"""Reading the packaged data files, each once and only when somebody asks; it knows nothing of what is in them."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import TypeVar

from finestep.flat import from_flat

Record = TypeVar("Record")
FOLDER = Path(__file__).parent / "data"


@cache
def records(name: str, kind: type[Record]) -> tuple[Record, ...]:
    """All rows of the JSON-lines file `name`, each as a value of `kind`, whose parts a row states side by side."""
    with (FOLDER / name).open(encoding="utf-8") as lines:
        return tuple(from_flat(kind, json.loads(line)) for line in lines)


@cache
def rows(name: str) -> tuple[dict[str, object], ...]:
    """All rows of the JSON-lines file `name`; callers must not change them."""
    with (FOLDER / name).open(encoding="utf-8") as lines:
        return tuple(json.loads(line) for line in lines)


@cache
def practice() -> dict[str, dict[str, float]]:
    """What public recipes have in common: a line of log rate over log size for each group; callers must not change it."""
    found: dict[str, dict[str, float]] = json.loads((FOLDER / "practice.json").read_text(encoding="utf-8"))
    return found
