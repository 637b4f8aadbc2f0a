"""A derivation as a sum of terms in log10: value, doubt and source of each; it knows no rule itself."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Term:
    """One summand of log10(value): `dex` and its standard deviation `sd`, an evidence id, and a clause in words."""

    name: str
    dex: float
    sd: float
    source: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class LogNormal:
    """A positive number known as log10: mean and standard deviation, both in dex."""

    mean: float
    sd: float

    @property
    def value(self) -> float:
        """The median, in the number's own unit."""
        median: float = 10.0**self.mean
        return median


def total(terms: Iterable[Term]) -> LogNormal:
    """The sum of independent terms."""
    listed = list(terms)
    return LogNormal(sum(t.dex for t in listed), math.sqrt(sum(t.sd**2 for t in listed)))


def two_digits(value: float) -> float:
    """The value to two significant digits, as a person would write it.

    >>> two_digits(0.00034567)
    0.00035
    """
    return float(f"{value:.1e}") if value else 0.0
