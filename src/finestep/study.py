"""Study: what is to be found out, on which model and data, within which budget; its trials are in the store."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from finestep.estimate import Estimate
from finestep.flat import Flat, Part
from finestep.recipe import Recipe

Goal = Literal["minimize", "maximize"]
ScalingRule = Literal["sqrt", "linear", "none"]
EXTERNAL = "external"
"""Stands for a model or data that only a user's own command knows."""
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
    prompt: str | None = Field(None, description="A format string that writes the prompt, e.g. `{context} {question}`.")
    completion: str | None = Field(None, description="A format string that writes the answer.")
    system: str | None = Field(None, description="A format string, or plain text, that writes the system text.")
    eval_fraction: float | None = Field(
        None, gt=0, lt=1, description="Share split off; None: a tenth, within 200 to 512 rows, at most a quarter."
    )
    split_seed: int = Field(0, ge=0, description="Fixes the split; the same for all trials.")
    max_rows: int | None = Field(None, ge=8, description="Use at most this many rows, chosen by the split seed.")
    max_length: int | None = Field(None, ge=8, description="Longest row in tokens; None: by the lengths of the rows.")
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


class TunedField(_Value):
    """A further field of the recipe that a search may change, and the values that it may take."""

    name: str = Field(description="Dotted field of the recipe, e.g. `lora.rank`.")
    values: tuple[float | str, ...] = Field(min_length=1)


class CommandSpec(_Value):
    """Another trainer: a command line, and how its result is read."""

    command: str = Field(description="A shell command with fields in braces, e.g. `train.sh {learning_rate}`.")
    results: tuple[str, ...] = Field(description="`name=regular expression` over its output, or `name=file.json:key`.")
    num_rows: int | None = Field(None, ge=1, description="Training rows, for the number of steps.")
    timeout_s: float | None = Field(None, gt=0, description="A trial that takes longer is ended, and failed.")
    check_log: bool = Field(True, description="Compare the rate in the command's own log with the one it was told.")


class Launch(Part):
    """How the framework is started, and what each trial may take."""

    launcher: str = Field(description="Shell command; `{config}` is the file of a trial, `{python}` the interpreter.")
    python: str | None = Field(None, description="Interpreter of the environment that the framework is installed in.")
    working_dir: str = Field(description="Folder that relative paths of the file begin in.")
    environment: dict[str, str] = Field(default_factory=dict, description="Environment variables of all trials.")
    num_devices: int = Field(1, ge=1)
    parallel: int = Field(1, ge=1, description="Trials under way at the same time.")
    timeout_s: float | None = Field(None, gt=0, description="A trial that takes longer is ended, and failed.")


class FullRun(Part):
    """The run that the file describes: its rows, its steps and its warmup."""

    num_rows: int | None = Field(None, ge=1, description="Training rows as counted here; the framework's count wins.")
    num_eval_rows: int | None = Field(None, ge=1)
    rows_of_run: int | None = Field(
        None, ge=1, description="Rows that a full run passes over, where the file limits its steps."
    )
    warmup_share: float = Field(0.0, ge=0, lt=1, description="Warmup as a share of the steps of any trial.")
    warmup_in_steps: bool = Field(False, description="The file (or the framework) states warmup in steps.")
    full_steps: int | None = Field(None, ge=1, description="Steps of the run as the file itself states it.")


class FrameworkSpec(Flat):
    """Another trainer with a config of its own: each trial is that config with a few settings changed."""

    name: str = Field(description="Name of the framework, e.g. `trl`.")
    config: str = Field(description="The user's file.")
    text: str = Field(description="What stood in it when the study began.")
    task: str = Field("sft", description="sft, dpo, kto, ...: what the framework's command is told.")
    settings: dict[str, JsonValue] = Field(
        default_factory=dict, description="Settings of all trials, by dotted name: where the rows of the split are."
    )
    launch: Launch
    full_run: FullRun = FullRun()
    guards: tuple[str, ...] = Field((), description="`name<=number` or `name>=number` of metrics that must hold.")


class StartingPoint(_Value):
    """What is believed about the best learning rate and batch size before the first trial."""

    learning_rate: float = Field(gt=0, description="Best learning rate at `batch_size`, full length.")
    learning_rate_sd: float = Field(gt=0, description="Its spread, octaves (1 = a factor of 2).")
    batch_size: float = Field(gt=0, description="Best effective batch size, full length.")
    batch_size_sd: float = Field(gt=0, description="Its spread, octaves.")
    why: str = Field("", description="Where it comes from, in one clause.")
    learning_rate_reach: float | None = Field(
        None, gt=0, description="Octaves that the search may go from the rate; None: by its spread."
    )
    batch_size_reach: int | None = Field(
        None, gt=0, description="Octaves that the search may go from the batch size; None: one down, three up."
    )
    fields: dict[str, Estimate] = Field(
        default_factory=dict, description="Further fields of the recipe that it sets, by dotted name."
    )


class RetentionSpec(_Value):
    """The watch on what a tuned model forgets."""

    text_path: str = Field(description="General text, UTF-8, in the language that the model shall keep.")
    max_forgetting: float | None = Field(
        None, gt=0, description="Most KL from the base in nats a token that a chosen state may have; None = only shown."
    )


class SearchSpec(Part):
    """How the study searches, from where, and for what."""

    strategy: str = Field("sweep", description="auto, sweep, random, single, or the name of an Optuna sampler.")
    scaling: ScalingRule = "sqrt"
    start: StartingPoint | None = Field(None, description="Where `auto` begins; None: it knows nothing.")
    prefer: Literal["quality", "speed"] = "quality"
    tuned: tuple[TunedField, ...] = Field((), description="Further fields that the search may change.")
    with_baseline: bool = Field(True, description="Run the conservative default too, where the budget has room.")


class StudySpec(Flat):
    """Everything that defines a study; a finished study repeats from this."""

    name: str
    model: ModelSpec
    data: DataSpec
    recipe: Recipe = Field(description="The starting recipe: everything that the search does not change.")
    search: SearchSpec = SearchSpec()
    objective: str = Field("eval_loss", description="`eval_loss`, or the name of a metric.")
    goal: Goal = "minimize"
    trainer: CommandSpec | None = Field(None, description="A command that trains instead of our own worker.")
    framework: FrameworkSpec | None = Field(
        None, description="A framework with a config of its own that trains instead."
    )
    metrics: tuple[str, ...] = Field((), description="Extra metrics: `exact_match` or `module:function`.")
    num_threads: int | None = Field(
        None, ge=1, description="CPU threads of the worker; None: measured, at most all cores."
    )
    retention: RetentionSpec | None = None

    @property
    def is_external(self) -> bool:
        """True when another program trains, and not our own worker."""
        return self.trainer is not None or self.framework is not None


class Budget(_Value):
    """How much may be spent. A study may be continued with a larger budget."""

    full_runs: float = Field(16.0, gt=0, description="Trials of full length; a trial costs its fidelity.")
    time_s: float | None = Field(None, gt=0, description="No new trial is started that would end after this.")
