"""Where a search starts: a recommendation, and what the user has set, as the centre and the width of what is believed."""

from __future__ import annotations

import math
from collections.abc import Collection

from finestep.recipe import Recipe
from finestep.rules.recommendation import Recommendation
from finestep.study import StartingPoint

HEAD_FACTOR = "optimizer.head_lr_multiplier"
RECOMMENDED_FIELDS = (HEAD_FACTOR,)
"""Fields of the recipe that a search takes from `recommend`, besides the rate and the batch size that it looks for."""
OWN_RATE_REACH, OWN_BATCH_REACH, OWN_BATCH_SD = 2.0, 1, 0.5
"""Octaves around a rate and a batch size that the user has set: a factor of 4 and of 2 either way."""
LEAST_BATCH_SD, LEAST_RATE_SD = 1.0, 1.6
"""Octaves: a recommendation is not believed more narrowly than this. Its centre was a factor of 4 off and more in a quarter of the
held-out cases that it was first judged on (a deviation of 1.7 octaves), and a search that trusts it more states too much."""


def start_of(found: Recommendation) -> StartingPoint:
    """A recommendation as a starting point: the centre of its learning rate, not the aim that lies left of it."""
    batch = found.estimates["effective_batch_size"]
    octaves = math.log2(batch.high / batch.low) / 2.56
    return StartingPoint(
        learning_rate=10**found.log10_center,
        learning_rate_sd=max(found.log10_sd * math.log2(10), LEAST_RATE_SD),
        batch_size=batch.value,
        batch_size_sd=max(octaves, LEAST_BATCH_SD),
        why="recommend",
        fields={name: found.estimates[name] for name in RECOMMENDED_FIELDS if name in found.estimates},
    )


def with_start_fields(recipe: Recipe, start: StartingPoint, *, own: Collection[str]) -> tuple[Recipe, StartingPoint]:
    """The recipe with the fields that the start sets, and the start with just those.

    Args:
        own: fields or groups that the user has set; they stay as they are.
    """
    taken = {
        name: estimate
        for name, estimate in start.fields.items()
        if not any(name == one or name.startswith(f"{one}.") for one in own)
    }
    recipe = recipe.with_fields({name: estimate.value for name, estimate in taken.items()})
    return recipe, start.model_copy(update={"fields": taken})


def with_own_pair(start: StartingPoint, recipe: Recipe, own: Collection[str]) -> StartingPoint:
    """The start with the learning rate and the batch size that the user has set as the centre of a narrow search."""
    changes: dict[str, float | int | str] = {}
    if "learning_rate" in own:
        changes |= {
            "learning_rate": recipe.learning_rate,
            "learning_rate_sd": LEAST_RATE_SD,
            "learning_rate_reach": OWN_RATE_REACH,
        }
    if "effective_batch_size" in own:
        changes |= {
            "batch_size": recipe.effective_batch_size,
            "batch_size_sd": OWN_BATCH_SD,
            "batch_size_reach": OWN_BATCH_REACH,
        }
    return start.model_copy(update=changes)


def own_words(start: StartingPoint) -> list[str]:
    """What the search does with a rate and a batch size that the user has set."""
    said = []
    if start.learning_rate_reach is not None:
        factor = 2**start.learning_rate_reach
        said.append(f"learning rates from {start.learning_rate / factor:.1e} to {start.learning_rate * factor:.1e}")
    if start.batch_size_reach is not None:
        factor = 2**start.batch_size_reach
        said.append(f"batch sizes from {start.batch_size / factor:g} to {start.batch_size * factor:g}")
    return [f"as you set them: the search keeps to {' and '.join(said)}"] if said else []


def field_words(start: StartingPoint) -> list[str]:
    """What the start sets besides rate and batch, a sentence each; a factor of 1 is not worth one."""
    head = start.fields.get(HEAD_FACTOR)
    if head is None or head.value == 1.0:
        return []
    return [f"start: the new head learns {head.value:g} times as fast, from {start.why} ({head.why})"]


def start_words(start: StartingPoint) -> str:
    """The starting point in a sentence, with its central 80 %."""
    factor = 2 ** (1.28 * start.learning_rate_sd)
    return (
        f"start: learning rate {start.learning_rate:.1e} ({start.learning_rate / factor:.1e} to "
        f"{start.learning_rate * factor:.1e}) at batch {start.batch_size:g}, from {start.why}"
    )
