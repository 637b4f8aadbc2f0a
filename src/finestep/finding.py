"""Finding: one thing seen in a training run, with its evidence and what to do about it."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Severity = Literal["info", "notice", "warning", "error"]


class Finding(BaseModel):
    """One observation about a run, in words that a person can act on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    code: str = Field(description="Stable name, e.g. `diverged`, `overfitting`.")
    severity: Severity
    meaning: str = Field(description="One plain sentence.")
    evidence: dict[str, float | int | str | None] = Field(
        default_factory=dict, description="Steps and numbers behind it."
    )
    advice: str = Field("", description="A concrete change, and how far to go.")
    confidence: float = Field(1.0, ge=0, le=1)
