"""The recipe that a user asks for: a file or the defaults, with single settings on top; what contradicts is refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from finestep.errors import BadInput
from finestep.recipe import Method, Recipe
from finestep.search.starting_point import RECOMMENDED_FIELDS
from finestep.search.sweep import BASELINE_RATES
from finestep.store.recipe_file import apply_settings, fields_in, named_fields, read_recipe
from finestep.studies.checks import is_labelled
from finestep.study import EXTERNAL, DataSpec

METHODS = get_args(Method)
LABEL_EPOCHS = 3.0


@dataclass(frozen=True)
class AskedRecipe:
    """The recipe, and which of its fields (or groups of fields) the user has set."""

    recipe: Recipe
    own_fields: frozenset[str]


def asked_recipe(
    data: DataSpec,
    *,
    method: Method | None = None,
    recipe: Recipe | Path | None = None,
    epochs: float | None = None,
    settings: Sequence[str] = (),
) -> AskedRecipe:
    """Put together what was asked for.

    Args:
        recipe: a recipe, or its file; None = the defaults of the method.
        settings: `group.field=value`, which win over the recipe.

    Raises:
        BadInput: `method` or `epochs` say something else than the recipe or the settings.
    """
    if method is not None and method not in METHODS:
        raise BadInput(f"the method must be one of {', '.join(METHODS)}", value=method)
    begun = read_recipe(recipe) if isinstance(recipe, Path) else recipe or starting_recipe(method or "lora", data)
    begun = begun if epochs is None else begun.with_fields({"num_epochs": epochs}, place="--epochs")
    wanted = apply_settings(begun, list(settings))
    _check_same("--method", method, wanted.method)
    _check_same("--epochs", epochs, wanted.num_epochs if wanted.num_train_tokens is None else "num_train_tokens")
    own = named_fields(list(settings))
    if isinstance(recipe, Path):
        own |= {*RECOMMENDED_FIELDS, *fields_in(recipe)}
    elif recipe is not None:
        own |= {*RECOMMENDED_FIELDS, *recipe.model_fields_set}
    return AskedRecipe(wanted, frozenset(own))


def _check_same(option: str, asked: object, now: object) -> None:
    """An option that the recipe or `--set` overrules is refused."""
    if asked is not None and asked != now:
        raise BadInput(
            f"`{option}` and the recipe (or `--set`) must agree", value=f"{asked} and {now}", next_step="give one"
        )


def starting_recipe(method: Method, data: DataSpec) -> Recipe:
    """The conservative start: batch 16, the usual rate of the method, linear decay, early stopping off."""
    changes: dict[str, object] = {"method": method, "learning_rate": BASELINE_RATES[method], "effective_batch_size": 16}
    if data.path != EXTERNAL and is_labelled(data):
        changes |= {"num_epochs": LABEL_EPOCHS}
    return Recipe.model_validate(changes)
