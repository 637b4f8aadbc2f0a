"""Running trials in this process, as the worker does, and looking at what comes out."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from finestep.protocol import TrialRequest
from finestep.recipe import Recipe
from finestep.study import DataSpec, ModelSpec
from finestep.train.loop import Run
from finestep.train.resident import Resident, trained
from finestep.trial import EvalRecord, Outcome, StepRecord

torch.set_num_threads(1)


@dataclass
class Recorded:
    """What a run emitted, its outcome, and its weights at the end."""

    outcome: Outcome | None = None
    steps: list[StepRecord] = field(default_factory=list)
    evaluations: list[EvalRecord] = field(default_factory=list)
    notes: list[dict[str, Any]] = field(default_factory=list)
    started: dict[str, Any] = field(default_factory=dict)
    weights: dict[str, torch.Tensor] = field(default_factory=dict)

    @property
    def losses(self) -> list[float]:
        return [record.loss for record in self.steps]


def make_resident(model: Path, data: Path, recipe: Recipe, **spec: Any) -> Resident:
    return Resident(ModelSpec(path=str(model), device="cpu"), DataSpec(path=str(data), max_length=96, **spec), recipe)


def run_trial(
    resident: Resident,
    recipe: Recipe,
    folder: Path,
    *,
    stop_after: int | None = None,
    every: int | None = None,
    limit: int | None = None,
    prepare: Any = None,
) -> Recorded:
    """Train; with `stop_after`, ask for a stop once that many steps were made."""
    recorded = Recorded()
    request = TrialRequest(
        number=0, recipe=recipe, folder=str(folder), checkpoint_every_s=1e9, checkpoint_every_steps=every
    )

    def emit(kind: str, data: Any) -> None:
        match kind:
            case "step":
                recorded.steps.append(data)
            case "evaluation":
                recorded.evaluations.append(data)
            case "note":
                recorded.notes.append(data)
            case "started":
                recorded.started = data

    def should_stop() -> bool:
        return stop_after is not None and len(recorded.steps) >= stop_after

    run = Run(resident, request, emit=emit, should_stop=should_stop, micro_batch_limit=limit)
    if prepare is not None:
        prepare(run)
    recorded.outcome = run.train()
    recorded.weights = {name: value.detach().clone() for name, value in trained(run.model).items()}
    return recorded


def largest_difference(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> float:
    assert left.keys() == right.keys()
    return max((left[name] - right[name]).abs().max().item() for name in left)
