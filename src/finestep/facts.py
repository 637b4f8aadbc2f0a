"""Facts: what is known before training about the model, the data and the machine; nothing here is guessed silently.

A field that could not be read is None, and the reader of the fact has to say what it assumed instead.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from finestep.flat import Flat, Part

Task = Literal["causal", "classification"]


class _Facts(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class ModelShape(Part):
    """Layers, widths and lengths of a model."""

    num_layers: int | None = None
    hidden_size: int | None = None
    intermediate_size: int | None = None
    num_attention_heads: int | None = None
    num_key_value_heads: int | None = None
    vocabulary_size: int | None = None
    context_length: int | None = Field(None, description="Longest input in tokens.")
    tied_embeddings: bool | None = None


class ModelFacts(Flat):
    """Shape and history of a model, from its config, its safetensors headers or the table of known models."""

    name: str = Field(description="Local folder or Hub name, as the user gave it.")
    family: str | None = Field(None, description="`model_type` of the config, e.g. `llama`, `qwen3`, `bert`.")
    num_parameters: int | None = Field(None, description="Total parameters.")
    num_active_parameters: int | None = Field(None, description="Parameters used per token (mixture of experts).")
    shape: ModelShape = ModelShape()
    is_encoder: bool = Field(False, description="A bidirectional encoder (BERT and its kin).")
    is_encoder_decoder: bool = Field(False, description="A sequence-to-sequence model (T5, BART and their kin).")
    is_instruct: bool | None = Field(None, description="Already instruction-tuned; None = unknown.")
    pretraining_learning_rate: float | None = Field(None, description="Published peak rate of pre-training.")
    weights_dtype: str | None = Field(None, description="Dtype on disk, e.g. `bfloat16`.")
    weights_bytes: int | None = Field(None, description="Size of the weights on disk.")
    source: str = Field("", description="Where the facts come from.")


class DataFacts(_Facts):
    """Size and kind of a data set, counted over all rows or estimated from a sample."""

    name: str
    format: str | None = Field(
        None, description="`alpaca`, `sharegpt`, `messages`, `prompt_completion`, `text`, `labels`."
    )
    task: Task | None = None
    num_rows: int | None = Field(None, description="Rows that are used for training.")
    num_eval_rows: int | None = None
    num_tokens: int | None = Field(None, description="Tokens of all training rows after truncation.")
    num_trained_tokens: int | None = Field(None, description="Tokens that carry loss (prompt excluded).")
    length_p50: int | None = Field(None, description="Median row length in tokens.")
    length_p95: int | None = None
    length_max: int | None = None
    num_labels: int | None = None
    is_estimate: bool = Field(
        False, description="True when tokens were estimated from a sample or without a tokenizer."
    )


class HardwareFacts(_Facts):
    """What the run may use."""

    device: Literal["cpu", "cuda", "mps"] = "cpu"
    name: str = ""
    num_devices: int = 1
    memory_bytes: int | None = Field(None, description="Memory of one device; main memory on a CPU.")
    supports_bf16: bool = False
    num_cpu_threads: int | None = None
