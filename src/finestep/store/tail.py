"""Tail: a file of JSON lines that grows, of which only what was added is read."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

MOST_BYTES_A_LOOK = 8_000_000


class Tail:
    """A file of JSON lines of which only what was added is read."""

    def __init__(self, path: Path):
        self._path, self._offset = path, 0

    def read(self) -> Iterator[dict[str, object]]:
        """Whole lines since the last call; one that is no JSON object is left out."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                data = file.read(MOST_BYTES_A_LOOK)
        except OSError:
            return
        end = data.rfind(b"\n") + 1
        self._offset += end
        for line in data[:end].split(b"\n"):
            try:
                found = json.loads(line) if line.strip(b"\x00 \r\t") else None
            except ValueError:
                continue
            if isinstance(found, dict):
                yield found


def whole(value: object) -> int:
    """A whole number; 0 for what is none.

    >>> whole(12), whole("NaN"), whole(None)
    (12, 0, 0)
    """
    found = number(value)
    return int(found) if found is not None and math.isfinite(found) else 0


def number(value: object) -> float | None:
    """A number, also one that stands as a word (`NaN`); None for what is none."""
    if isinstance(value, bool) or value is None:
        return None
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
