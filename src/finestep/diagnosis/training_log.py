"""TrainingLog: the normal form of one run's log, as columns; it knows no file format and judges nothing.

In every column NaN means "the log is silent here" and infinity means "the log shows a value that is not finite".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, cast

import numpy as np
import numpy.typing as npt

from finestep.flat import flat_names, flat_values, from_flat

Column = npt.NDArray[np.float64]
Objective = Literal["supervised", "preference", "reinforcement"]


@dataclass(frozen=True)
class AnswerColumns:
    """What a log of reinforcement learning says of the answers beside their reward."""

    reward_spread: Column
    """Standard deviation of the rewards of one prompt's answers."""
    zero_spread_share: Column
    """Share of the prompts whose answers all got the same reward."""
    clipped_completions: Column
    """Share of the answers that were cut off at the longest length."""
    kl: Column
    entropy: Column
    accuracy: Column
    """Share of the answers of the batch that were right."""


@dataclass(frozen=True)
class PairColumns:
    """What a log of preference training says of the pairs of answers."""

    margin: Column
    """Reward of the chosen answer minus that of the rejected one."""
    chosen_reward: Column
    pair_accuracy: Column
    """Share of the pairs whose chosen answer has the higher reward."""


@dataclass(frozen=True)
class TrainSeries:
    """Training rows in order of steps; every column has the length of `step`."""

    step: Column
    loss: Column
    learning_rate: Column
    grad_norm: Column
    epoch: Column
    num_tokens: Column
    clipped: Column
    update_ratio: Column
    loss_scale: Column
    reward: Column
    elapsed_s: Column
    answers: AnswerColumns
    pairs: PairColumns

    def __len__(self) -> int:
        return len(self.step)


@dataclass(frozen=True)
class EvalSeries:
    """Evaluations on one validation set; `name` is empty for the only or main set."""

    name: str
    step: Column
    epoch: Column
    loss: Column
    metrics: Mapping[str, Column] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.step)


@dataclass(frozen=True)
class RunSettings:
    """What the trainer was told; None = not known."""

    max_steps: int | None = None
    num_epochs: float | None = None
    logging_steps: float | None = None
    batch_size: int | None = None
    peak_learning_rate: float | None = None
    max_grad_norm: float | None = None
    patience: int | None = None
    precision: str | None = None


@dataclass(frozen=True)
class RateAdvice:
    """The learning rate that such a run usually takes; None = not known."""

    usual_rate: tuple[float, float, float] | None = None
    """Aim, low and high of the learning rate that is recommended for this model, method and data."""
    usual_method: str | None = None
    """The method that `usual_rate` is for, when that is only a guess."""
    least_rate: tuple[float, float] | None = None
    """Aim and low of the rate of the largest model that the run's operations allow, where the model is not known: its own is higher."""


@dataclass(frozen=True)
class RunContext:
    """What is known about the run beside its curves; None = not known."""

    method: str | None = None
    objective: Objective = "supervised"
    num_labels: int | None = None
    vocabulary_size: int | None = None
    base_eval_loss: float | None = None
    base_train_loss: float | None = None
    """Loss of the first batch, measured before any step."""
    last_step: float | None = None
    """Steps that were taken, where the log says it apart from its rows."""
    num_skipped_steps: int | None = None
    """Optimizer steps that the trainer says it left out, e.g. after an overflow in fp16."""
    total_flos: float | None = None
    """Floating-point operations as the Trainer counts them: 6 x parameters x tokens."""
    settings: RunSettings = RunSettings()
    advice: RateAdvice = RateAdvice()


@dataclass(frozen=True)
class TrainingLog:
    """One run: its training rows, its evaluations, what is known about it, and what the reader had to guess."""

    name: str
    source: str
    format: str
    train: TrainSeries
    evaluations: tuple[EvalSeries, ...] = ()
    context: RunContext = RunContext()
    notes: tuple[str, ...] = ()

    @property
    def evaluation(self) -> EvalSeries | None:
        """The main validation set: the unnamed one, otherwise the one with most rows; one with losses before one without."""
        if not self.evaluations:
            return None
        with_losses = [series for series in self.evaluations if np.isfinite(series.loss).any()] or list(
            self.evaluations
        )
        unnamed = [series for series in with_losses if not series.name]
        return unnamed[0] if unnamed else max(with_losses, key=len)


TRAIN_COLUMNS = flat_names(TrainSeries)
"""Names of all columns: of what every log may have, and then of reinforcement learning and of preferences."""


def columns_of(train: TrainSeries) -> dict[str, Column]:
    """All columns of a series by name."""
    return cast(dict[str, Column], flat_values(train))


def train_series(**columns: object) -> TrainSeries:
    """A series from the columns at hand (sequences of numbers); the others become silent."""
    given = {name: np.asarray(values, dtype=np.float64) for name, values in columns.items()}
    length = max((len(column) for column in given.values()), default=0)
    silent = np.full(length, np.nan)
    if "step" not in given:
        given["step"] = np.arange(1.0, length + 1.0)
    return from_flat(TrainSeries, {name: given.get(name, silent) for name in TRAIN_COLUMNS})


def eval_series(
    step: object, loss: object, *, name: str = "", metrics: Mapping[str, Column] | None = None
) -> EvalSeries:
    """A series of evaluations from steps and losses."""
    steps = np.asarray(step, dtype=np.float64)
    return EvalSeries(name, steps, np.full(len(steps), np.nan), np.asarray(loss, dtype=np.float64), metrics or {})
