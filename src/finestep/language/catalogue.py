"""The catalogue: English sentences with named fields, and the same sentence in Chinese; it looks up and knows nothing else.

Everything that finestep keeps (results, records, JSON) is English. A text is turned into another language where it is
shown. The catalogue's English has `{fields}` where the text has values. So "The loss rose from {low} to {high}." is found
for every two values, and its fields are filled into the Chinese sentence by name. A sentence that the catalogue does not
hold is shown in English: nothing is guessed.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from functools import cache, lru_cache
from importlib import resources
from typing import NamedTuple

VARIABLE = "FINESTEP_LANG"
ENGLISH, CHINESE = "en", "zh"
LANGUAGES = (ENGLISH, CHINESE)
FIELD = re.compile(r"\{(\w+)\}")
WORD = re.compile(r"[A-Za-z]{2,}")
JOINTS = ((". ", "。"), ("; ", "；"), (": ", "："), (", ", "，"))
"""How sentences and clauses are joined in English, and in Chinese."""
NUMBERS = frozenset(
    {"count", "number", "rows", "days", "hours", "minutes", "seconds", "figure", "rate", "batch", "share", "epochs"}
    | {"epoch", "step", "steps", "kept", "drawn", "logged"}
)
"""Fields of these names hold a number, so that a short sentence does not take somebody's words for one."""
A_NUMBER, ANYTHING = r"([^\sA-Za-z]*\d\S*(?: [kMBT%])?|NaN|-?Infinity|–)", "(.*?)"
MOST_CHARACTERS = 2000
"""A longer text is somebody's own, and stays."""


class Template(NamedTuple):
    """One sentence of the catalogue with fields."""

    pattern: re.Pattern[str]
    names: tuple[str, ...]
    said: str
    literal: int
    """Characters outside of fields: the more, the surer a match."""


def asked_language() -> str | None:
    """The language of `$FINESTEP_LANG` (`zh`, `zh_CN.UTF-8`, `en`); None when it is not set or not known."""
    said = os.environ.get(VARIABLE, "").strip().lower()
    return next((name for name in LANGUAGES if said.startswith(name)), None)


@cache
def sections() -> dict[str, dict[str, str]]:
    """The whole catalogue by section: English to Chinese."""
    text = resources.files("finestep.language").joinpath("zh.json").read_text(encoding="utf-8")
    found: dict[str, dict[str, str]] = json.loads(text)
    return found


@cache
def _whole() -> dict[str, str]:
    return {_bare(english): said for part in sections().values() for english, said in part.items()}


@cache
def _templates() -> dict[str, list[Template]]:
    """Sentences with fields by their first word, the longest first; those that begin with a field under ''."""
    found: dict[str, list[Template]] = {}
    for english, said in _whole().items():
        if FIELD.search(english):
            found.setdefault(_first_word(english), []).append(_template(english, said))
    return {word: sorted(some, key=lambda one: -one.literal) for word, some in found.items()}


def _template(english: str, said: str) -> Template:
    parts = FIELD.split(english)
    texts, names = parts[::2], tuple(parts[1::2])
    fields = [A_NUMBER if name in NUMBERS else ANYTHING for name in names]
    pattern = "".join(re.escape(text) + field for text, field in zip(texts, [*fields, ""], strict=True))
    return Template(re.compile(pattern, re.DOTALL), names, said, sum(map(len, texts)))


def _first_word(text: str) -> str:
    return text.split(" ", 1)[0] if not text.startswith("{") and "{" not in text.split(" ", 1)[0] else ""


def _bare(text: str) -> str:
    """Without the full stop at the end, which a sentence may have or lack."""
    return text.removesuffix(".").removesuffix("。")


def translated(text: str, language: str | None = CHINESE) -> str:
    """The text in a language; as it is where the catalogue does not hold it, or for English.

    >>> translated("diverged"), translated("step 3 of 4", "en")
    ('已发散', 'step 3 of 4')
    """
    if language != CHINESE or not WORD.search(text) or len(text) > MOST_CHARACTERS:
        return text
    found = _found(text, 0)
    return text if found is None else found


@lru_cache(maxsize=4096)
def _found(text: str, depth: int) -> str | None:
    """The Chinese of a text that the catalogue holds whole, with its first letter small, or clause by clause."""
    lead = text[: len(text) - len(text.lstrip())]
    bare, stop = _bare(text.strip()), "。" if text.rstrip().endswith(".") else ""
    for tried in dict.fromkeys((bare, bare[:1].lower() + bare[1:], bare[:1].upper() + bare[1:])):
        if (said := _sentence(tried, depth)) is not None:
            return lead + _bare(said) + stop
    said = _by_parts(bare, depth)
    return None if said is None else lead + _bare(said) + stop


def _sentence(text: str, depth: int) -> str | None:
    if text in _whole():
        return _bare(_whole()[text])
    if depth > 3:
        return None
    for word in dict.fromkeys((_first_word(text), "")):
        for one in _templates().get(word, ()):
            if match := one.pattern.fullmatch(text):
                fields = dict(zip(one.names, match.groups(), strict=True))
                return FIELD.sub(lambda name, fields=fields: _field(fields, name[1], depth), one.said)  # type: ignore[misc]
    return None


def _field(fields: dict[str, str], name: str, depth: int) -> str:
    value = fields.get(name, "")
    found = _found(value, depth + 1) if WORD.search(value) else None
    return value if found is None else _bare(found.strip())


def _by_parts(text: str, depth: int) -> str | None:
    """Clause by clause, where each one is known; a clause without words stays."""
    if depth > 3:
        return None
    for joint, mark in JOINTS:
        parts = text.split(joint)
        if len(parts) == 1:
            continue
        said = [part if not WORD.search(part) else _found(part, depth + 1) for part in parts]
        known = [one for one in said if one is not None]
        if len(known) == len(said):
            return mark.join(_bare(one) for one in known)
    return None


def translations(texts: Iterable[str]) -> dict[str, str]:
    """Those of the texts that the catalogue holds, in Chinese."""
    pairs = ((text, translated(text)) for text in dict.fromkeys(texts))
    return {text: said for text, said in pairs if said != text}
