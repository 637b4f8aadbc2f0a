"""From what a user names to a study that can run: defaults, the shipped model and data, the name of the study."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import finestep
from finestep.errors import BadInput
from finestep.recipe import Method, Recipe
from finestep.search.single import Single
from finestep.search.strategy import Strategy
from finestep.search.sweep import BASELINE_RATES, Sweep, sweep_batches
from finestep.study import DataSpec, ModelSpec, StudySpec
from finestep.survey.formats import choose_format
from finestep.survey.rows import read_rows

SHIPPED = Path(finestep.__file__).parent / "shipped"
SHIPPED_MODEL, SHIPPED_DATA = SHIPPED / "base", SHIPPED / "instruct.jsonl"
SHIPPED_MAX_LENGTH = 128
RUNS_FOLDER = "finestep-runs"
LABEL_EPOCHS = 3.0
STRATEGIES = ("sweep",)


def shipped_default(model: str | None, data: str | None) -> tuple[str, str, bool]:
    """(model, data, is it the shipped pair): without arguments, the pair that comes with the package."""
    if model is None and data is None:
        return str(SHIPPED_MODEL), str(SHIPPED_DATA), True
    if model is None or data is None:
        raise BadInput("give a model and data, or neither for the shipped example", value=model or data)
    return (str(SHIPPED_MODEL) if model == "shipped" else model), data, False


def starting_recipe(method: Method, data: DataSpec) -> Recipe:
    """The conservative start: batch 16, the usual rate of the method, linear decay, early stopping off."""
    changes: dict[str, Any] = {"method": method, "learning_rate": BASELINE_RATES[method], "effective_batch_size": 16}
    if _is_labelled(data):
        changes |= {"num_epochs": LABEL_EPOCHS}
    return Recipe.model_validate(changes)


def study_name(model: str, data: str, method: str) -> str:
    """A short name from model, data and method, safe as a folder's.

    >>> study_name("/models/Tiny Llama/", "my/data.jsonl", "lora")
    'tiny-llama-data-lora'
    """
    parts = [Path(model.rstrip("/")).name, Path(data.rstrip("/")).name.partition(".")[0], method]
    return re.sub(r"[^a-z0-9._-]+", "-", "-".join(parts).lower()).strip("-.")[:60]


def check_strategy(name: str) -> None:
    """Raise BadInput for a strategy that does not exist."""
    if name not in STRATEGIES and name != "single":
        raise BadInput("unknown strategy", value=name, next_step="known: " + ", ".join(STRATEGIES))


def make_strategy(spec: StudySpec, card: Mapping[str, Any]) -> Strategy:
    """The strategy of a study, once the size of its data is known."""
    if spec.strategy == "single":
        return Single(spec.recipe)
    num_rows = int(card.get("facts", {}).get("num_rows") or 0)
    batch = spec.recipe.effective_batch_size
    batches = sweep_batches(num_rows, spec.recipe.num_epochs, baseline=batch)
    return Sweep(spec.recipe.method, batch=batch, batches=batches, scaling=spec.scaling)


def study_spec(*, model: ModelSpec, data: DataSpec, recipe: Recipe, strategy: str, **more: Any) -> StudySpec:
    """Put a study together; `max_length` of recipe and data are one."""
    check_strategy(strategy)
    length = recipe.max_length or data.max_length
    data, recipe = data.model_copy(update={"max_length": length}), recipe.changed(max_length=length)
    name = study_name(model.path, data.path, recipe.method)
    return StudySpec(name=name, model=model, data=data, recipe=recipe, strategy=strategy, **more)


def _is_labelled(data: DataSpec) -> bool:
    sample = [row for _, row in read_rows(data.path, limit=50)]
    return bool(sample) and choose_format(sample, data, place=data.path)[1] == "labels"
