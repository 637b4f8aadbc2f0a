"""Running trials in this process, as the worker does, and looking at what comes out."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from finestep.protocol import TrialRequest
from finestep.recipe import Recipe
from finestep.study import DataSpec, ModelSpec
from finestep.train.loop import Pack
from finestep.train.model import Placement
from finestep.train.resident import Resident
from finestep.trial import EvalRecord, Outcome, StepRecord

torch.set_num_threads(1)
ON_CUDA = (pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"))
DEVICES = ("cpu", pytest.param("cuda", marks=ON_CUDA))


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


def make_resident(model: Path, data: Path, recipe: Recipe, *, device: str = "cpu", **spec: Any) -> Resident:
    """In float32 whatever the device, so that equal things can be told to be equal."""
    return Resident(
        ModelSpec(path=str(model), device=device),
        DataSpec(path=str(data), max_length=96, **spec),
        recipe,
        placement=Placement(torch.device(device), torch.float32, False),
    )


def run_trial(
    resident: Resident,
    recipe: Recipe,
    folder: Path,
    *,
    stop_after: int | None = None,
    every: int | None = None,
    limit: int | None = None,
    prepare: Any = None,
    on_trouble: str = "stop",
) -> Recorded:
    """Train one trial; with `stop_after`, ask for a stop once that many steps were made."""
    return run_pack(
        resident,
        {0: recipe},
        folder,
        stop_after=stop_after,
        every=every,
        limit=limit,
        prepare=prepare,
        flat=True,
        on_trouble=on_trouble,
    )[0]


def run_pack(
    resident: Resident,
    recipes: dict[int, Recipe],
    folder: Path,
    *,
    lanes: int = 8,
    fidelities: dict[int, float] | None = None,
    join_after: dict[int, int] | None = None,
    stop_after: int | None = None,
    every: int | None = None,
    limit: int | None = None,
    prepare: Any = None,
    flat: bool = False,
    on_trouble: str = "stop",
    end_to_end: bool = False,
) -> dict[int, Recorded]:
    """Train several trials together; `join_after` holds requests back until the pack has made that many optimizer steps."""
    recorded = {number: Recorded() for number in recipes}
    waiting = [
        TrialRequest(
            number=number,
            recipe=recipe,
            fidelity=(fidelities or {}).get(number, 1.0),
            folder=str(folder if flat else folder / str(number)),
            checkpoint_every_s=1e9,
            checkpoint_every_steps=every,
            on_trouble=on_trouble,
        )
        for number, recipe in recipes.items()
    ]

    def emit(kind: str, data: Any, *, trial: int) -> None:
        match kind:
            case "step":
                recorded[trial].steps.append(data)
            case "evaluation":
                recorded[trial].evaluations.append(data)
            case "note":
                recorded[trial].notes.append(data)
            case "started":
                recorded[trial].started = data

    def num_steps() -> int:
        return sum(len(one.steps) for one in recorded.values())

    def take() -> TrialRequest | None:
        if waiting and num_steps() >= (join_after or {}).get(waiting[0].number, 0):
            return waiting.pop(0)
        return None

    pack = Pack(
        resident,
        emit=emit,
        should_stop=lambda: stop_after is not None and num_steps() >= stop_after,
        take=take,
        num_lanes=lanes,
        row_limit=limit,
        end_to_end=end_to_end,
    )
    if prepare is not None:
        prepare(pack)
    while waiting:
        for lane in pack.run():
            mine = recorded[lane.number]
            mine.outcome = lane.outcome
            mine.weights = {name: value.detach().clone() for name, value in lane.values().items()}
        join_after = None
    if hook := getattr(pack, "hook", None):
        hook.remove()
    return recorded


def largest_difference(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> float:
    assert left.keys() == right.keys()
    return max((left[name] - right[name]).abs().max().item() for name in left)
