"""How figures are written in the terminal."""

from __future__ import annotations

import math
import os

STATE_WORDS = {
    "completed": "done",
    "stopped": "stopped early",
    "diverged": "DIVERGED",
    "out_of_memory": "OUT OF MEMORY",
    "failed": "FAILED",
    "running": "running",
}


def rate(value: float) -> str:
    """A learning rate, e.g. 2.0e-04.

    >>> rate(0.0002)
    '2.0e-04'
    """
    return f"{value:.1e}"


def duration(seconds: float) -> str:
    """Seconds as a person says them.

    >>> duration(8.2), duration(95), duration(7300)
    ('8 s', '1 min 35 s', '2 h 1 min')
    """
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def loss(value: float | None) -> str:
    """A loss with four digits; very small and very large ones in powers of ten.

    >>> loss(0.30918), loss(3e-5), loss(None)
    ('0.3092', '3e-05', '-')
    """
    if value is None or math.isnan(value):
        return "-"
    return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e6 else f"{value:.4g}"


def gain(value: float, against: float) -> str:
    """How much lower `value` is, in per cent; the difference where one of them is not above zero.

    >>> gain(0.9, 1.0), gain(1.1, 1.0), gain(-3.0, -2.0)
    ('-10.0 %', '+10.0 %', '-1')
    """
    if value <= 0 or against <= 0:
        return f"{value - against:+.4g}"
    return f"{(value / against - 1) * 100:+.1f} %"


def near(path: str) -> str:
    """A path as seen from here, where it lies below."""
    relative = os.path.relpath(path)
    return path if relative.startswith("..") else relative


def size(number: float) -> str:
    """A large count.

    >>> size(1234567), size(950)
    ('1.2M', '950')
    """
    for limit, letter in ((1e9, "B"), (1e6, "M"), (1e4, "k")):
        if number >= limit:
            return f"{number / (limit if letter != 'k' else 1e3):.1f}{letter}"
    return f"{number:.0f}"


def percent(value: float) -> str:
    """A small percentage with two digits that matter.

    >>> percent(0.0312), percent(1.26), percent(0.0)
    ('0.031 %', '1.3 %', '0 %')
    """
    return f"{value:.2g} %"
