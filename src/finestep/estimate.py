"""Estimate: a number with its interval, unit and source; it never stands for a value that nobody measured or derived."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Estimate(BaseModel):
    """A recommended or measured number and how sure it is.

    `low` and `high` are an interval only where `coverage` says how often they hold, which was calibrated. Without it they are the range
    that is usual. `source` is the id of an evidence row in `finestep.knowledge`, a rule's name with its citation, "measured here" or
    "you".
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    value: float = Field(description="The number.")
    low: float = Field(description="Lower end of its interval or usual range.")
    high: float = Field(description="Upper end.")
    unit: str = Field(description="Of the three; `1`: none.")
    source: str = Field(description="A row of evidence, a rule, `measured here` or `you`.")
    why: str = Field("", description="One clause: why this value and not another.")
    coverage: float | None = Field(
        None, gt=0, lt=1, description="Share of cases that low to high holds, where that was calibrated."
    )

    @property
    def kind(self) -> Literal["interval", "usual range", "fixed"]:
        """What low and high are: calibrated, usual, or the value itself (given by the user, or computed)."""
        if self.low == self.high:
            return "fixed"
        return "interval" if self.coverage else "usual range"

    @model_validator(mode="after")
    def _ordered(self) -> Estimate:
        if not self.low <= self.value <= self.high:
            raise ValueError(f"an estimate needs low <= value <= high; got {self.low} <= {self.value} <= {self.high}")
        return self
