"""The model and the data that come with the package: small, real, and there without a network."""

from __future__ import annotations

from pathlib import Path

import finestep
from finestep.errors import BadInput

SHIPPED = Path(finestep.__file__).parent / "shipped"
SHIPPED_MODEL, SHIPPED_DATA = SHIPPED / "base", SHIPPED / "instruct.jsonl"
SHIPPED_GENERAL_TEXT = SHIPPED / "general.txt"
SHIPPED_MAX_LENGTH = 128


def model_path(name: str) -> str:
    """A model as it is named on the command line; `shipped` is the one in the package."""
    return str(SHIPPED_MODEL) if name == "shipped" else name


def shipped_default(model: str | None, data: str | None) -> tuple[str, str, bool]:
    """(model, data, is it the shipped pair): without arguments, the pair that comes with the package.

    >>> shipped_default("my/model", "rows.jsonl")
    ('my/model', 'rows.jsonl', False)
    """
    if model is None and data is None:
        return str(SHIPPED_MODEL), str(SHIPPED_DATA), True
    if model is None or data is None:
        raise BadInput("give a model and data, or neither for the shipped example", value=model or data)
    return model_path(model), data, False
