"""Small studies on the replay twin, for tests of everything above the worker."""

from __future__ import annotations

import math
from pathlib import Path

from finestep.executors.replay import ReplayExecutor
from finestep.facts import DataFacts
from finestep.ready import DataCard, Ready
from finestep.recipe import Recipe
from finestep.search.sweep import Sweep
from finestep.store.study_store import StudyStore
from finestep.studies.event import TuneEvent
from finestep.studies.tuning import Tuning
from finestep.study import Budget, DataSpec, ModelSpec, StudySpec

FINGERPRINT = {"data_sha256": "d", "model_sha256": "m", "version_torch": "2.13.0"}
CARD = DataCard(
    facts=DataFacts(name="d", num_rows=4000, num_eval_rows=100, num_tokens=100_000, num_trained_tokens=50_000)
)
READY = Ready(card=CARD)


def basin(recipe: Recipe, fidelity: float) -> list[float]:
    """A bowl around 1e-3 at batch 16, with a cliff eight times above."""
    x = math.log10(recipe.learning_rate / (1e-3 * (recipe.effective_batch_size / 16) ** 0.4))
    last = math.nan if x > 0.9 else 1.0 + 0.2 * x * x + 0.01 * abs(math.log2(recipe.effective_batch_size / 32))
    return [2.0, 1.5, last]


def spec(**changes) -> StudySpec:
    values = {"name": "test", "model": ModelSpec(path="m"), "data": DataSpec(path="d"), "recipe": Recipe()}
    return StudySpec.model_validate({**values, **changes})


def open_store(folder: Path, *, fingerprint=FINGERPRINT, storage_url=None, **changes) -> StudyStore:
    return StudyStore(folder, spec(**changes), fingerprint, storage_url=storage_url)


def tune(
    store: StudyStore, *, budget: float = 20, recording=basin, should_stop=lambda: False
) -> tuple[list[TuneEvent], ReplayExecutor]:
    """Run the tuning loop to its end on recorded trials."""
    executor = ReplayExecutor(recording, card=CARD, num_train_rows=4000)
    tuning = Tuning(store, executor, lambda card: Sweep("lora"), Budget(full_runs=budget), should_stop=should_stop)
    return list(tuning.run()), executor
