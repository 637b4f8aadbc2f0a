"""Probe: what is asked about memory, speed and noise, and what the answer is; values only, JSON both ways.

`python -m finestep.probes request.json` takes a `ProbeRequest` and answers with JSON lines of `Event`s.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

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
