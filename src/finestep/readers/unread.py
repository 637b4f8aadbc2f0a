"""Files from which no row could be read: their first lines, and whether they speak of training at all."""

from __future__ import annotations

import re
from itertools import islice
from pathlib import Path

from finestep.readers.column_names import role_of
from finestep.readers.text_idioms import plain
from finestep.readers.text_stream import head, lines

READABLE = (
    "trainer_state.json, JSON lines, CSV, TensorBoard, W&B, MLflow, and printed lines with `name: value` or `name=value`, "
    "e.g. `step 10 | loss 2.1 | lr 1e-4`"
)
SHOWN_LINES, SHOWN_CHARS, LOOKED_AT = 3, 120, 5000
_OF_TRAINING = re.compile(
    r"\b(?:\w*loss(?:es)?|steps?|epochs?|iter(?:ation)?s?|learning[ _]rate|perplexity)\b", re.IGNORECASE
)
_QUOTED = re.compile(r"[\"']([A-Za-z][\w/ .-]{0,60})[\"']\s*:")
_NUMBERED = frozenset({"step", "epoch", "elapsed_s"})


def first_lines(path: Path) -> list[str]:
    """The first lines that hold something, shortened; bytes that cannot be shown become `?`."""
    if path.is_dir():
        return []
    shown = (
        "".join(c if c.isprintable() else "?" for c in line.strip())[:SHOWN_CHARS]
        for line in islice(lines(path), LOOKED_AT)
    )
    return list(islice((line for line in shown if line), SHOWN_LINES))


def last_line_with(path: Path, pattern: re.Pattern[str]) -> str | None:
    """The last line that the pattern is found in, shortened; None without one, and for bytes that are no text."""
    if path.is_dir() or b"\0" in head(path):
        return None
    found = [line.strip()[:SHOWN_CHARS] for line in lines(path) if pattern.search(line)]
    return found[-1] if found else None


def speaks_of_training(path: Path) -> bool:
    """True when a line names a loss, a step or an epoch beside a number, in text."""
    start = b"" if path.is_dir() else head(path)
    if b"\0" in start and not start.startswith((b"\xff\xfe", b"\xfe\xff")):
        return path.is_dir()
    return path.is_dir() or any(
        _OF_TRAINING.search(line) and re.search(r"\d", line) for line in map(plain, islice(lines(path), LOOKED_AT))
    )


def holds_known_columns(path: Path) -> bool:
    """True when rows were read and only a loss is missing from them: names of steps or epochs stand in JSON or in a header."""
    if path.is_dir():
        return True
    text = head(path).decode("utf-8", errors="replace")
    header = text.splitlines()[0] if text.strip() else ""
    names = _QUOTED.findall(text) if "{" in text else re.split(r"[,\t;]", header)
    return any(
        (role := role_of(name)) is not None and (role.slot in _NUMBERED or role.split == "context") for name in names
    )
