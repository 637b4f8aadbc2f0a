"""Probe: what is asked about memory, speed and noise, and what the answer is; values only, JSON both ways.

`python -m finestep.probes request.json` takes a `ProbeRequest` and answers with JSON lines of `Event`s.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from finestep.flat import Flat, Part
from finestep.ready import DataCard
from finestep.recipe import Method, Recipe
from finestep.study import DataSpec, ModelSpec

OptimizerName = Literal["adamw", "adamw_8bit"]
WeightsType = Literal["float32", "bfloat16"]


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class MemoryCase(_Value):
    """What a step of training consists of, as far as memory is concerned."""

    method: Method = "lora"
    rank: int = 16
    target_modules: tuple[str, ...] | None = None
    optimizer: OptimizerName = "adamw"
    weights_dtype: WeightsType = "float32"
    autocast: bool = Field(False, description="Compute in bfloat16 whatever the weights are kept in.")
    num_labels: int | None = Field(None, description="Classes of a classifier; None = a causal model.")


class Lever(_Value):
    """Two switches that trade time for memory."""

    checkpointing: bool = False
    chunk_tokens: int | None = Field(None, description="Tokens per piece of the cross entropy; None = whole logits.")


class MemoryLine(_Value):
    """Live bytes at one moment of a step, as a straight line in the rows of the micro-batch, by what they hold."""

    phase: str = Field(description="What the step is doing at that moment.")
    fixed: dict[str, float] = Field(description="Bytes without any row.")
    per_row: dict[str, float] = Field(description="Bytes for each row.")


class MemoryCurve(_Value):
    """Peak memory over the micro-batch: the highest of a few lines."""

    lever: Lever
    length: int = Field(description="Tokens of a row.")
    lines: tuple[MemoryLine, ...]


class Prediction(_Value):
    """What a step needs for every setting of the levers, from shapes alone."""

    case: MemoryCase
    num_parameters: int
    num_trained: int
    curves: tuple[MemoryCurve, ...]
    elapsed_s: float
    notes: tuple[str, ...] = ()


class PredictRequest(_Value):
    """Predict the memory of a training step from a config, without weights."""

    purpose: Literal["predict"] = "predict"
    config: dict[str, object] = Field(description="A parsed config.json with its `model_type`.")
    case: MemoryCase
    length: int = Field(ge=2)
    loss_tokens: int | None = Field(None, ge=1, description="Tokens of a row that carry loss; None = all.")
    levers: tuple[Lever, ...]


class MeasureRequest(_Value):
    """Measure this machine with real weights and rows."""

    purpose: Literal["measure"] = "measure"
    model: ModelSpec
    data: DataSpec
    recipe: Recipe
    case: MemoryCase
    levers: tuple[Lever, ...] = Field(description="Settings to choose from, the cheapest in time first.")
    memory_budget_bytes: int | None = Field(None, description="What training may take of the device; None = unknown.")
    largest_micro_batch: int | None = Field(None, ge=1, description="Never try more rows than this.")
    budget_s: float = Field(90.0, gt=0, description="About how long it may take, loading aside.")
    num_threads: int | None = None


ProbeRequest = Annotated[PredictRequest | MeasureRequest, Field(discriminator="purpose")]


class RatePoint(_Value):
    """How fast one micro-batch is: means over the passes that were timed."""

    micro_batch: int
    seconds: float = Field(description="Forward and backward of one micro-batch.")
    num_tokens: float = Field(description="Tokens of one micro-batch, padding excluded.")
    num_padded_tokens: float = Field(description="Tokens of one micro-batch, padding included.")

    @property
    def tokens_per_s(self) -> float:
        """Real tokens a second."""
        return self.num_tokens / self.seconds


class NoiseAnswer(_Value):
    """A noise scale in rows; `value` and `high` are None when it is only known to be at least `low`."""

    value: float | None
    low: float
    high: float | None
    num_steps: int
    words: str


class MeasuredMachine(Part):
    """What it was measured on."""

    device: str
    device_name: str = ""
    dtype: str
    num_threads: int
    seconds_of_threads: dict[int, float] = Field(
        default_factory=dict,
        description="Seconds of a step of one trial alone by number of CPU threads; empty: no choice.",
    )


class MeasuredMemory(Part):
    """What training needs of the memory, and how many rows fit."""

    lever: Lever = Field(description="The setting that was chosen and measured.")
    curves: tuple[MemoryCurve, ...] = Field(description="Predicted memory on the longest row, for every setting.")
    memory_budget_bytes: int | None = None
    num_parameters: int
    num_trained: int
    largest_micro_batch: int | None = Field(None, description="Rows that fit, headroom taken off.")
    limit_source: Literal["prediction", "tried", "unknown"] = "unknown"
    peak_memory_bytes: int | None = Field(None, description="Largest memory of the probe itself.")


class MeasuredSpeed(Part):
    """How long a step and its parts take."""

    rates: tuple[RatePoint, ...] = ()
    knee: int | None = None
    update_s: float = Field(description="Clipping and one optimizer update.")
    evaluation_s: float = Field(description="One look at all validation rows, extrapolated.")


class Measured(Flat):
    """What a probe found on this machine. None = not measured, and `notes` say why."""

    card: DataCard
    machine: MeasuredMachine
    memory: MeasuredMemory
    speed: MeasuredSpeed
    noise: NoiseAnswer | None = None
    noise_adam: NoiseAnswer | None = None
    ceiling_breaks_at: float | None = None
    ceiling_tested_to: float | None = None
    elapsed_s: float
    notes: tuple[str, ...] = ()

    def step_timings(self) -> list[tuple[int, float]]:
        """(tokens with padding, seconds) of one trial's micro-step, as `rules/lanes.py` takes them."""
        return [(round(point.num_padded_tokens), point.seconds) for point in self.speed.rates]
