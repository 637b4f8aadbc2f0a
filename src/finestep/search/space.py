"""SearchSpace: the learning rates, batch sizes, lengths and further fields that a search may choose from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

from finestep.errors import BadInput
from finestep.recipe import Recipe

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Index = npt.NDArray[np.intp]
"""Arrays of numbers, of truths, and of places in another array."""
PAIR = ("learning_rate", "effective_batch_size")


class Dimension(BaseModel):
    """One further field of the recipe, tuned beside the structured pair.

    `effect` says how much the field usually matters; the search spends runs on it in proportion.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(description="Dotted field of the recipe, e.g. `schedule.warmup_ratio`.")
    values: tuple[object, ...] = Field(min_length=1, description="Values to choose from, in order unless categorical.")
    default: object = Field(None, description="The value believed best; None: the first.")
    scale: Literal["linear", "log", "choice"] = "linear"
    effect: float = Field(0.3, gt=0, description="Typical loss between a good and a bad value, % of the loss.")
    costs: bool = Field(False, description="True when a run costs in proportion to the value (epochs).")

    @model_validator(mode="after")
    def _sound(self) -> Dimension:
        place = f"dimension `{self.name}`"
        if self.name in PAIR:
            raise BadInput("learning rate and batch size have their own ranges", value=self.name, place="search space")
        for value in self.values:
            Recipe().with_fields({self.name: value}, place=place)
            if self.scale != "choice" and not isinstance(value, int | float):
                raise BadInput(f"scale `{self.scale}` needs numbers", value=value, place=place)
            if self.scale == "log" and value <= 0:  # type: ignore[operator]
                raise BadInput("scale `log` needs numbers > 0", value=value, place=place)
        if self.default is not None and self.default not in self.values:
            raise BadInput("`default` must be among `values`", value=self.default, place=place)
        return self

    def coordinate(self, value: object) -> float:
        """Where a value lies: 0 to 1 over the range, or the index of a category."""
        if self.scale == "choice":
            return float(self.values.index(value)) if value in self.values else -1.0
        low, high = (self._place(end) for end in (self.values[0], self.values[-1]))
        return (self._place(value) - low) / (high - low) if high != low else 0.0

    def _place(self, value: object) -> float:
        number = float(value)  # type: ignore[arg-type]
        return math.log2(number) if self.scale == "log" else number

    @property
    def start(self) -> object:
        """The value to begin with."""
        return self.values[0] if self.default is None else self.default


class SearchSpace(BaseModel):
    """What may be proposed. Fidelities are shares of the full token budget, each with its own whole schedule."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    learning_rates: tuple[float, ...] = Field(min_length=1)
    batch_sizes: tuple[int, ...] = Field(min_length=1)
    fidelities: tuple[float, ...] = Field((1.0,), min_length=1)
    extras: tuple[Dimension, ...] = ()

    @model_validator(mode="after")
    def _ordered(self) -> SearchSpace:
        for name in ("learning_rates", "batch_sizes", "fidelities"):
            values = getattr(self, name)
            if list(values) != sorted(set(values)) or values[0] <= 0:
                raise BadInput(f"`{name}` must be rising, distinct and > 0", value=values, place="search space")
        if self.fidelities[-1] != 1.0:
            raise BadInput("the last of `fidelities` must be 1", value=self.fidelities, place="search space")
        for name, values in zip(PAIR, (self.learning_rates, self.batch_sizes), strict=True):
            for value in values:
                Recipe().with_fields({name: value}, place="search space")
        return self

    def full_run_cost(self, values: Sequence[object]) -> float:
        """Cost of a full-length run with these values of `extras`, in runs with their starting values."""
        pairs = zip(self.extras, values, strict=True)
        ratios = [float(value) / float(d.start) for d, value in pairs if d.costs]  # type: ignore[arg-type]
        return math.prod(ratios)

    @classmethod
    def between(
        cls,
        learning_rates: tuple[float, float],
        batch_sizes: tuple[int, int],
        *,
        fidelities: tuple[float, ...] = (0.125, 0.35, 1.0),
        extras: tuple[Dimension, ...] = (),
    ) -> SearchSpace:
        """A grid over two ranges: two learning rates an octave (a step costs about 0.1 %), one batch size an octave.

        >>> SearchSpace.between((1e-4, 2e-4), (8, 32)).batch_sizes
        (8, 16, 32)
        """
        return cls(
            learning_rates=_rates(*learning_rates),
            batch_sizes=_batches(*batch_sizes),
            fidelities=fidelities,
            extras=extras,
        )


def _rates(low: float, high: float) -> tuple[float, ...]:
    if not 0 < low <= high:
        raise BadInput("the range of learning rates must be 0 < low <= high", value=(low, high), place="search space")
    count = max(1, round(2 * math.log2(high / low)) + 1)
    return tuple(float(f"{rate:.3g}") for rate in np.geomspace(low, high, count))


def _batches(low: int, high: int) -> tuple[int, ...]:
    if not 1 <= low <= high:
        raise BadInput("the range of batch sizes must be 1 <= low <= high", value=(low, high), place="search space")
    doubled = [low * 2**k for k in range(int(math.log2(high / low)) + 1)]
    return tuple(doubled if doubled[-1] == high or doubled[-1] * 1.5 > high else [*doubled, high])
