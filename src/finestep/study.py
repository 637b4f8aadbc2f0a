"""Study: what is to be found out, on which model and data, within which budget; its trials are in the store."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from finestep.recipe import Recipe

ScalingRule = Literal["sqrt", "linear", "none"]
DataFormat = Literal["alpaca", "sharegpt", "messages", "prompt_completion", "text", "labels"]


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class DataSpec(_Value):
    """Where the rows are and how to read them. None means "detect"."""

    path: str = Field(description="File, folder or Hub name.")
    format: DataFormat | None = None
    columns: dict[str, str] = Field(
        default_factory=dict, description="Our name -> the file's column, e.g. prompt: question."
    )
    eval_path: str | None = Field(None, description="Validation rows of their own; None: split off.")
    eval_fraction: float = Field(0.1, gt=0, lt=1, description="Share split off, within 64 to 512 rows.")
    split_seed: int = Field(0, ge=0, description="Fixes the split; the same for all trials.")
    max_rows: int | None = Field(None, ge=8, description="Use at most this many rows, chosen by the split seed.")
    max_length: int | None = Field(None, ge=8, description="Longest row in tokens; None: the context, at most 1,024.")
    train_on_prompt: bool = Field(False, description="Let the prompt carry loss too.")
    template: Literal["auto", "raw"] = Field(
        "auto", description="auto: the tokenizer's chat template; raw: join the texts."
    )


class ModelSpec(_Value):
    """Which model, and what loading it may do."""

    path: str = Field(description="Local folder or Hub name.")
    revision: str | None = None
    unsafe_pickle: bool = Field(False, description="Also load weights that are not safetensors (they can run code).")
    trust_remote_code: bool = Field(False, description="Run Python code that comes with the model.")
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"


class StudySpec(_Value):
    """Everything that defines a study; a finished study repeats from this."""

    name: str
    model: ModelSpec
    data: DataSpec
    recipe: Recipe = Field(description="The starting recipe: everything that the search does not change.")
    strategy: str = "sweep"
    scaling: ScalingRule = "sqrt"
    metrics: tuple[str, ...] = Field((), description="Extra metrics: `exact_match` or `module:function`.")
    num_threads: int | None = Field(None, ge=1, description="CPU threads of the worker; None: all.")


class Budget(_Value):
    """How much may be spent. A study may be continued with a larger budget."""

    full_runs: float = Field(16.0, gt=0, description="Trials of full length; a trial costs its fidelity.")
    time_s: float | None = Field(None, gt=0, description="No new trial is started that would end after this.")
