"""What a search may try in another trainer: the batch sizes that it compares fairly, and the lengths that pay."""

from __future__ import annotations

from finestep.recipe import Recipe
from finestep.search.space import SearchSpace
from finestep.study import FrameworkSpec
from finestep.trainers.frameworks import framework

MOSTLY_FIXED = 0.5
"""When more of a full run than this does not depend on its length, a short run costs nearly as much as a full one."""


def within_framework(space: SearchSpace, spec: FrameworkSpec, recipe: Recipe, *, fixed_share: float) -> SearchSpace:
    """The space of a study in a framework.

    Args:
        fixed_share: of a full run's time, what does not depend on its length.
    """
    changes: dict[str, object] = {}
    if fixed_share > MOSTLY_FIXED:
        changes["fidelities"] = (1.0,)
    if framework(spec.name).validation.is_by_micro_batch:
        rows = recipe.first_micro_batch() * recipe.num_devices
        fair = tuple(size for size in space.batch_sizes if size >= rows and size % rows == 0)
        changes["batch_sizes"] = fair or (recipe.effective_batch_size,)
    return space.model_copy(update=changes)
