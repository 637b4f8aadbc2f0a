"""How the report writes numbers and states in words; it never rounds a value that is computed with later."""

from __future__ import annotations

import math

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
    """Nats with four decimals; a value that is not a number is said, not hidden.

    >>> loss(1.23456), loss(math.nan), loss(None)
    ('1.2346', 'NaN', '–')
    """
    if value is None:
        return NONE
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return f"{value:.4f}" if abs(value) < 1000 else f"{value:.3e}"


def count(value: float) -> str:
    """A count in three digits with its unit prefix: `2.10 M`; below 10,000 it is written out.

    >>> count(2_100_000), count(950)
    ('2.1 M', '950')
    """
    if not math.isfinite(value):
        return loss(value)
    for size, prefix in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            scaled = value / (1e3 if prefix == "k" else size)
            return f"{scaled:.3g} {prefix}" if abs(scaled) < 999.5 else f"{scaled:.0f} {prefix}"
    return f"{value:,.0f}" if value == round(value) else f"{value:.3g}"


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


def memory(num_bytes: float) -> str:
    """Bytes in GiB, or MiB below one.

    >>> memory(3 * 2**30), memory(5 * 2**20)
    ('3.0 GiB', '5 MiB')
    """
    gib = num_bytes / 2**30
    return f"{gib:.1f} GiB" if gib >= 1 else f"{num_bytes / 2**20:.0f} MiB"


def share(value: float) -> str:
    """A fraction as per cent: `25 %`; small ones keep a decimal.

    >>> share(0.25), share(0.125)
    ('25 %', '12 %')
    """
    percent = 100 * value
    return f"{percent:.0f} %" if percent >= 9.95 or percent in (0.0, round(percent)) else f"{percent:.1f} %"


def quantity(name: str, value: float) -> str:
    """A value whose name carries its unit (`_s`, `tokens`, `_bytes`), in that unit's writing.

    >>> quantity("elapsed_s", 192), quantity("num_tokens", 2_100_000)
    ('3 min 12 s', '2.1 M')
    """
    if name.endswith(("_s", "seconds")):
        return duration(value)
    if name.endswith("bytes"):
        return memory(value)
    return count(value)


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
