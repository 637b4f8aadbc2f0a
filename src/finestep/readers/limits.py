"""Limits that keep a hostile or broken log harmless, and the one way from anything to a number; it reads no file."""

from __future__ import annotations

import math

MAX_ROW_CHARS = 1 << 20
MAX_ROWS = 5_000_000
ROWS_AT_ONCE = 2000
"""Rows that are decoded and stored together; a batch that does not decode is taken row by row."""
MAX_NAMES = 4096
MAX_EVAL_SETS = 64
MAX_METRICS = 512
MAX_RUNS = 256
MAX_FILES = 2000
MAX_WHOLE_JSON_BYTES = 32 << 20
MAX_MESSAGE_BYTES = 16 << 20
MAX_MAGNITUDE = 1e300
MAX_STEP = 1e12

MISSING = math.nan
NOT_FINITE = math.inf


def number(value: object) -> float:
    """A float from a logged value: MISSING when it is no number, NOT_FINITE when it is NaN, infinite or absurd.

    >>> number("4.286"), number("nan"), number(None)
    (4.286, inf, nan)
    """
    if isinstance(value, str):
        return _number_in_text(value)
    if not isinstance(value, (int, float)):
        return MISSING
    try:
        result = float(value)
    except OverflowError:
        return NOT_FINITE
    return result if -MAX_MAGNITUDE < result < MAX_MAGNITUDE else NOT_FINITE


def _number_in_text(text: str) -> float:
    if len(text) > 400:
        return MISSING
    try:
        result = float(text)
    except ValueError:
        text = text.strip()
        return _number_in_text(text[7:].split(",")[0].rstrip(")")) if text.startswith("tensor(") else MISSING
    return result if -MAX_MAGNITUDE < result < MAX_MAGNITUDE else NOT_FINITE
