"""Reading the packaged data files, each once and only when somebody asks; it knows nothing of what is in them."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "data"


@cache
def rows(name: str) -> tuple[dict[str, Any], ...]:
    """All rows of the JSON-lines file `name`; callers must not change them."""
    with (FOLDER / name).open(encoding="utf-8") as lines:
        return tuple(json.loads(line) for line in lines)


@cache
def table(name: str) -> dict[str, Any]:
    """The JSON object in the file `name`; callers must not change it."""
    return json.loads((FOLDER / name).read_text(encoding="utf-8"))
