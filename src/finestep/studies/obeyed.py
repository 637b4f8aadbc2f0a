"""Settings that would change nothing: named and refused before anything runs, so that what was asked for is never dropped.

A field counts as asked for when it differs from its default; a field at its default asks for nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from finestep.errors import BadInput
from finestep.recipe import Recipe
from finestep.study import CommandSpec
from finestep.trainers.command_fields import LENGTH_FIELDS, fields_of

NAME_IN_COMMAND = {"schedule.name": "schedule"}
"""Fields whose name in a command is not the last part of their own."""
PREDICTED = ("method", "lora.rank", "lora.target_modules", "max_length")
"""What a prediction of memory depends on."""
MEASURED = (
    *PREDICTED, "effective_batch_size", "num_epochs", "evaluation.num_evaluations", "lora.alpha", "lora.dropout", "lora.use_rslora",
    "seed",
)  # fmt: skip
"""What `finestep probe` measures, or tells the time and the price of."""


@dataclass(frozen=True)
class _Law:
    """Fields that do nothing when `idle` holds, and why."""

    fields: tuple[str, ...]
    idle: Callable[[Recipe], bool]
    why: str
    next_step: str


LAWS = (
    _Law(
        ("lora.rank", "lora.alpha", "lora.dropout", "lora.target_modules", "lora.use_rslora"),
        lambda recipe: recipe.method == "full",
        "method `full` has no adapter",
        "leave it out, or use --method lora",
    ),
    _Law(
        ("schedule.power",),
        lambda recipe: recipe.schedule.name != "polynomial",
        "only schedule `polynomial` has a power",
        "set schedule.name=polynomial",
    ),
    _Law(
        ("schedule.decay_ratio",),
        lambda recipe: recipe.schedule.name != "wsd",
        "only schedule `wsd` has a share of decay",
        "set schedule.name=wsd",
    ),
    _Law(
        ("schedule.min_lr_ratio",),
        lambda recipe: recipe.schedule.name == "constant",
        "schedule `constant` has no floor",
        "choose another schedule.name",
    ),
    _Law(
        ("schedule.warmup_shape", "schedule.warmup_init_lr"),
        lambda r: r.schedule.warmup_steps == 0 or r.schedule.warmup_ratio == 0,
        "there is no warmup",
        "set schedule.warmup_ratio above 0, or leave it out",
    ),
    _Law(
        ("evaluation.min_gain",),
        lambda r: r.evaluation.patience is None,
        "a run that never stops early needs no smallest gain",
        "set evaluation.patience too",
    ),
)


def check_recipe(
    recipe: Recipe,
    *,
    trainer: CommandSpec | None,
    named: Collection[str],
    is_labelled: Callable[[], bool],
    tuned: Collection[str] = (),
) -> None:
    """Refuse a field that differs from its default and would change nothing.

    Args:
        named: fields or groups that the user has set by name.
        is_labelled: asked only where it matters.
        tuned: fields that a search changes.

    Raises:
        BadInput: with the field, why it is idle, and what to do.
    """
    changed = list(changed_fields(recipe))
    if trainer is not None:
        _check_told(trainer, changed, named)
        return
    if recipe.num_devices > recipe.effective_batch_size:
        raise BadInput(
            "`num_devices` must not exceed the rows of a step",
            value=f"effective batch {recipe.effective_batch_size} on {recipe.num_devices} devices",
            next_step="a larger effective_batch_size, or fewer devices",
        )
    for law in LAWS:
        for field in law.fields:
            if field in changed and law.idle(recipe) and "schedule.name" not in tuned:
                raise BadInput(
                    f"`{field}` would change nothing: {law.why}", value=recipe.field(field), next_step=law.next_step
                )
    head = "optimizer.head_lr_multiplier"
    if head in changed and not is_labelled():
        raise BadInput(
            f"`{head}` would change nothing: only a classifier has a new head",
            value=recipe.field(head),
            next_step="leave it out",
        )


def check_acting(named: Collection[str], acting: Collection[str], *, place: str) -> None:
    """Refuse named fields of the recipe that `place` does not depend on."""
    for name in named:
        if not any(name == one or one.startswith(f"{name}.") for one in acting):
            raise BadInput(
                f"`--set {name}` would change nothing in {place}", next_step="these do: " + ", ".join(acting)
            )


def changed_fields(recipe: Recipe) -> Iterator[str]:
    """Dotted names of the fields that are not at their default."""
    default = Recipe()
    for name in Recipe.model_fields:
        value = getattr(recipe, name)
        if hasattr(value, "model_dump"):
            group = getattr(default, name)
            yield from (
                f"{name}.{leaf}" for leaf in type(value).model_fields if getattr(value, leaf) != getattr(group, leaf)
            )
        elif value != getattr(default, name):
            yield name


def _check_told(trainer: CommandSpec, changed: Collection[str], named: Collection[str]) -> None:
    """What the user sets must reach the command, or plan its trials."""
    told = fields_of(trainer.command)
    for field in changed:
        if field not in named and field.partition(".")[0] not in named:
            continue
        leaf = NAME_IN_COMMAND.get(field, field.rpartition(".")[2])
        plans = field == "num_epochs" and told & LENGTH_FIELDS
        if leaf not in told and not plans and field not in ("method", "evaluation.num_evaluations"):
            raise BadInput(
                f"`{field}` would change nothing: the command is not told",
                value=trainer.command,
                next_step=f"add {{{leaf}}} to it",
            )
