"""Planted runs by the project's own engine, and their records as JSON lines, so that detectors improve without training."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.planted_faults.plants import Plant, recipe_of, spoiled_data, task_rows
from finestep.finding import Finding
from finestep.protocol import TrialRequest
from finestep.recipe import Recipe
from finestep.study import DataSpec, ModelSpec
from finestep.survey.shipped import SHIPPED_MAX_LENGTH, SHIPPED_MODEL
from finestep.train.loop import Pack
from finestep.train.membership import Fallen
from finestep.train.resident import Resident
from finestep.trial import EvalRecord, StepRecord

SEEDS_A_PASS = 2
"""Seeds that share a forward pass; small, so that little is lost when the command is stopped."""


class PlantedPack(Pack):
    """A pack whose trials are spoiled as they join."""

    def __init__(self, spoil: Callable[[Any], None] | None, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        make = self.members._new_lane

        def spoiled(request: TrialRequest) -> Any:
            lane = make(request)
            if spoil is not None:
                spoil(lane)
            return lane

        self.members._new_lane = spoiled


@dataclass
class Record:
    """What one planted run left."""

    plant: str
    seed: int
    recipe: dict[str, Any]
    num_steps: int = 0
    state: str = "interrupted"
    reason: str = ""
    steps: list[dict[str, Any]] = field(default_factory=list)
    evaluations: list[dict[str, Any]] = field(default_factory=list)
    findings: list[dict[str, Any]] = field(default_factory=list)

    def step_records(self) -> list[StepRecord]:
        return [StepRecord.model_validate(each) for each in self.steps]

    def said(self) -> list[Finding]:
        """What the loop itself found beyond its records: whether answers belong to their prompts."""
        return [Finding.model_validate(each) for each in self.findings if each["code"] == "answers_unrelated"]

    def eval_records(self) -> list[EvalRecord]:
        return [EvalRecord.model_validate(each) for each in self.evaluations]


COLUMNS = ("loss", "learning_rate", "grad_norm", "clipped", "update_norm", "update_ratio", "num_loss_tokens")


def as_columns(record: Record) -> dict[str, Any]:
    """The record in little space: five digits, one list a field."""
    return {
        "plant": record.plant,
        "seed": record.seed,
        "recipe": record.recipe,
        "num_steps": record.num_steps,
        "state": record.state,
        "steps": {name: [_rounded(step[name]) for step in record.steps] for name in COLUMNS},
        "evaluations": [[each["step"], _rounded(each["eval_loss"])] for each in record.evaluations],
        "findings": record.findings,
    }


def from_columns(values: dict[str, Any]) -> Record:
    """What `as_columns` gave, with steps numbered from 1."""
    count = len(values["steps"]["loss"])
    steps = [
        {"step": row + 1, "num_tokens": 0, "elapsed_s": 0.0, **{name: values["steps"][name][row] for name in COLUMNS}}
        for row in range(count)
    ]
    evaluations = [{"step": step, "num_tokens": 0, "eval_loss": loss} for step, loss in values["evaluations"]]
    return Record(**{**values, "steps": steps, "evaluations": evaluations})


def _rounded(value: Any) -> Any:
    return float(f"{value:.5g}") if isinstance(value, float) else value


def load(folder: Path) -> list[Record]:
    """All records in a folder."""
    return [
        Record(**json.loads(line))
        for path in sorted(folder.glob("*.jsonl"))
        for line in path.read_text(encoding="utf-8").splitlines()
    ]


def train_missing(plant: Plant, seeds: Sequence[int], folder: Path) -> int:
    """Train the seeds that have no record yet; how many there were."""
    folder.mkdir(parents=True, exist_ok=True)
    done = {record.seed for record in load(folder) if record.plant == plant.name}
    missing = [seed for seed in seeds if seed not in done]
    for record in _train(plant, missing) if missing else ():
        with (folder / f"{plant.name}.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(record)) + "\n")
    return len(missing)


def _train(plant: Plant, seeds: Sequence[int]) -> Iterator[Record]:
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "rows.jsonl"
        rows = plant.rows(task_rows())
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        data = DataSpec(path=str(path), max_length=SHIPPED_MAX_LENGTH)
        size = 1 if plant.is_alone else SEEDS_A_PASS
        for group in [list(seeds[at : at + size]) for at in range(0, len(seeds), size)]:
            recipes = [recipe_of(plant, seed) for seed in group]
            resident = Resident(ModelSpec(path=str(SHIPPED_MODEL), device="cpu"), data, recipes[0])
            resident.data = spoiled_data(plant, resident, recipes[0])
            yield from _run(plant, resident, recipes, Path(place))


def _run(plant: Plant, resident: Resident, recipes: Sequence[Recipe], folder: Path) -> list[Record]:
    records = {recipe.seed: Record(plant.name, recipe.seed, recipe.model_dump()) for recipe in recipes}
    waiting = [
        TrialRequest(
            number=recipe.seed,
            recipe=recipe,
            folder=str(folder / f"{plant.name}-{recipe.seed}"),
            checkpoint_every_s=1e9,
            on_trouble="ignore",
        )
        for recipe in recipes
    ]

    def emit(kind: str, data: Any, *, trial: int) -> None:
        if kind == "step":
            records[trial].steps.append(json.loads(data.model_dump_json()))
        elif kind == "evaluation":
            records[trial].evaluations.append(json.loads(data.model_dump_json()))
        elif kind == "started":
            records[trial].num_steps = data["num_steps"]

    def should_stop() -> bool:
        return plant.stop_after is not None and len(records[recipes[0].seed].steps) >= plant.stop_after

    pack = PlantedPack(
        plant.spoil,
        resident,
        emit=emit,
        should_stop=should_stop,
        take=lambda: waiting.pop(0) if waiting else None,
        num_lanes=len(recipes),
    )
    for lane in pack.run():
        if isinstance(lane, Fallen):
            raise RuntimeError(f"the fault could not be planted: {lane.outcome.reason}")
        if lane.outcome is not None:
            record, outcome = records[lane.number], lane.outcome
            record.state, record.reason = outcome.state, outcome.reason
            record.findings = [finding.model_dump() for finding in outcome.findings]
    return list(records.values())
