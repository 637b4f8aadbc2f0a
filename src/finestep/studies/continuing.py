"""Going on from an adapter that exists: the recipe takes its rank, alpha and method, which training cannot change any more."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from pydantic import ValidationError

from finestep.errors import BadInput, first_complaint
from finestep.recipe import Recipe
from finestep.survey.adapter_files import adapter_folder, read_adapter_config
from finestep.survey.weights import ADAPTER_CONFIG

PEFT_DEFAULT = 8
"""Rank and alpha of an adapter whose config does not say."""
FIXED = ("rank", "alpha", "use_rslora")
"""Fields of `lora` that an existing adapter decides."""


def continued(model: str, recipe: Recipe, own_fields: Collection[str]) -> Recipe:
    """The recipe for a study whose model is the folder of an adapter; any other model leaves it as it is.

    Args:
        own_fields: fields, or whole groups, that the user has set.

    Raises:
        BadInput: the adapter is no LoRA adapter, or the user wants another rank, alpha, other layers or method `full`.
    """
    folder = adapter_folder(model)
    if folder is None:
        return recipe
    config = read_adapter_config(folder)
    if recipe.method == "full":
        raise BadInput(
            "an adapter goes on as an adapter: method `lora` or `qlora`",
            value="full",
            place=model,
            next_step=f"for full fine-tuning, merge it into its base first: finestep merge {model}",
        )
    if config.get("peft_type") != "LORA":
        raise BadInput(
            "only LoRA adapters can go on",
            value=config.get("peft_type"),
            place=model,
            next_step=f"merge it into its base first: finestep merge {model}",
        )
    found = _fields_of(config)
    for name in (*FIXED, "target_modules"):
        wanted = getattr(recipe.lora, name)
        is_own = "lora" in own_fields or f"lora.{name}" in own_fields
        if is_own and wanted != found.get(name, wanted):
            raise BadInput(
                f"`lora.{name}` must be the adapter's own when it goes on: {found[name]}",
                value=wanted,
                place=model,
                next_step="leave it out, or start a new adapter from the base",
            )
    try:
        return recipe.changed(lora={name: found[name] for name in FIXED if name in found})
    except ValidationError as error:
        name, law, value = first_complaint(error)
        raise BadInput(
            f"the adapter's config: `{name}`: {law}", value=value, place=str(folder / ADAPTER_CONFIG)
        ) from None


def _fields_of(config: dict[str, object]) -> dict[str, object]:
    return {
        "rank": config.get("r", PEFT_DEFAULT),
        "alpha": config.get("lora_alpha", PEFT_DEFAULT),
        "use_rslora": bool(config.get("use_rslora")),
        "target_modules": None,
    }


def continuing_words(model: str) -> list[str]:
    """What to tell the user about an adapter that goes on; nothing for other models."""
    folder = adapter_folder(model)
    if folder is None:
        return []
    config = read_adapter_config(folder)
    return [
        f"model: the adapter in {Path(model).name} goes on, rank {config.get('r')}, "
        f"on {config['base_model_name_or_path']}"
    ]
