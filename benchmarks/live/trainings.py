"""Trainings of one live task, each made once and kept in a file, so that an interrupted benchmark goes on where it was."""

from __future__ import annotations

import json
import math
import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.live.tasks import LiveTask, Purpose
from finestep.protocol import TrialRequest
from finestep.recipe import Recipe
from finestep.train.loop import Pack
from finestep.train.resident import Resident

LARGEST_MICRO_BATCH = 32
LANES = 4
"""LoRA runs of a decoder that share a forward pass."""
FRESH_SEEDS = (101, 102)
"""They decide the order of the rows and the initial adapters of the runs that judge a choice; no search sees them."""


class Trainings:
    """The runs of a task.

    Args:
        file: JSON lines, one a run or an answer; what is in it is not made again.
    """

    def __init__(self, task: LiveTask, file: Path):
        self.task, self._file = task, file
        file.parent.mkdir(parents=True, exist_ok=True)
        lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
        self._kept: dict[str, Any] = {row["key"]: row["value"] for row in map(json.loads, lines)}
        self._residents: dict[Purpose, Resident] = {}

    def kept(self, key: str, make: Callable[[], Any]) -> Any:
        """What was written down under this key; made and written down when it is new. Values are JSON."""
        if key not in self._kept:
            self._kept[key] = make()
            with self._file.open("a", encoding="utf-8") as out:
                out.write(json.dumps({"key": key, "value": self._kept[key]}) + "\n")
        return self._kept[key]

    def choice_loss(self, recipe: Recipe, *, seed: int) -> float:
        """Loss on the rows to choose on after a whole run; infinite when it diverged."""
        return self._losses(recipe, (seed,), "choice")[0]

    def fresh_losses(self, recipe: Recipe) -> list[float]:
        """Losses on the fresh rows of runs with the fresh seeds; infinite for a run that diverged."""
        return self._losses(recipe, FRESH_SEEDS, "fresh")

    def fresh_loss(self, recipe: Recipe) -> float:
        """Mean loss of a recipe on fresh rows over the fresh seeds."""
        return statistics.fmean(self.fresh_losses(recipe))

    def resident(self, purpose: Purpose) -> Resident:
        """Model and data in memory."""
        if purpose not in self._residents:
            task = self.task
            self._residents[purpose] = Resident(task.model_spec, task.data_spec(purpose), task.advice.recipe)
        return self._residents[purpose]

    def _losses(self, recipe: Recipe, seeds: Sequence[int], purpose: Purpose) -> list[float]:
        plain = plain_run(recipe)
        name = json.dumps(plain.changed(seed=0).model_dump(mode="json", exclude_defaults=True), sort_keys=True)
        keys = {f"{purpose} {seed} {name}": seed for seed in seeds}
        missing = {key: seed for key, seed in keys.items() if key not in self._kept}
        if missing:
            found = self._train([plain.changed(seed=seed) for seed in missing.values()], purpose)
            for key, loss in zip(missing, found, strict=True):
                self.kept(key, lambda loss=loss: loss)
        return [math.inf if (loss := self._kept[key]) is None else loss for key in keys]

    def _train(self, recipes: Sequence[Recipe], purpose: Purpose) -> list[float | None]:
        """Final losses by our engine; None for a run that diverged."""
        can_share = self.task.method == "lora" and self.task.suffix == ".jsonl"
        with tempfile.TemporaryDirectory() as folder:
            waiting = [
                TrialRequest(
                    number=number,
                    recipe=recipe,
                    folder=str(Path(folder) / str(number)),
                    checkpoint_every_s=1e9,
                    on_trouble="ignore",
                )
                for number, recipe in enumerate(recipes)
            ]
            pack = Pack(
                self.resident(purpose),
                emit=lambda *_, **__: None,
                should_stop=lambda: False,
                take=lambda: waiting.pop(0) if waiting else None,
                num_lanes=LANES if can_share else 1,
            )
            found = {lane.number: lane.outcome for lane in pack.run()}
        return [outcome.eval_loss if outcome.state == "completed" else None for _, outcome in sorted(found.items())]


def plain_run(recipe: Recipe) -> Recipe:
    """The recipe as one whole run that is evaluated once, at its end."""
    micro = min(LARGEST_MICRO_BATCH, recipe.effective_batch_size)
    return recipe.changed(micro_batch_size=micro, evaluation={"num_evaluations": 1})
