"""ForeignConfig: somebody's training run as a file describes it, in finestep's words; it reads nothing itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, cast

from finestep.flat import flat_values

Kind = Literal["yaml", "json", "toml", "ini", "shell", "python"]
SUPERVISED = ("sft", "pretraining")
"""Objectives whose best rate the law speaks of; all others (dpo, grpo, reward, ...) have rates of their own."""


@dataclass(frozen=True, slots=True)
class Source:
    """A file as a tree of names and values, whatever it is written in.

    `program` is what a script starts ("trl sft", "torchrun finetune.py"); `calls` are the classes and functions
    that a Python script calls; `files` are configs that a script hands on; `unresolved` are names whose value stands elsewhere.
    """

    kind: Kind
    tree: dict[str, object]
    text: str = ""
    program: str = ""
    calls: frozenset[str] = frozenset()
    files: tuple[str, ...] = ()
    num_devices: int | None = None
    notes: tuple[str, ...] = ()
    unresolved: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StatedBatch:
    """How many rows a step takes, and how they are put together."""

    micro_batch_size: int | None = None
    accumulation_steps: int | None = None
    num_devices: int | None = None
    effective_batch_size: int | None = None
    auto_find_batch_size: bool = False
    packing: bool = False


@dataclass(frozen=True, slots=True)
class StatedLength:
    """How long the run and its rows are. `max_steps` are optimizer steps."""

    num_epochs: float | None = None
    max_steps: int | None = None
    decay_steps: int | None = None
    """Steps after which the schedule has ended, where the file says so apart from the length of the run."""
    max_samples: int | None = None
    num_eval_rows: int | None = None
    eval_share: float | None = None
    max_length: int | None = None


@dataclass(frozen=True, slots=True)
class StatedOptimizer:
    """How the weights are moved. `warmup` below 1 is a share of the run, otherwise steps."""

    learning_rate: float | None = None
    text_rate: bool = False
    """The rate was written like 1e-5, which plain YAML readers take for text."""
    warmup: float | None = None
    schedule: str | None = None
    optimizer: str | None = None
    weight_decay: float | None = None
    beta2: float | None = None
    max_grad_norm: float | None = None
    clip_stated: bool = False


@dataclass(frozen=True, slots=True)
class StatedAdapter:
    """The adapter, where one is trained."""

    variant: str | None = None
    lora_rank: int | None = None
    lora_alpha: float | None = None
    lora_dropout: float | None = None
    use_rslora: bool | None = None
    target_modules: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class StatedMemory:
    """What saves memory. `sharding`: zero-1, zero-2, zero-3 or fsdp."""

    precision: str | None = None
    checkpointing: bool | None = None
    sharding: str | None = None


@dataclass(frozen=True, slots=True)
class ForeignConfig:
    """Somebody's configuration; None = not stated. What the tool takes then stands in `defaults`, and only for a tool that is known."""

    framework: str
    layout: str = ""
    kind: Kind = "yaml"
    objective: str = "sft"
    model: str | None = None
    method: str | None = None
    optimization: StatedOptimizer = StatedOptimizer()
    batch: StatedBatch = StatedBatch()
    length: StatedLength = StatedLength()
    adapter: StatedAdapter = StatedAdapter()
    memory: StatedMemory = StatedMemory()
    defaults: Mapping[str, float] = field(default_factory=dict)
    places: Mapping[str, str] = field(default_factory=dict)
    """Concept -> the dotted name under which it stood."""
    notes: tuple[str, ...] = ()
    """What could not be read, in sentences."""

    @property
    def is_supervised(self) -> bool:
        """Whether the measured rates apply."""
        return self.objective in SUPERVISED

    def stated(self) -> dict[str, object]:
        """Every setting by its name, whatever part it is in."""
        return flat_values(self)

    def value(self, name: str) -> float | None:
        """A number as stated, else as the tool assumes it, else None."""
        stated = cast(float | None, self.stated()[name])
        return stated if stated is not None else self.defaults.get(name)
