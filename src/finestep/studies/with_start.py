"""Where the search of somebody's config begins: what is recommended for such a run, what was published, or its own rate."""

from __future__ import annotations

from finestep.errors import FinestepError
from finestep.facts import HardwareFacts
from finestep.flows.recommend import recommend
from finestep.flows.review import Review
from finestep.foreign.config import ForeignConfig
from finestep.recipe import Recipe
from finestep.rules.compose import Ask
from finestep.rules.preference_rate import OBJECTIVES
from finestep.search.starting_point import start_of
from finestep.study import StartingPoint

OWN_RATE_SD, OWN_BATCH_SD = 2.0, 1.0
"""Octaves around the file's own rate and batch, where nothing else is known."""


def start_of_config(
    review: Review, config: ForeignConfig, recipe: Recipe, *, with_prior: bool, beta: float | None = None
) -> StartingPoint:
    """Where the search begins: what `recommend` says of this run, or else the file's own rate and batch."""
    if with_prior and review.recommendation is not None:
        return start_of(review.recommendation)
    if with_prior and (known := _preference_start(config, recipe, beta)) is not None:
        return known
    return StartingPoint(
        learning_rate=recipe.learning_rate,
        learning_rate_sd=OWN_RATE_SD,
        batch_size=recipe.effective_batch_size,
        batch_size_sd=OWN_BATCH_SD,
        why="the file's own rate",
    )


def _preference_start(config: ForeignConfig, recipe: Recipe, beta: float | None) -> StartingPoint | None:
    """What published runs of DPO, ORPO and KTO used, for a model whose size is known."""
    if config.objective not in OBJECTIVES:
        return None
    method = config.objective if recipe.method != "full" else f"{config.objective}-full"
    try:
        ask = Ask(batch=recipe.effective_batch_size, beta=beta)
        found = recommend(config.model, method=method, hardware=HardwareFacts(), ask=ask)
    except FinestepError:
        return None
    return start_of(found).model_copy(
        update={"batch_size": recipe.effective_batch_size, "batch_size_sd": OWN_BATCH_SD, "why": "published runs"}
    )
