"""How numbers and states are written, in the terminal as on the page; it never rounds a value that is computed with later."""

from __future__ import annotations

import math
import os

from finestep.trial import TrialState

NONE = "–"

STATE_WORDS: dict[TrialState, str] = {
    "completed": "completed",
    "stopped": "stopped early",
    "running": "running",
    "diverged": "diverged",
    "out_of_memory": "out of memory",
    "failed": "failed",
}


def learning_rate(value: float) -> str:
    """Two digits and a full exponent, so that YAML readers see a number: `2.0e-04`.

    >>> learning_rate(0.0002)
    '2.0e-04'
    """
    return f"{value:.1e}"


def loss(value: float | None) -> str:
    """Nats with four decimals, or in powers of ten; a value that is not a number is said, not hidden.

    >>> loss(1.23456), loss(3e-5), loss(math.nan), loss(None)
    ('1.2346', '3.000e-05', 'NaN', '–')
    """
    if value is None:
        return NONE
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1000 else f"{value:.3e}"


def count(value: float) -> str:
    """A count in three digits with its unit prefix: `2.10 M`; below 10,000 it is written out.

    >>> count(2_100_000), count(950), count(2534.7), count(0.25)
    ('2.1 M', '950', '2,535', '0.25')
    """
    if not math.isfinite(value):
        return loss(value)
    for size, prefix in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            scaled = value / (1e3 if prefix == "k" else size)
            return f"{scaled:.3g} {prefix}" if abs(scaled) < 999.5 else f"{scaled:.0f} {prefix}"
    return f"{value:,.0f}" if value == round(value) or abs(value) >= 999.5 else f"{value:.3g}"


def duration(seconds: float | None) -> str:
    """Seconds as a person says them: `4.2 s`, `3 min 12 s`, `1 h 04 min`, `2 d 3 h`.

    >>> duration(4.2), duration(192), duration(3840)
    ('4.2 s', '3 min 12 s', '1 h 04 min')
    """
    if seconds is None or not math.isfinite(seconds):
        return NONE
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if hours == 0:
        return f"{minutes} min {whole % 60:02d} s"
    if days == 0:
        return f"{hours} h {minutes % 60:02d} min"
    return f"{days} d {hours % 24} h"


def share(value: float) -> str:
    """A fraction as per cent: `25 %`; small ones keep a decimal.

    >>> share(0.25), share(0.125)
    ('25 %', '12 %')
    """
    percent = 100 * value
    return f"{percent:.0f} %" if percent >= 9.95 or percent in (0.0, round(percent)) else f"{percent:.1f} %"


def percent(value: float) -> str:
    """A small percentage with two digits that matter.

    >>> percent(0.0312), percent(1.26), percent(0.0)
    ('0.031 %', '1.3 %', '0 %')
    """
    return f"{value:.2g} %"


def gain(value: float, against: float) -> str:
    """How much lower `value` is, in per cent; the difference where one of them is not above zero.

    >>> gain(0.9, 1.0), gain(1.1, 1.0), gain(-3.0, -2.0)
    ('-10.0 %', '+10.0 %', '-1')
    """
    if value <= 0 or against <= 0:
        return f"{value - against:+.4g}"
    return f"{(value / against - 1) * 100:+.1f} %"


def fact(value: str | int | float) -> str:
    """A fact as text; whole numbers get thousands separators, text stays as it is.

    >>> fact(1800), fact("lora")
    ('1,800', 'lora')
    """
    if isinstance(value, bool | str):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.6g}" if math.isfinite(value) else loss(value)


def name(key: str) -> str:
    """A field name as words: `num_train_tokens` becomes `num train tokens`; names with capitals stay.

    >>> name("num_train_tokens"), name("elapsed_s")
    ('num train tokens', 'elapsed')
    """
    words = key.replace("_", " ").strip()
    return words.removesuffix(" s") if key.endswith("_s") else words


def runs(number: int) -> str:
    """`1 run`, `2 runs`.

    >>> runs(1), runs(2)
    ('1 run', '2 runs')
    """
    return f"{number} run" if number == 1 else f"{number} runs"


def near(path: str) -> str:
    """A path as seen from here, where it lies below."""
    relative = os.path.relpath(path)
    return path if relative.startswith("..") else relative
