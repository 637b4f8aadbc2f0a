"""The course of each trial: its own records, or, for another trainer's command, what that trainer logged."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from finestep.diagnosis.training_log import Column, TrainingLog
from finestep.errors import BadInput
from finestep.executors.detached import OUTPUT
from finestep.readers.open_logs import find_logs, read_logs
from finestep.store.study_files import StudyFiles
from finestep.trial import EvalRecord, StepRecord, Trial

Courses = tuple[Mapping[int, Sequence[StepRecord]], Mapping[int, Sequence[EvalRecord]]]
MOST_FILES = 8
"""Files of a trial that are looked at for a log."""
MOST_FOREIGN = 200
"""Trials of another trainer whose logs are read for one page."""


def read_courses(store: StudyFiles, trials: Sequence[Trial]) -> Courses:
    """Steps and evaluations by trial number."""
    steps = {trial.number: store.steps(trial.number) for trial in trials}
    evaluations = {trial.number: store.evaluations(trial.number) for trial in trials}
    if store.spec.trainer is None:
        return steps, evaluations
    for trial in trials[:MOST_FOREIGN]:
        if not steps[trial.number] and (log := _longest_log(store, trial)) is not None:
            steps[trial.number], evaluations[trial.number] = _steps(log), _evaluations(log)
    return steps, evaluations


def _longest_log(store: StudyFiles, trial: Trial) -> TrainingLog | None:
    """Of what the command left in its trial's folder, the run with most training rows; None without one."""
    folder = store.trial_folder(trial.number)
    if not folder.is_dir():
        return None
    try:
        files = find_logs(str(folder))[:MOST_FILES]
    except BadInput:
        files = []
    own = folder / OUTPUT
    found: list[TrainingLog] = []
    for path in dict.fromkeys([*files, *([own] if own.exists() else [])]):
        try:
            found += read_logs(path)
        except (BadInput, OSError, ValueError):
            continue
    return max((log for log in found if len(log.train)), key=lambda log: len(log.train), default=None)


def _steps(log: TrainingLog) -> list[StepRecord]:
    train = log.train
    clip = log.context.settings.max_grad_norm
    tokens = np.diff(np.nan_to_num(train.num_tokens), prepend=0.0)
    rising = bool(np.isfinite(train.num_tokens).any()) and bool((tokens >= 0).all())
    return [
        StepRecord(
            step=max(1, int(train.step[i])),
            loss=float(train.loss[i]),
            learning_rate=float(train.learning_rate[i]),
            grad_norm=float(train.grad_norm[i]),
            clipped=clip is not None and bool(train.grad_norm[i] > clip),
            num_tokens=int(tokens[i]) if rising else 0,
            num_loss_tokens=0,
            elapsed_s=float(train.elapsed_s[i]),
        )
        for i in range(len(train))
        if math.isfinite(train.step[i]) and (math.isfinite(train.loss[i]) or _is_logged(train.loss, i))
    ]


def _is_logged(values: Column, index: int) -> bool:
    """A loss that is not finite counts where its neighbours are numbers: then it was logged, and broke."""
    return bool(np.isfinite(values[:index]).any())


def _evaluations(log: TrainingLog) -> list[EvalRecord]:
    series = log.evaluation
    if series is None:
        return []
    return [
        EvalRecord(step=int(step), num_tokens=0, eval_loss=float(loss))
        for step, loss in zip(series.step, series.loss, strict=True)
        if math.isfinite(step) and step >= 0
    ]
