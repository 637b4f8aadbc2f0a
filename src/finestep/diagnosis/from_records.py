"""finestep's own step and evaluation records -> a training log, so that one set of verdicts serves both."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from finestep.diagnosis.training_log import EvalSeries, RunContext, TrainingLog, train_series
from finestep.trial import EvalRecord, StepRecord


def training_log(
    steps: Sequence[StepRecord],
    evaluations: Sequence[EvalRecord] = (),
    *,
    name: str = "run",
    num_epochs: float | None = None,
    context: RunContext | None = None,
) -> TrainingLog:
    """The normal form of a trial; epochs are spread evenly over the planned steps when `num_epochs` is given."""
    context = context or RunContext()
    context = replace(context, settings=replace(context.settings, logging_steps=context.settings.logging_steps or 1.0))
    planned = context.settings.max_steps or (steps[-1].step if steps else 1)
    per_step = num_epochs / planned if num_epochs else math.nan
    train = train_series(
        step=[record.step for record in steps],
        loss=[_shown(record.loss) for record in steps],
        learning_rate=[record.learning_rate for record in steps],
        grad_norm=[_shown(record.grad_norm) for record in steps],
        epoch=[record.step * per_step for record in steps],
        clipped=[float(record.clipped) for record in steps],
        update_ratio=[math.nan if record.update_ratio is None else _shown(record.update_ratio) for record in steps],
        elapsed_s=[record.elapsed_s for record in steps],
    )
    return TrainingLog(name, name, "finestep records", train, _evaluations(evaluations, per_step), context)


def _evaluations(records: Sequence[EvalRecord], per_step: float) -> tuple[EvalSeries, ...]:
    if not records:
        return ()
    step = np.array([record.step for record in records], dtype=float)
    return (EvalSeries("", step, step * per_step, np.array([_shown(record.eval_loss) for record in records])),)


def _shown(value: float) -> float:
    return value if math.isfinite(value) else math.inf
