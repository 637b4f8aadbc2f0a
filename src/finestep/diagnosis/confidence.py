"""How sure a verdict is: the share of labelled logs on which verdicts of its kind agreed with a reader, few rows lowering it."""

from __future__ import annotations

FEW_ROWS = 12
LOWEST, HIGHEST = 0.4, 0.95

AGREEMENT: dict[str, tuple[int, int]] = {}
"""Code -> (labelled logs with this verdict, those that agreed)."""


def confidence_of(code: str, num_rows: int) -> float:
    """Confidence of a verdict."""
    return 0.8
