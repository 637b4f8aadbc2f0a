"""`show_study` under the name that it had in 0.1, for scripts that import it; it lives in `studies/show.py`, a floor above."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from pydantic import JsonValue


def show_study(folder: Path) -> dict[str, JsonValue]:
    """The figures of a study, as in `result.json`."""
    values: dict[str, JsonValue] = import_module("finestep.studies.show").show_study(folder).as_values()
    return values
