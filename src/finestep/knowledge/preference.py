"""Published runs that learn from preferences (DPO, ORPO, KTO): their rates, with the page where each was read."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from finestep.knowledge.packaged import rows


@dataclass(frozen=True, slots=True)
class PreferenceRun:
    """One published run or config. `publisher` groups what one team writes; `swept`: the best of a grid of rates."""

    id: str
    objective: str
    model: str
    params: int
    method: str
    learning_rate: float
    publisher: str
    source_url: str
    beta: float | None = None
    batch: int | None = None
    swept: bool = False
    note: str = ""

    @property
    def is_adapter(self) -> bool:
        """LoRA and QLoRA are counted together."""
        return self.method != "full"


@cache
def preference_runs() -> tuple[PreferenceRun, ...]:
    """All of them, in the order of collection."""
    return tuple(PreferenceRun(**row) for row in rows("preference.jsonl"))  # type: ignore[arg-type]
