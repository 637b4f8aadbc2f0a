"""Estimate: a number with its interval, unit and source; it never stands for a value that nobody measured or derived."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Estimate(BaseModel):
    """A recommended or measured number and how sure it is.

    `low` and `high` bound the central 80 % unless `coverage` says otherwise. `source` is the id of an evidence row in
    `finestep.knowledge`, a rule's name with its citation, or "measured here".
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    value: float
    low: float
    high: float
    unit: str
    source: str
    why: str = Field("", description="One clause: why this value and not another.")
    coverage: float = Field(0.8, gt=0, lt=1, description="Share of cases that the interval is meant to hold.")

    @model_validator(mode="after")
    def _ordered(self) -> Estimate:
        if not self.low <= self.value <= self.high:
            raise ValueError(f"an estimate needs low <= value <= high; got {self.low} <= {self.value} <= {self.high}")
        return self
