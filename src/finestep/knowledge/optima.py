"""Published measured best learning rates outside the LoRA sweep, as rows; what they imply is a rule's work."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from finestep.knowledge.packaged import records


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a measured optimum comes from, and how sure it is.

    `grade`: A = a bracketed grid, B = a reported best or part of the setting assumed, C = at the edge of its grid or weak.
    `cluster`: what counts as one source together. `left_out`: why the law could not be fitted on it; empty for most.
    """

    grade: str
    metric: str
    source: str
    cluster: str
    note: str = ""
    left_out: str = ""


@dataclass(frozen=True, slots=True)
class MeasuredRun:
    """The runs that were compared. `constant_rate`: the rate stayed as it was after warmup, where others decay it."""

    batch: int
    steps: int
    num_rows: int | None = None
    num_epochs: float | None = None
    num_labels: int | None = None
    constant_rate: bool = False


@dataclass(frozen=True, slots=True)
class MeasuredOptimum:
    """One measured best learning rate: the vertex of the parabola through its three best points where a table was published.

    `params`: only for models outside the table of known models.
    """

    id: str
    model: str
    architecture: str
    method: str
    learning_rate: float
    run: MeasuredRun
    origin: Origin
    variant: str = "lora"
    rank: int | None = None
    alpha: float | None = None
    params: int | None = None


@cache
def measured_optima() -> tuple[MeasuredOptimum, ...]:
    """All of them, in the order of collection."""
    return records("optima.jsonl", MeasuredOptimum)
