"""The plan of one trial in another trainer: rate, batch, steps and warmup, and these as changes of the user's file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from finestep.errors import BadInput
from finestep.foreign.markup import yaml_tree
from finestep.foreign.names import number
from finestep.recipe import Recipe
from finestep.study import FrameworkSpec
from finestep.trainers.config_text import ConfigText, Path
from finestep.trainers.framework import Framework

LARGEST_WARMUP = 0.5


@dataclass(frozen=True)
class TrialPlan:
    """What a trial is to train. `output` is the folder that the framework writes into."""

    learning_rate: float
    micro_batch: int
    accumulation: int
    num_devices: int
    num_steps: int
    warmup_steps: int
    num_epochs: float
    """Passes over the rows that so many steps make."""
    seed: int
    output: str
    num_eval_rows: int | None = None

    @property
    def effective_batch_size(self) -> int:
        """Rows a step."""
        return self.micro_batch * self.accumulation * self.num_devices


def plan_trial(
    framework: Framework,
    spec: FrameworkSpec,
    recipe: Recipe,
    *,
    fidelity: float,
    num_rows: int,
    output: str,
    micro_limit: int | None = None,
    num_steps: int | None = None,
) -> TrialPlan:
    """The plan of a trial.

    Args:
        num_rows: training rows as the framework counts them.
        micro_limit: rows of a forward pass that memory is known to allow.
        num_steps: a run of just so many steps, for a preflight.
    """
    micro = fitting_micro_batch(recipe, micro_limit)
    accumulation = recipe.accumulation_steps(micro)
    epochs = recipe.num_epochs * fidelity
    rows_a_step = micro * accumulation * recipe.num_devices
    if spec.full_run.rows_of_run is not None:
        planned = max(1, round(spec.full_run.rows_of_run * fidelity / rows_a_step))
    else:
        planned = steps_of(framework, num_rows, micro * recipe.num_devices, accumulation, epochs)
    steps = num_steps or planned
    return TrialPlan(
        learning_rate=recipe.learning_rate,
        micro_batch=micro,
        accumulation=accumulation,
        num_devices=recipe.num_devices,
        num_steps=steps,
        warmup_steps=warmup_of(framework, spec, steps),
        num_epochs=steps * rows_a_step / max(num_rows, 1),
        seed=recipe.seed,
        output=output,
        num_eval_rows=spec.full_run.num_eval_rows,
    )


def steps_of(framework: Framework, num_rows: int, rows_a_pass: int, accumulation: int, epochs: float) -> int:
    """Optimizer steps that the framework itself counts for so many passes over the rows.

    >>> from finestep.trainers.frameworks import FRAMEWORKS
    >>> steps_of(FRAMEWORKS["trl"], 160, 8, 2, 1.6), steps_of(FRAMEWORKS["litgpt"], 160, 8, 2, 1.6)
    (16, 16)
    """
    batches = math.ceil(num_rows / rows_a_pass)
    if framework.rounds == "down":
        return max(1, int(epochs * (batches // accumulation) + 1e-9))
    return max(1, math.ceil(epochs * max(1, math.ceil(batches / accumulation)) - 1e-9))


def fitting_micro_batch(recipe: Recipe, limit: int | None = None) -> int:
    """The largest number of rows a pass that divides the batch, up to the user's own and to what memory allows.

    >>> fitting_micro_batch(Recipe(effective_batch_size=12, micro_batch_size=8))
    6
    """
    per_device = max(1, recipe.effective_batch_size // recipe.num_devices)
    most = min(recipe.first_micro_batch(), limit or per_device, per_device)
    return next(size for size in range(most, 0, -1) if per_device % size == 0)


def warmup_of(framework: Framework, spec: FrameworkSpec, steps: int) -> int:
    """Warmup steps of a run of so many steps: the same share of every run, and at least one where there is any."""
    if not spec.full_run.warmup_share:
        return 0
    if not spec.full_run.warmup_in_steps:
        return math.ceil(spec.full_run.warmup_share * steps)  # as the Trainer counts a share
    return max(1, min(round(spec.full_run.warmup_share * steps), int(LARGEST_WARMUP * steps)))


def trial_changes(framework: Framework, spec: FrameworkSpec, plan: TrialPlan) -> dict[Path, object]:
    """The settings of a trial, by place; what the file says already is not repeated."""
    tree = tree_of(spec.text, spec.config)
    wanted = found_values(framework, spec, plan, tree)
    wanted[framework.names.output] = plan.output
    wanted |= framework.steps(plan.num_steps)
    wanted |= {path: value for path, value in framework.off.items() if value_at(tree, path) not in (value, None)}
    return {path: value for path, value in wanted.items() if not says_already(value_at(tree, path), value)}


def says_already(stated: object, wanted: object) -> bool:
    """Whether a file states a value as it is wanted, however a number is spelt."""
    if isinstance(wanted, bool) or isinstance(stated, bool):
        return stated is wanted
    return stated is not None and (stated == wanted or (isinstance(wanted, float | int) and number(stated) == wanted))


def found_values(framework: Framework, spec: FrameworkSpec, plan: TrialPlan, tree: object) -> dict[Path, object]:
    """What makes a run this trial: rate, batch, length, warmup, seed and rows; neither logging nor where it is written to."""
    names = framework.names
    values: dict[Path, object] = _rate(framework, plan, tree)
    values[names.micro_batch] = plan.micro_batch
    if names.accumulation:
        values[names.accumulation] = plan.accumulation
    if names.whole_batch:
        values[names.whole_batch] = plan.effective_batch_size
    values[names.max_steps] = plan.num_steps
    if framework.rounds == "down":
        values[names.epochs] = math.ceil(plan.num_epochs) + 1  # its epochs end a run before `max_steps` does
    if spec.full_run.warmup_in_steps:
        values[names.warmup_steps] = plan.warmup_steps
    for path in names.step_counts:
        values |= _scaled(tree, path, plan.num_steps, spec)
    values[names.seed] = plan.seed
    return values | {place_of(name): value for name, value in spec.settings.items()}


def _rate(framework: Framework, plan: TrialPlan, tree: object) -> dict[Path, object]:
    """The rate at its place; an optimizer that is only named becomes one with arguments."""
    path = framework.names.learning_rate
    for depth in range(1, len(path)):
        inner = value_at(tree, path[:depth])
        if isinstance(inner, str):
            spelt = inner if "." in inner else f"torch.optim.{inner}"
            return {path[:depth]: {"class_path": spelt, "init_args": {path[-1]: plan.learning_rate}}}
        if inner is None and depth == 1 and len(path) > 1:
            return {path[:1]: {"class_path": "torch.optim.AdamW", "init_args": {path[-1]: plan.learning_rate}}}
    return {path: plan.learning_rate}


def _scaled(tree: object, path: Path, steps: int, spec: FrameworkSpec) -> dict[Path, object]:
    stated, whole = value_at(tree, path), spec.full_run.full_steps
    if not isinstance(stated, int) or not whole:
        return {}
    return {path: max(1, round(stated * steps / whole))}


def place_of(name: str) -> Path:
    """A dotted name as a place; a number is an index of a list.

    >>> place_of("datasets.0.path")
    ('datasets', 0, 'path')
    """
    return tuple(int(part) if part.isdecimal() else part for part in name.split("."))


def tree_of(text: str, place: str) -> dict[str, object]:
    """The values of a config.

    Raises:
        BadInput: it is no mapping.
    """
    found = yaml_tree(text, place)
    if not isinstance(found, dict):
        raise BadInput("a config must be a mapping of names to values", value=type(found).__name__, place=place)
    return found


def value_at(tree: object, path: Path) -> object:
    """What a tree holds at a place; None when it holds nothing."""
    for key in path:
        if isinstance(tree, Mapping):
            tree = tree.get(key)
        elif isinstance(tree, list) and isinstance(key, int) and key < len(tree):
            tree = tree[key]
        else:
            return None
    return tree


def trial_text(framework: Framework, spec: FrameworkSpec, plan: TrialPlan) -> str:
    """The whole file of a trial."""
    return ConfigText(spec.text, place=spec.config).changed(trial_changes(framework, spec, plan))
