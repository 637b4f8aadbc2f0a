"""What a user's own command may be told: the fields in its braces, their values for a trial, and the laws of both; pure text."""

from __future__ import annotations

import math
import shlex
import string
from collections.abc import Mapping

from finestep.errors import BadInput, did_you_mean
from finestep.protocol import TrialRequest
from finestep.recipe import Recipe
from finestep.study import CommandSpec
from finestep.trainers.command_results import check_result, name_and_place
from finestep.trainers.plan import fitting_micro_batch

LENGTH_FIELDS = frozenset({"num_steps", "num_epochs", "fidelity", "num_rows"})
"""Fields by which a command can be told to run for a shorter time."""
BATCH_FIELDS = frozenset({"effective_batch_size", "micro_batch_size", "accumulation_steps"})


def check_command(trainer: CommandSpec) -> None:
    """Raise BadInput for a command that cannot be filled in, or a result that cannot be read, before anything runs."""
    known = field_values(TrialRequest(number=0, recipe=Recipe(), folder="."), num_rows=1)
    names = fields_of(trainer.command)
    for name in names:
        if name not in known:
            raise BadInput(
                f"`--command` has an unknown field{did_you_mean(name, known)}",
                value="{" + name + "}",
                next_step="known: " + ", ".join(sorted(known)) + "; write {{ for a brace",
            )
    if "learning_rate" not in names:
        raise BadInput(
            "`--command` must take the learning rate", value=trainer.command, next_step="add {learning_rate}"
        )
    if "num_steps" in names and trainer.num_rows is None:
        raise BadInput("the number of steps follows from the number of rows", next_step="give data, or --rows N")
    if not any(name_and_place(result)[0] == "eval_loss" for result in trainer.results):
        raise BadInput(
            "one `--result` must be `eval_loss`, something to minimise",
            value=list(trainer.results),
            next_step="e.g. --result 'eval_loss=eval loss: ([0-9.]+)'; give a metric as a further --result",
        )
    for result in trainer.results:
        check_result(result)


def fields_of(command: str) -> set[str]:
    """Names in braces.

    >>> sorted(fields_of("train {learning_rate} {num_steps} {{literal}}"))
    ['learning_rate', 'num_steps']
    """
    try:
        return {name.strip() for _, name, _, _ in string.Formatter().parse(command) if name is not None}
    except ValueError as error:
        raise BadInput(
            f"`--command` cannot be read: {error}", value=command, next_step="write {{ for a brace"
        ) from None


def may_take_fewer_rows(command: str) -> bool:
    """True when a command can be told a smaller micro-batch without changing its effective batch.

    >>> may_take_fewer_rows("t {micro_batch_size} {accumulation_steps}"), may_take_fewer_rows("t {micro_batch_size}")
    (True, False)
    """
    names = fields_of(command)
    return "micro_batch_size" in names and not names.isdisjoint(BATCH_FIELDS - {"micro_batch_size"})


def field_values(request: TrialRequest, *, num_rows: int | None, micro_limit: int | None = None) -> dict[str, object]:
    """What a command may ask for. Epochs, rows and steps are those of this trial, its shorter length included.

    Args:
        micro_limit: rows of a forward pass that memory is known to allow.
    """
    recipe = request.recipe
    micro = fitting_micro_batch(recipe, micro_limit)
    values: dict[str, object] = {
        "learning_rate": f"{recipe.learning_rate:.6g}",
        "effective_batch_size": recipe.effective_batch_size,
        "micro_batch_size": micro,
        "accumulation_steps": recipe.accumulation_steps(micro),
        "num_devices": recipe.num_devices,
        "num_epochs": f"{recipe.num_epochs * request.fidelity:.6g}",
        "fidelity": f"{request.fidelity:.6g}",
        "seed": recipe.seed,
        "schedule": recipe.schedule.name,
        "warmup_ratio": 0.05 if recipe.schedule.warmup_ratio is None else recipe.schedule.warmup_ratio,
        "weight_decay": recipe.optimizer.weight_decay,
        "beta2": recipe.optimizer.beta2,
        "layerwise_decay": recipe.optimizer.layerwise_decay,
        "head_lr_multiplier": recipe.optimizer.head_lr_multiplier,
        "rank": recipe.lora.rank,
        "alpha": f"{recipe.lora.alpha:g}",
        "dropout": recipe.lora.dropout,
        "trial": request.number,
        "output_dir": request.folder,
    }
    if num_rows is not None:
        seen = max(1, round(num_rows * recipe.num_epochs * request.fidelity))
        values |= {"num_rows": seen, "num_steps": math.ceil(seen / recipe.effective_batch_size)}
    return values


def filled(text: str, values: Mapping[str, object]) -> str:
    """The command with its fields filled in, each quoted for the shell."""
    return text.format(**{name: shlex.quote(str(value)) for name, value in values.items()})
