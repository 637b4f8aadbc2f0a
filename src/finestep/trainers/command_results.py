"""Where a user's own command leaves its results: a regular expression over what it prints, or a key in a JSON file."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path

from finestep.errors import BadInput

NOT_FINITE = r"\W{0,6}(nan|-?inf(inity)?)\b"


def name_and_place(result: str) -> tuple[str, str]:
    """`name=where` taken apart."""
    name, _, place = result.partition("=")
    return name.strip(), place.strip()


def json_place(place: str) -> tuple[str, list[str]] | None:
    """(file, keys) for `file.json` or `file.json:a.b`; None for a regular expression."""
    file, dot, keys = place.partition(".json")
    if not dot or (keys and not keys.startswith(":")):
        return None
    return file + dot, [key for key in keys[1:].split(".") if key]


def check_result(result: str) -> None:
    """Raise BadInput for a `--result` that could never be read."""
    name, place = name_and_place(result)
    if not name or not place:
        raise BadInput(
            "`--result` takes name=regular expression or name=file.json",
            value=result,
            next_step="e.g. 'eval_loss=eval loss: ([0-9.]+)'",
        )
    if json_place(place) is not None:
        return
    try:
        groups = re.compile(place).groups
    except re.error as error:
        raise BadInput(f"`--result` holds no regular expression: {error}", value=place) from None
    if groups != 1:
        raise BadInput("the regular expression of `--result` needs one group, the number", value=place)


def result_value(name: str, place: str, folder: Path, values: Mapping[str, object], output: str) -> float | None:
    """The last value in the output, or the one in the file; NaN when the output says so; None when there is none."""
    file = json_place(place)
    if file is not None:
        return _json_value(name, file, folder, values)
    matches = re.findall(place, output)
    not_finite = re.findall(re.escape(name) + NOT_FINITE, output, re.I)
    if not matches:
        return math.nan if not_finite else None
    try:
        return float(matches[-1])
    except ValueError:
        return None


def _json_value(name: str, file: tuple[str, list[str]], folder: Path, values: Mapping[str, object]) -> float | None:
    path = Path(file[0].format(**{key: str(value) for key, value in values.items()}))
    try:
        found = json.loads((path if path.is_absolute() else folder / path).read_text(encoding="utf-8"))
        for key in file[1] or [name]:
            found = found[key]
        return float(found)
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None
