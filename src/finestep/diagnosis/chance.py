"""Losses that mean "the model knows nothing": uniform guesses over labels or tokens, and token frequencies alone."""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

COMMON_VOCABULARIES = (
    21128, 28996, 30522, 32000, 32128, 32768, 49152, 50257, 50265, 50280, 50304, 51200, 64000, 65024, 100352,
    102400, 119547, 128256, 129280, 151643, 151646, 151665, 151669, 151936, 152064, 200064, 248320, 250002, 256000,
    262144,
)  # fmt: skip
MAX_LABELS = 4
MOST_IGNORANT = 12.5
"""Nats of a uniform guess in the largest common vocabulary; a first loss above it shows a wrong format or a sum."""
ACCUMULATED_FROM = 14.0
"""First losses below this, in nats, are an ordinary start; the uniform guess of no common vocabulary is higher."""
UNIGRAM_RANGE = (6.9, 7.8)
"""Entropy in nats of single tokens in English text for vocabularies of 30-50k (7.4 on WikiText in the log corpus)."""


class Chance(NamedTuple):
    """A level of ignorance that a loss sits on."""

    kind: str
    loss: float
    words: str


def chance_level(
    loss: float, *, tolerance: float, num_labels: int | None, vocabulary_size: int | None
) -> Chance | None:
    """The level of ignorance within `tolerance` (relative) of a loss, or None.

    >>> chance_level(0.6925, tolerance=0.01, num_labels=None, vocabulary_size=None).words
    'ln 2, a guess among 2 labels'
    """
    sizes = _sizes(num_labels, vocabulary_size)
    # Sizes may lie closer together than the tolerance: the nearest one is named.
    near = [size for size in sizes if abs(loss / math.log(size) - 1) <= tolerance]
    if near:
        size = min(near, key=lambda each: abs(loss - math.log(each)))
        kind, noun = ("labels", "labels") if size <= MAX_LABELS or size == num_labels else ("vocabulary", "tokens")
        return Chance(kind, math.log(size), f"ln {size}, a guess among {size} {noun}")
    if UNIGRAM_RANGE[0] <= loss <= UNIGRAM_RANGE[1]:
        return Chance("unigram", loss, f"{loss:.2f}, what token frequencies alone reach")
    return None


def accumulation_factor(first_loss: float) -> tuple[int, int] | None:
    """(factor, vocabulary) when a first loss is 2, 4, ... 64 times ln V of a common vocabulary, within 0.3 %.

    >>> accumulation_factor(173.2)
    (16, 50265)
    """
    if first_loss < ACCUMULATED_FROM:
        return None
    # Accumulation steps are powers of two in practice, and few factors keep chance hits rare.
    pairs = itertools.product((2, 4, 8, 16, 32, 64), COMMON_VOCABULARIES)
    factor, size = min(pairs, key=lambda pair: abs(first_loss / (pair[0] * math.log(pair[1])) - 1))
    return (factor, size) if abs(first_loss / (factor * math.log(size)) - 1) < 0.003 else None


def _sizes(num_labels: int | None, vocabulary_size: int | None) -> list[int]:
    labels = [num_labels] if num_labels else list(range(2, MAX_LABELS + 1))
    return labels + ([vocabulary_size] if vocabulary_size else list(COMMON_VOCABULARIES))
