"""Text out of the cells of a row, and how many characters a cell holds; it knows no columns by name."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

from finestep.errors import BadInput

TEXT_PARTS = ("text", "input_text", "output_text", None)
PART_KEYS = {"text", "type", "annotations", "cache_control", "id", "index"}
"""Keys of a part of text; with others it is more than text, e.g. a segment with a mark of its own."""
IMAGE_WORDS = ("image", "image_url", "input_image", "video", "audio", "input_audio")


def text_of(value: object, name: str, place: str) -> str:
    """A cell as text: nothing for an empty one, a list of text parts joined.

    Raises:
        BadInput: the cell is a list or mapping that is not text, or a picture.
    """
    if isinstance(value, str):
        return whole_letters(value)
    if is_missing(value):
        return ""
    if isinstance(value, list):
        if all(isinstance(part, str) for part in value):
            return whole_letters("\n".join(value))
        return "".join(_part_text(part, name, place) for part in value)
    if isinstance(value, dict) and value and value.keys() <= {"parts", "role", "text"}:
        return text_of(value.get("parts") or value.get("text"), name, place)
    if isinstance(value, dict):
        raise BadInput(
            f"`{name}` must be text",
            value=f"a mapping with {', '.join(map(str, list(value)[:6]))}",
            place=place,
            next_step=f"say which part in --prompt or --completion, e.g. '{{{name}[{next(iter(value), 'key')}]}}'",
        )
    return str(value)


def answer_of(value: object, name: str, place: str) -> str:
    """An answer: of several in a list (also under `text`, as in SQuAD) the first."""
    if isinstance(value, Mapping) and "text" in value:
        value = value["text"]
    if isinstance(value, list) and value and all(isinstance(one, str | int | float) for one in value):
        value = value[0]
    if isinstance(value, list) and not value:
        return ""
    return text_of(value, name, place)


def passages_of(value: object, name: str, place: str) -> str:
    """Background text: of several passages all, with blank lines between; also of a mapping of lists of text."""
    if isinstance(value, Mapping):
        lists = [cell for cell in value.values() if isinstance(cell, list | str)]
        value = lists if len(lists) == len(value) else value
    if isinstance(value, list) and all(isinstance(one, str | list) for one in value):
        return "\n\n".join(filter(None, (passages_of(one, name, place) for one in value)))
    if isinstance(value, list) and all(isinstance(one, Mapping) for one in value) and not _are_parts(value):
        return json.dumps(value, ensure_ascii=False)
    return text_of(value, name, place)


def whole_letters(text: str) -> str:
    """The text with halves of UTF-16 pairs put together, or replaced by U+FFFD where the other half is missing."""
    if text.isascii():
        return text
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def is_missing(value: object) -> bool:
    """An empty cell: None, or the "not a number" that tables are filled up with."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def num_characters(value: object) -> int:
    """Characters of all text in a cell, however deep it stands."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        return sum(num_characters(one) for one in value.values())
    if isinstance(value, list | tuple):
        return sum(num_characters(one) for one in value)
    return 0


def _are_parts(value: list[object]) -> bool:
    return all(isinstance(part, Mapping) and ("text" in part or part.get("type") in IMAGE_WORDS) for part in value)


def _part_text(part: object, name: str, place: str) -> str:
    if isinstance(part, str):
        return whole_letters(part)
    if isinstance(part, dict) and part.get("type") in IMAGE_WORDS:
        raise BadInput(
            "finestep trains on text; these rows hold pictures or sound",
            value=part["type"],
            place=place,
            next_step="leave such rows out, or use a trainer for vision-language models",
        )
    if isinstance(part, dict) and "text" in part and part.get("type") in TEXT_PARTS and part.keys() <= PART_KEYS:
        return whole_letters(part["text"] or "")
    kind = (
        part.get("type") or f"a mapping with {', '.join(map(str, part))}"
        if isinstance(part, dict)
        else type(part).__name__
    )
    raise BadInput(
        f"`{name}` must be text, or a list of parts of type `text`",
        value=kind,
        place=place,
        next_step="write the part as text",
    )
