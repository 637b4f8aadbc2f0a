"""Recipe: every hyperparameter of one run, as one frozen value; it knows no files, no model and no clock.

The one rule of batches lives here too: effective batch = micro-batch x accumulation steps x devices.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from finestep.errors import BadInput, first_complaint

Method = Literal["full", "lora", "qlora"]
ScheduleName = Literal[
    "linear",
    "cosine",
    "constant",
    "polynomial",
    "inverse_sqrt",
    "wsd",
]


DEFAULT_MICRO_BATCH = 16


class _Group(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class ScheduleGroup(_Group):
    """How the learning rate rises and falls. With neither `warmup_steps` nor `warmup_ratio`, the tool decides."""

    name: ScheduleName = Field("linear", description="Shape of the decay after warmup.")
    warmup_steps: int | None = Field(None, ge=0, description="Warmup in optimizer steps; None: see `warmup_ratio`.")
    warmup_ratio: float | None = Field(
        None, ge=0, lt=1, description="Warmup as a share of all steps; None: the tool decides."
    )
    warmup_shape: Literal["linear", "cosine"] = Field("linear", description="Shape of the rise during warmup.")
    warmup_init_lr: float = Field(1e-7, ge=0, description="Learning rate that warmup starts from.")
    min_lr_ratio: float = Field(0.0, ge=0, le=1, description="Floor of the decay as a share of the peak.")
    power: float = Field(1.0, gt=0, description="Exponent of the polynomial decay.")
    decay_ratio: float = Field(0.2, gt=0, le=1, description="wsd: share of the run spent in the final 1-sqrt decay.")

    @model_validator(mode="after")
    def _one_warmup(self) -> ScheduleGroup:
        if self.warmup_steps is not None and self.warmup_ratio is not None:
            raise ValueError("give `warmup_steps` or `warmup_ratio`, not both")
        return self


class OptimizerGroup(_Group):
    """AdamW and what surrounds it."""

    name: Literal["adamw"] = Field("adamw", description="The only optimizer of the training loop.")
    beta1: float = Field(0.9, ge=0, lt=1, description="Decay of the running mean of gradients.")
    beta2: float = Field(0.999, ge=0, lt=1, description="Decay of the running mean of squared gradients.")
    epsilon: float = Field(1e-8, gt=0, description="Added to the root of the squared gradients before dividing.")
    weight_decay: float = Field(
        0.0, ge=0, le=1, description="Decoupled; never on norms, biases or embeddings of size 1."
    )
    max_grad_norm: float | None = Field(1.0, gt=0, description="Clip the global gradient norm to this; None = off.")
    bias_correction: bool = Field(True, description="Adam's bias correction; switch off only to compare.")
    layerwise_decay: float = Field(1.0, gt=0, le=1, description="Learning-rate factor per layer toward the input.")
    head_lr_multiplier: float = Field(1.0, gt=0, description="Learning-rate factor of a new classification head.")


class LoraGroup(_Group):
    """The adapter; ignored by method `full`."""

    rank: int = Field(16, ge=1, le=4096, description="Rank of the adapter's two matrices.")
    alpha: float = Field(32.0, gt=0, description="The adapter's output is scaled by alpha / rank.")
    dropout: float = Field(
        0.0, ge=0, lt=1, description="Share of the adapter's inputs that is set to zero in training."
    )
    target_modules: tuple[str, ...] | None = Field(
        None, description="Names of linear layers; None = all linear layers."
    )
    use_rslora: bool = Field(False, description="Scale by alpha / sqrt(rank) instead.")


class EvaluationGroup(_Group):
    """When to look at the validation rows, and when to give up."""

    num_evaluations: int = Field(4, ge=1, description="Evaluations per run, evenly spaced; the last at the end.")
    patience: int | None = Field(None, ge=1, description="Stop after this many evaluations without gain; None = off.")
    min_gain: float = Field(0.0, ge=0, description="Smallest drop of validation loss that counts as gain, in nats.")
    probe_every_steps: int | None = Field(
        None,
        ge=1,
        description="Steps between one-forward probes that warn of too high a rate before the loss moves; None = off.",
    )


class Recipe(_Group):
    """Every hyperparameter of one run. `None` means "you decide"."""

    method: Method = Field("lora", description="Train all weights, an adapter, or an adapter on a 4-bit base.")
    learning_rate: float = Field(2e-4, gt=0, le=10, description="Peak rate, reached after warmup.")
    effective_batch_size: int = Field(16, ge=1, le=65536, description="Rows per optimizer step, over all devices.")
    micro_batch_size: int | None = Field(
        None, ge=1, description="Rows per forward pass on one device; None: by memory."
    )
    num_devices: int = Field(
        1, ge=1, description="Devices that train a trial together: each takes a share of the batch."
    )
    num_epochs: float = Field(1.0, gt=0, le=1000, description="Passes over the training rows; fractions are allowed.")
    num_train_tokens: int | None = Field(None, ge=1, description="Token budget; replaces `num_epochs` when given.")
    max_length: int | None = Field(
        None, ge=8, description="Longest row in tokens; longer rows are cut. None: by the data."
    )
    seed: int = Field(0, ge=0, le=2**31 - 1, description="Data order, adapter and head initialisation, dropout.")
    schedule: ScheduleGroup = ScheduleGroup()
    optimizer: OptimizerGroup = OptimizerGroup()
    lora: LoraGroup = LoraGroup()
    evaluation: EvaluationGroup = EvaluationGroup()

    @model_validator(mode="after")
    def _batch_fits(self) -> Recipe:
        if self.micro_batch_size is not None and self.micro_batch_size * self.num_devices > self.effective_batch_size:
            raise ValueError(
                "`micro_batch_size` x `num_devices` must not exceed `effective_batch_size`; "
                f"got {self.micro_batch_size} x {self.num_devices} > {self.effective_batch_size}"
            )
        return self

    def first_micro_batch(self, *, must_divide: bool = False) -> int:
        """Rows per forward pass on one device to begin with: the recipe's, else 16, or the whole batch where it is smaller.

        This is the one rule for a micro-batch that nobody has named. Memory may force fewer rows later.

        Args:
            must_divide: for frameworks that know an effective batch only as a product: no remainder may be left.

        >>> Recipe(effective_batch_size=24).first_micro_batch()
        16
        >>> Recipe(effective_batch_size=24).first_micro_batch(must_divide=True)
        12
        """
        if self.micro_batch_size is not None:
            return self.micro_batch_size
        if not must_divide:
            return min(DEFAULT_MICRO_BATCH, math.ceil(self.effective_batch_size / self.num_devices))
        rows = max(1, self.effective_batch_size // self.num_devices)
        return next(micro for micro in range(min(DEFAULT_MICRO_BATCH, rows), 0, -1) if rows % micro == 0)

    def accumulation_steps(self, micro_batch_size: int | None = None) -> int:
        """Micro-batches per optimizer step, by the one rule: effective batch / (micro-batch x devices), rounded up.

        >>> Recipe(effective_batch_size=64).accumulation_steps(8)
        8
        """
        micro = micro_batch_size or self.first_micro_batch()
        return accumulation_steps(self.effective_batch_size, micro_batch_size=micro, num_devices=self.num_devices)

    def changed(self, **changes: object) -> Recipe:
        """A copy with other values, validated again; groups are given as mappings of their fields."""
        values = self.model_dump()
        for key, change in changes.items():
            if isinstance(change, dict) and isinstance(values.get(key), dict):
                values[key] = {**values[key], **change}
            else:
                values[key] = change
        return Recipe.model_validate(values)

    def field(self, name: str) -> object:
        """The value of a field by dotted name, e.g. `lora.rank`."""
        return functools.reduce(getattr, name.split("."), self)

    def with_fields(self, values: Mapping[str, object], *, place: str | None = None) -> Recipe:
        """A copy with other values by dotted name, e.g. `{"learning_rate": 1e-4, "lora.rank": 8}`.

        Args:
            place: what an error calls the source of the values.

        Raises:
            BadInput: there is no such field, or it does not allow the value.
        """
        changes: dict[str, object] = {}
        for name, value in values.items():
            group, dot, leaf = name.partition(".")
            already = changes.get(group)
            if dot:
                changes[group] = {**(already if isinstance(already, dict) else {}), leaf: value}
            else:
                changes[name] = value
        try:
            return self.changed(**changes)
        except ValidationError as error:
            name, law, _ = first_complaint(error)
            law = f"`{name}`: {law}" if name else law
            raise BadInput(law, value=values.get(name, dict(values)), place=place) from None


def accumulation_steps(effective_batch_size: int, *, micro_batch_size: int, num_devices: int = 1) -> int:
    """Micro-batches that make up one optimizer step; the last may be smaller when the product does not divide.

    >>> accumulation_steps(64, micro_batch_size=8, num_devices=2)
    4
    """
    return math.ceil(effective_batch_size / (micro_batch_size * num_devices))
