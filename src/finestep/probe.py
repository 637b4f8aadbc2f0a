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
