"""The measured LoRA sweep, as rows; what they imply is a rule's work."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from finestep.knowledge.models import known_model, lineage
from finestep.knowledge.packaged import records

SWEEP_STEPS, SWEEP_BATCH, SWEEP_ALPHA = 780, 128, 32.0


@dataclass(frozen=True, slots=True)
class SweepCell:
    """One model and rank of the sweep: (learning rate, test loss in nats or None where the run diverged), ascending."""

    model: str
    lineage: str
    num_parameters: float
    num_active_parameters: float
    rank: int
    points: tuple[tuple[float, float | None], ...]

    @property
    def finite(self) -> tuple[tuple[float, float], ...]:
        """Points that did not diverge."""
        return tuple((rate, loss) for rate, loss in self.points if loss is not None)


@dataclass(frozen=True, slots=True)
class _Row:
    """One line of the file: test losses by learning rate."""

    model: str
    rank: int
    test_nll: dict[str, float | None]


@cache
def sweep_cells() -> tuple[SweepCell, ...]:
    """All cells of the sweep (126: 35 models, up to 4 ranks each)."""
    return tuple(_cell(row.model, row.rank, row.test_nll) for row in records("lora_sweep.jsonl", _Row))


def _cell(model: str, rank: int, losses: dict[str, float | None]) -> SweepCell:
    facts = known_model(model)
    if facts is None or facts.num_parameters is None:
        raise LookupError(f"the sweep's model {model} is missing from models.jsonl")
    active = facts.num_active_parameters or facts.num_parameters
    points = tuple(sorted((float(rate), loss) for rate, loss in losses.items()))
    return SweepCell(model, lineage(facts) or "", float(facts.num_parameters), float(active), rank, points)
