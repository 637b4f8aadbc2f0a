"""How many steps to warm up; it never lets warmup swallow a short run.

The default (5 % of the steps, 10 to 200, at most a fifth of the run) follows common practice of 3 to 10 % (RoBERTa 6 %,
arXiv 1907.11692; Tulu 3 3 %, arXiv 2411.15124); at the best learning rate its exact length matters little.
"""

from __future__ import annotations

from finestep.recipe import ScheduleGroup

DEFAULT_RATIO = 0.05
DEFAULT_MIN_STEPS, DEFAULT_MAX_STEPS = 10, 200
DEFAULT_LARGEST_SHARE = 0.2
ASKED_LARGEST_SHARE = 0.5


def warmup_steps(schedule: ScheduleGroup, num_steps: int) -> int:
    """Warmup in optimizer steps for a run of `num_steps`.

    What was asked for is honoured up to half of the run.

    >>> warmup_steps(ScheduleGroup(), 1000)
    50
    >>> warmup_steps(ScheduleGroup(warmup_steps=100), 60)
    30
    """
    if schedule.warmup_steps is not None:
        return min(schedule.warmup_steps, int(num_steps * ASKED_LARGEST_SHARE))
    if schedule.warmup_ratio is not None:
        return min(round(schedule.warmup_ratio * num_steps), int(num_steps * ASKED_LARGEST_SHARE))
    wanted = min(max(round(DEFAULT_RATIO * num_steps), DEFAULT_MIN_STEPS), DEFAULT_MAX_STEPS)
    return min(wanted, int(num_steps * DEFAULT_LARGEST_SHARE))
