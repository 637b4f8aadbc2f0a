"""Where a study starts: what `recommend` says of this model and these data, and what to tell the user about it."""

from __future__ import annotations

from finestep.errors import FinestepError
from finestep.facts import DataFacts, HardwareFacts
from finestep.recipe import Recipe
from finestep.search.starting_point import start_of
from finestep.search.study_space import no_prior
from finestep.study import EXTERNAL, DataSpec, ModelSpec, StartingPoint


def starting_point(
    model: ModelSpec, data: DataSpec | DataFacts | None, recipe: Recipe
) -> tuple[StartingPoint, str | None]:
    """(what `recommend` says about the best rate and batch, a note when it could say nothing).

    The machine is left out: it decides the micro-batch, which the prior does not need.
    """
    from finestep.flows.recommend import recommend
    from finestep.rules.compose import Ask

    if model.path == EXTERNAL:
        return no_prior(recipe), "no prior: no model was named, so the search starts from the method's usual rate"

    ask = Ask(
        method=recipe.method,
        rank=None if recipe.method == "full" else recipe.lora.rank,
        alpha=None if recipe.method == "full" else recipe.lora.alpha,
        num_epochs=recipe.num_epochs,
        num_devices=recipe.num_devices,
        target_modules=recipe.lora.target_modules,
    )
    try:
        found = recommend(model.path, data, hardware=HardwareFacts(), ask=ask)
    except FinestepError as error:
        return no_prior(recipe), f"no prior from `recommend` ({error}): searching a wide range"
    return start_of(found), None


def epochs_words(model: ModelSpec, data: DataSpec | DataFacts | None, recipe: Recipe) -> list[str]:
    """That a full run passes over the rows fewer times than `recommend` says, which keeps the search short; nothing otherwise."""
    from finestep.rules.duration import num_epochs
    from finestep.survey.model import model_facts

    if not isinstance(data, DataFacts) or not data.num_rows or recipe.num_train_tokens is not None:
        return []
    try:
        is_encoder = model_facts(model.path, offline=True).is_encoder
    except FinestepError:
        return []
    wanted = num_epochs(data.num_rows, is_encoder=is_encoder).value
    if wanted <= recipe.num_epochs:
        return []
    now = f"{recipe.num_epochs:g} time{'s' * (recipe.num_epochs != 1)}"
    return [
        f"a full run passes over the rows {now}, to keep the search short; `recommend` says {wanted:g} (`--epochs {wanted:g}`)"
    ]
