"""Remark: one thing about somebody's config, with a verdict and the reason."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

Verdict = Literal["change", "consider", "fine", "not judged"]
ORDER: dict[str, int] = {"change": 0, "consider": 1, "not judged": 2, "fine": 3}


class Remark(BaseModel):
    """One thing about the config, in a sentence."""

    model_config = ConfigDict(frozen=True)

    topic: str
    verdict: Verdict
    text: str
