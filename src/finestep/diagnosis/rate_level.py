"""How high is the peak rate, beside what its method and model take, and what is advised when it is too high."""

from __future__ import annotations

import math

import numpy as np

from finestep.diagnosis.catalogue import found
from finestep.diagnosis.chance import Chance, chance_level
from finestep.diagnosis.next_rate import moved
from finestep.diagnosis.signals import Signals
from finestep.diagnosis.thresholds import Thresholds
from finestep.finding import Finding

_METHOD_RATE_LIMITS = {"lora": 5e-3, "qlora": 5e-3, "prompt": 0.5, "p-tuning": 0.5, "prefix": 0.1, "full": 5e-4}
_UNKNOWN_METHOD_LIMIT = 1e-3
"""Peak rates above which a run stuck from its first step is blamed on the rate; prompt tuning lives at 1e-2."""
ABSURD_RATE = 0.3
USUAL_ANYWHERE = 2e-4
"""A rate that trains most models: usual for LoRA, between those of small and large models for all weights."""
FAR_TOO_HIGH = 0.02
"""Peak rate beyond what any published fine-tune of weights or adapters uses; prompts are trained with more."""


def is_high_rate(signals: Signals) -> bool:
    """Above what is usual, where model and method are known; otherwise above what the method takes at most."""
    context, peak = signals.log.context, signals.schedule.peak if signals.schedule else math.nan
    if context.advice.usual_rate is not None:
        return bool(peak > 2 * context.advice.usual_rate[2])
    # The first logged rate of a decay lies a little below the peak.
    return bool(peak > 0.9 * _METHOD_RATE_LIMITS.get(context.method or "", _UNKNOWN_METHOD_LIMIT))


def is_far_too_high(signals: Signals) -> bool:
    """Several times above the recommended interval where that is known, otherwise beyond every method that trains weights."""
    context, peak = signals.log.context, signals.schedule.peak if signals.schedule else math.nan
    if context.method in ("prompt", "p-tuning", "prefix"):
        return bool(peak > _METHOD_RATE_LIMITS[context.method])
    if context.advice.usual_rate is not None and context.advice.usual_method is None:
        return bool(peak > min(10 * context.advice.usual_rate[2], FAR_TOO_HIGH))
    return bool(peak >= FAR_TOO_HIGH)


def lower_rate_advice(signals: Signals, factor: float = 4) -> str:
    schedule, context = signals.schedule, signals.log.context
    knows_usual = context.advice.usual_rate is not None and context.advice.usual_method is None
    if schedule and schedule.peak >= ABSURD_RATE and not knows_usual and context.method not in ("prompt", "p-tuning"):
        return f"a rate of {schedule.peak:.2g} is beyond that of any method: lower it to about {USUAL_ANYWHERE:.0e}"
    # More warmup is advised only where there was next to none.
    warmup = ""
    if schedule and schedule.warmup_share < 0.02:
        warmup = ", and warm up over 5-10 % of the steps"
    return moved(signals, 1 / factor) + warmup


def peak_row(signals: Signals) -> int:
    rates = signals.log.train.learning_rate
    return int(np.argmax(np.where(np.isfinite(rates), rates, -1.0))) if len(rates) else 0


def rate_at(signals: Signals, row: int) -> float | None:
    rate = float(signals.log.train.learning_rate[row])
    return rate if math.isfinite(rate) else None


def diverged(signals: Signals, meaning: str, before: float, after: float) -> Finding:
    return found(
        "diverged",
        f"{meaning} The learning rate is too high.",
        advice=lower_rate_advice(signals),
        best_loss=before,
        end_loss=after,
        learning_rate=signals.schedule.peak if signals.schedule else None,
    )


def chance_of(signals: Signals, loss: float, limits: Thresholds) -> Chance | None:
    context = signals.log.context
    return (
        chance_level(
            loss,
            tolerance=limits.stuck.chance_tolerance,
            num_labels=context.num_labels,
            vocabulary_size=context.vocabulary_size,
        )
        if loss > 0
        else None
    )
