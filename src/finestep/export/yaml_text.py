"""Small YAML documents with comments; floats read 1.0e-05, which every YAML reader takes for a number."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

PLAIN = re.compile(r"[A-Za-z_./][\w./ -]*")
WORDS = frozenset({"true", "false", "yes", "no", "on", "off", "null", "none", "y", "n"})


@dataclass(frozen=True, slots=True)
class Noted:
    """A value with a comment behind it."""

    value: object
    note: str


def yaml_text(tree: Mapping[str, object], *, header: Sequence[str] = ()) -> str:
    """The mapping as YAML, `header` as comment lines on top.

    >>> print(yaml_text({"lr": 1e-5, "name": "a"}), end="")
    lr: 1.0e-05
    name: a
    """
    lines = [f"# {line}".rstrip() for line in header]
    _write(tree, lines, indent="")
    return "\n".join(lines) + "\n"


def _write(tree: Mapping[str, object], lines: list[str], *, indent: str) -> None:
    for key, entry in tree.items():
        value, note = (entry.value, f"  # {entry.note}") if isinstance(entry, Noted) else (entry, "")
        if isinstance(value, Mapping):
            lines.append(f"{indent}{key}:{note}")
            _write(value, lines, indent=indent + "  ")
        else:
            lines.append(f"{indent}{key}: {scalar(value)}{note}")


def scalar(value: object) -> str:
    """One value in flow style."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return float_text(value)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(scalar(item) for item in value) + "]"
    if isinstance(value, str):
        plain = PLAIN.fullmatch(value) and value.lower() not in WORDS and value == value.strip()
        return value if plain else json.dumps(value, ensure_ascii=False)
    return str(value)


def float_text(value: float) -> str:
    """A float with a point and a two-digit exponent where it needs one.

    >>> float_text(1e-05), float_text(0.00025), float_text(1.0)
    ('1.0e-05', '2.5e-04', '1.0')
    """
    if value == 0 or 1e-3 <= abs(value) < 1e6:
        return repr(float(value))
    mantissa, exponent = f"{value:.12e}".split("e")
    digits = mantissa.rstrip("0")
    return f"{digits + '0' if digits.endswith('.') else digits}e{exponent}"
