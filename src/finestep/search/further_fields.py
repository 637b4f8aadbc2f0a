"""Further fields that `--tune` adds to the search: their values, how much each usually matters; it reads no file.

The learning rate and the batch size stay the structured pair. Weight decay is offered but starts at none: at
fine-tuning length it hardly acts (it would need about 1 / (rate x decay) steps).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from finestep.errors import BadInput, did_you_mean
from finestep.recipe import Recipe
from finestep.search.observations import field_of
from finestep.search.space import Dimension
from finestep.study import TunedField
from finestep.trial import Trial


@dataclass(frozen=True)
class FurtherField:
    """One field that may join the search.

    Attributes:
        effect: typical loss between a good and a bad value, % of the loss.
    """

    name: str
    values: tuple[float | str, ...]
    scale: Literal["linear", "log", "choice"]
    effect: float
    start: float | str | None = None
    """Where the recipe says "you decide", the value to begin with."""
    costs: bool = False
    adapter_only: bool = False


FURTHER_FIELDS = {
    "rank": FurtherField("lora.rank", (4, 8, 16, 32, 64, 128), "log", 0.3, adapter_only=True),
    "alpha": FurtherField("lora.alpha", (8.0, 16.0, 32.0, 64.0, 128.0), "log", 0.2, adapter_only=True),
    "dropout": FurtherField("lora.dropout", (0.0, 0.05, 0.1), "linear", 0.1, adapter_only=True),
    "warmup": FurtherField("schedule.warmup_ratio", (0.0, 0.03, 0.05, 0.1, 0.2), "linear", 0.2, start=0.05),
    "schedule": FurtherField("schedule.name", ("linear", "cosine", "constant", "wsd"), "choice", 0.3),
    "weight_decay": FurtherField("optimizer.weight_decay", (0.0, 0.01, 0.03, 0.1), "linear", 0.05),
    "beta2": FurtherField("optimizer.beta2", (0.95, 0.98, 0.99, 0.999), "choice", 0.1),
    "layerwise_decay": FurtherField("optimizer.layerwise_decay", (0.7, 0.8, 0.9, 0.95, 1.0), "linear", 0.3),
    "head_multiplier": FurtherField("optimizer.head_lr_multiplier", (1.0, 3.0, 10.0, 30.0), "log", 0.3),
    "epochs": FurtherField("num_epochs", (0.5, 1.0, 2.0, 3.0), "log", 1.0, costs=True),
}
"""By the word for `--tune`. Effects: ranks of the LoRA sweep differ by 0.2 to 0.4 %; warmup, schedule and the others are
judged from practice, not measured here, and only say where runs go first."""


def value_words(values: Mapping[str, object]) -> str:
    """Fields and their values as a person says them.

    >>> value_words({"lora.rank": 16, "schedule.warmup_ratio": 0.05, "seed": 1})
    'rank 16, warmup 0.05, seed 1'
    """
    short = {field.name: word.replace("_", " ") for word, field in FURTHER_FIELDS.items()}
    said = (
        f"{short.get(name, name)} {value:g}" if isinstance(value, int | float) else f"{short.get(name, name)} {value}"
        for name, value in values.items()
    )
    return ", ".join(said)


def tuned_values(tuned: Sequence[TunedField], trial: Trial) -> dict[str, object]:
    """What a trial has in the fields that the study tunes besides rate and batch size."""
    return {field.name: field_of(trial, field.name) for field in tuned}


def parse_tuned(text: str | None, recipe: Recipe) -> tuple[TunedField, ...]:
    """`rank,warmup` or `rank=8/16/64,schedule=linear/cosine` as fields of the recipe.

    Raises:
        BadInput: an unknown word, a value that the recipe does not allow, or a field that the method does not have.
    """
    words = [word.strip() for word in (text or "").split(",") if word.strip()]
    fields = tuple(_tuned(word, recipe) for word in words)
    names = [field.name for field in fields]
    if len(names) != len(set(names)):
        raise BadInput("`--tune` names a field once", value=text)
    return fields


def _tuned(word: str, recipe: Recipe) -> TunedField:
    name, has_values, listed = word.partition("=")
    known = FURTHER_FIELDS.get(name)
    if known is None:
        hint = did_you_mean(name, FURTHER_FIELDS)
        raise BadInput(
            f"`--tune` does not know this field{hint}", value=name, next_step="known: " + ", ".join(FURTHER_FIELDS)
        )
    if known.adapter_only and recipe.method == "full":
        raise BadInput(f"`--tune {name}` needs an adapter", value="full", place="--method")
    values = tuple(_value(part, known) for part in listed.split("/")) if has_values else known.values
    if known.costs and not has_values:
        values = tuple(float(value) * recipe.num_epochs for value in values)
    if known.scale != "choice":
        values = tuple(sorted({*values, start_of(known, recipe)}, key=float))
    for value in values:
        recipe.with_fields({known.name: value}, place="--tune")
    return TunedField(name=known.name, values=values)


def _value(text: str, field: FurtherField) -> float | str:
    if isinstance(field.values[0], str):
        return text.strip()
    try:
        number = float(text)
    except ValueError:
        raise BadInput(
            "`--tune` takes values with `/` between them", value=text, next_step="e.g. rank=8/16/64"
        ) from None
    return int(number) if isinstance(field.values[0], int) else number


def start_of(field: FurtherField, recipe: Recipe) -> float | str:
    """What the recipe has now, or the tool's own choice where it has none."""
    value = recipe.field(field.name)
    return field.start if value is None else value  # type: ignore[return-value]


def with_starts(recipe: Recipe, tuned: tuple[TunedField, ...]) -> Recipe:
    """The recipe with every tuned field set, so that each trial says where it lies."""
    by_name = {field.name: field for field in FURTHER_FIELDS.values()}
    starts = {field.name: start_of(by_name[field.name], recipe) for field in tuned}
    return recipe.with_fields(starts, place="--tune")


def dimensions(tuned: tuple[TunedField, ...], recipe: Recipe) -> tuple[Dimension, ...]:
    """The search's dimensions for the tuned fields, each with what is believed best first."""
    by_name = {field.name: field for field in FURTHER_FIELDS.values()}
    made = []
    for field in tuned:
        known = by_name[field.name]
        start = start_of(known, recipe)
        made.append(
            Dimension(
                name=field.name,
                values=field.values,
                default=start if start in field.values else field.values[0],
                scale=known.scale,
                effect=known.effect,
                costs=known.costs,
            )
        )
    return tuple(made)
