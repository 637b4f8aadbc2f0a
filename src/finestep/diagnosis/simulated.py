"""Simulated logs, clean and with one planted fault, for tests and for stating false-alarm rates; no file, no torch.

Curves follow what real logs show: a fast fall and a power law to a floor, multiplicative noise (Gaussian, Student's
t with
5 degrees of freedom, or AR(1)), a warmup and a decay of the rate, gradient norms that are log-normal.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from finestep.diagnosis.training_log import Column, EvalSeries, RunContext, RunSettings, TrainingLog, train_series

Noise = Literal["gaussian", "student", "correlated"]
Fault = Literal[
    "clean", "diverged", "collapsed", "too_low", "memorised", "overfitting", "spike", "poisoned_batch",
    "overflow", "hidden_nan",
    "nothing_trained", "leak", "stopped_early", "data_changed", "shuffled_labels",
]  # fmt: skip


@dataclass(frozen=True)
class Setting:
    """Size and noise of a simulated run."""

    num_rows: int = 200
    rows_apart: int = 5
    num_evaluations: int = 10
    noise: Noise = "gaussian"
    noise_sd: float = 0.05
    start: float = 2.2
    floor: float = 1.0
    epochs: float = 2.0
    peak: float = 2e-4
    has_grad_norm: bool = True


def simulated_log(fault: Fault = "clean", *, seed: int = 0, setting: Setting | None = None) -> TrainingLog:
    """One run; the same seed gives the same noise whatever the fault."""
    setting = setting or Setting()
    rng = np.random.default_rng(seed)
    step = np.arange(1, setting.num_rows + 1, dtype=float) * setting.rows_apart
    done = step / step[-1]
    rate = setting.peak * np.minimum(done / 0.05, np.maximum(1.0 - done, 0.0) / 0.95)
    factor = np.exp(_noise(rng, setting))
    grad_norm = np.exp(0.25 * rng.standard_normal(setting.num_rows))
    level, eval_level, grad_factor = _levels(fault, done, setting)
    loss = level * (factor if fault != "nothing_trained" else 1 + 1e-4 * (factor - 1))
    rows = np.unique(np.linspace(0, setting.num_rows - 1, setting.num_evaluations + 1).astype(int)[1:])
    eval_loss = eval_level[rows] * np.exp(0.002 * rng.standard_normal(len(rows)))
    planned = float(step[-1])
    if fault == "stopped_early":
        keep = max(12, int(0.12 * setting.num_rows))
        step, loss, rate, grad_norm, done = (each[:keep] for each in (step, loss, rate, grad_norm, done))
        rows, eval_loss = rows[rows < keep], eval_loss[rows < keep]
        grad_factor = grad_factor[:keep]
    if fault == "hidden_nan":
        loss = np.where(done > 0.4, 0.0, loss)
    series = train_series(
        step=step,
        loss=loss,
        learning_rate=rate,
        epoch=done * setting.epochs,
        grad_norm=grad_norm * grad_factor if setting.has_grad_norm else np.full(len(step), np.nan),
    )
    evaluation = EvalSeries("", step[rows], done[rows] * setting.epochs, eval_loss)
    context = RunContext(
        settings=RunSettings(max_steps=int(planned), num_epochs=setting.epochs, logging_steps=float(setting.rows_apart))
    )
    return TrainingLog(fault, f"simulated:{seed}", "simulated", series, (evaluation,) if len(rows) else (), context)


def _noise(rng: np.random.Generator, setting: Setting) -> Column:
    if setting.noise == "student":
        return setting.noise_sd * rng.standard_t(5, setting.num_rows) / math.sqrt(5 / 3)
    white = rng.standard_normal(setting.num_rows)
    if setting.noise == "gaussian":
        return setting.noise_sd * white
    for index in range(1, len(white)):
        white[index] = 0.3 * white[index - 1] + math.sqrt(1 - 0.09) * white[index]
    return setting.noise_sd * white


def _levels(fault: Fault, done: Column, setting: Setting) -> tuple[Column, Column, Column]:
    """Expected training loss, validation loss and gradient-norm factor along the run."""
    gain = setting.start - setting.floor
    fall = setting.floor + gain * (0.6 * np.exp(-done / 0.03) + 0.4 * (1 + done / 0.05) ** -0.9)
    ones = np.ones_like(done)
    late = done > 0.3
    if fault == "diverged":
        return (
            np.where(late, setting.start * 1.6, fall),
            np.where(late, setting.start * 1.6, fall),
            np.where(late, 20.0, 1.0),
        )
    if fault == "collapsed":
        jump = np.where(late & (done < 0.33), 80.0, 1.0)
        return np.where(late, setting.start, fall), np.where(late, setting.start, fall), jump
    if fault == "too_low":
        line = setting.start * (1 - 0.08 * (1 - (1 - done) ** 2 * 0.7) * done)
        return 3 * line, 3 * line, ones
    if fault == "memorised":
        stairs = setting.start * np.exp(-0.35 * np.floor(done * setting.epochs))
        return stairs, fall * (1 + 0.3 * np.maximum(done * setting.epochs - 2, 0)), ones
    if fault == "overfitting":
        return fall * (1 - 0.45 * done), fall * (1 + 0.35 * np.maximum(done - 0.4, 0)), ones * (1 + done)
    if fault in ("spike", "poisoned_batch"):
        length = 0.04 if fault == "spike" else 1.01 / len(done)
        hit = (done > 0.5) & (done <= 0.5 + length)
        return np.where(hit, 3 * fall, fall), fall, np.where(hit, 60.0, 1.0)
    if fault == "overflow":
        return fall, fall, np.where(late, np.inf, 1.0)
    if fault == "nothing_trained":
        return setting.start * ones, setting.start * ones, ones
    if fault == "leak":
        quick = setting.start * np.exp(-done / 0.02) + 1e-3
        return quick, quick, ones
    if fault == "data_changed":
        changed = done > 0.8
        return np.where(changed, fall * 2.2, fall), fall, ones
    if fault == "shuffled_labels":
        return math.log(2) * ones, math.log(2) * ones, ones
    return fall, fall * 1.02, ones
