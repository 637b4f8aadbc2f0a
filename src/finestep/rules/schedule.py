"""The learning rate at every step, as a pure function; it knows neither optimizers nor epochs.

Steps are counted from 1, as in the logs. The first step is never wasted at rate zero, and neither is the last.
"""

from __future__ import annotations

import math

from finestep.recipe import ScheduleGroup


def learning_rate_at(step: int, *, peak: float, num_steps: int, warmup: int, schedule: ScheduleGroup) -> float:
    """Learning rate that optimizer step `step` (1 ... `num_steps`) uses.

    Warmup climbs from `warmup_init_lr` and reaches `peak` at step `warmup`; the decay then runs to the end of training,
    where the rate would meet its floor one step after the last.

    >>> round(learning_rate_at(1, peak=1.0, num_steps=4, warmup=0, schedule=ScheduleGroup()), 3)
    1.0
    """
    if step < warmup:
        return _warmup(step / warmup, peak=peak, schedule=schedule)
    start = max(warmup, 1)
    span = num_steps - start + 1
    factor = _decay(step, start=start, span=span, schedule=schedule)
    return peak * (schedule.min_lr_ratio + (1.0 - schedule.min_lr_ratio) * factor)


def _warmup(progress: float, *, peak: float, schedule: ScheduleGroup) -> float:
    rise = progress if schedule.warmup_shape == "linear" else 0.5 * (1.0 - math.cos(math.pi * progress))
    init = min(schedule.warmup_init_lr, peak)
    return init + (peak - init) * rise


def _decay(step: int, *, start: int, span: int, schedule: ScheduleGroup) -> float:
    """Share of the way between floor and peak, from 1 at `start` toward 0 at `start + span`."""
    progress = (step - start) / span
    match schedule.name:
        case "linear":
            return 1.0 - progress
        case "cosine":
            return 0.5 * (1.0 + math.cos(math.pi * progress))
        case "constant":
            return 1.0
        case "polynomial":
            left: float = (1.0 - progress) ** schedule.power
            return left
        case "inverse_sqrt":
            return math.sqrt(start / step)
        case "wsd":
            return _one_minus_sqrt(progress, decay_ratio=schedule.decay_ratio)
    raise AssertionError(schedule.name)


def _one_minus_sqrt(progress: float, *, decay_ratio: float) -> float:
    """Warmup-stable-decay with the 1-sqrt cooldown of Haegele et al. 2024 (arXiv 2405.18392)."""
    into_decay = (progress - (1.0 - decay_ratio)) / decay_ratio
    return 1.0 - math.sqrt(max(into_decay, 0.0))
