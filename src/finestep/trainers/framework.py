"""What finestep must know of another trainer to drive it: names of settings, how it starts, what it counts and logs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from finestep.trainers.config_text import Path

Fields = Mapping[Path, object]


@dataclass(frozen=True)
class Names:
    """Where a framework reads the settings that a trial changes.

    A framework counts a batch either by rows a pass and passes a step (`accumulation`), or by rows a step (`whole_batch`).
    """

    learning_rate: Path
    micro_batch: Path
    max_steps: Path
    epochs: Path
    warmup_steps: Path
    seed: Path
    output: Path
    accumulation: Path | None = None
    whole_batch: Path | None = None
    warmup_shares: tuple[Path, ...] = ()
    """Settings that state warmup as a share of the run; they fit a run of any length as they are."""
    step_counts: tuple[Path, ...] = ()
    """Further settings that count steps of the schedule, and must shrink with a shorter run."""


@dataclass(frozen=True)
class Defaults:
    """What a framework takes where the file does not say."""

    warmup_steps: int = 0
    micro_batch: int = 8
    accumulation: int = 1
    seed: int = 42


@dataclass(frozen=True)
class Written:
    """What a framework writes of its progress, and how it is read.

    Attributes:
        results: files in the output folder that hold the last evaluation to all digits.
        logs: files in the output folder that it writes while it trains, and that its standard output does not hold.
        rate_shift: 0 when the rate in its log is the one that the step used, 1 when it is the next step's.
        counts: what a row of its log counts: optimizer steps, or micro-batches.
    """

    results: tuple[str, ...] = ()
    logs: tuple[str, ...] = ()
    rate_shift: int = 0
    counts: Literal["steps", "micro-batches"] = "steps"


@dataclass(frozen=True)
class Validation:
    """How a framework evaluates.

    Attributes:
        own_split: setting by which it splits rows off by itself, and the value below 1 that it takes.
        named_rows: settings that name validation rows.
        is_by_micro_batch: the loss is a mean over micro-batches, so that trials compare only at one micro-batch.
    """

    is_done: bool = True
    own_split: Path | None = None
    named_rows: tuple[Path, ...] = ()
    is_by_micro_batch: bool = False


@dataclass(frozen=True)
class Framework:
    """Another trainer.

    Attributes:
        launch: its command by task (`sft`, `dpo`, ...); `{config}` is the file of a trial.
        module: what is imported to see whether it is installed.
        steps: settings of a trial of so many steps: logging, one last evaluation, no checkpoints between.
        off: settings that must not be on in a trial; changed only where the file says something else.
        rounds: `up`: an epoch's last batch may be smaller, and counts. `down`: only whole batches count.
    """

    name: str
    words: str
    names: Names
    launch: Mapping[str, str]
    module: str
    steps: Callable[[int], Fields]
    off: Fields = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    rounds: Literal["up", "down"] = "up"
    needs_gpu: bool = False
    defaults: Defaults = Defaults()
    written: Written = Written()
    validation: Validation = Validation()
