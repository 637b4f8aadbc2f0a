"""Evidence: where a number comes from; every `source` of an Estimate resolves here."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from finestep.knowledge.packaged import records


@dataclass(frozen=True, slots=True)
class Evidence:
    """One source. `confidence`: read (in the primary text), computed (from packaged
    rows), or judgement."""

    id: str
    title: str
    where: str
    table: str
    date: str
    regime: str
    confidence: str


@cache
def all_evidence() -> dict[str, Evidence]:
    """Every source by its id."""
    return {row.id: row for row in records("evidence.jsonl", Evidence)}


def evidence(id: str) -> Evidence:
    """The source named `id`.

    >>> evidence("lora-without-regret").where
    'https://thinkingmachines.ai/blog/lora'
    """
    return all_evidence()[id]
