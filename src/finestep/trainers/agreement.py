"""Does a framework train what it was asked? The rate, steps, warmup and batch of its own log beside those of the plan.

An offset of one step is allowed, since some log the rate that a step used, and some the next one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from finestep.trainers.framework import Framework
from finestep.trainers.frameworks import log_every
from finestep.trainers.live_log import Said, TrainRow
from finestep.trainers.plan import TrialPlan

ROUNDED = 2e-3
"""Logs print four digits."""
STEEPEST = 1.3
"""How much faster than a straight line a schedule may fall at its beginning."""
FEWEST_LOSSES = 4


@dataclass
class Agreement:
    """The comparison of one trial with its log, while it runs."""

    plan: TrialPlan
    framework: Framework
    peak: float = math.nan
    peak_step: int = 0
    num_rates: int = 0
    _last_step: int = field(default=0)

    def broken_by(self, row: TrainRow) -> str | None:
        """What a row says that was not asked for; None while all is well."""
        rate, asked = row.learning_rate, self.plan.learning_rate
        self._last_step = max(self._last_step, row.step)
        if math.isnan(rate):
            return None
        self.num_rates += 1
        if rate > asked * (1 + ROUNDED):
            return f"its log says learning rate {rate:.4g} at step {row.step}, and {asked:.4g} was asked for"
        if math.isnan(self.peak) or rate > self.peak * (1 + ROUNDED / 4):
            self.peak, self.peak_step = rate, row.step
        is_past = row.step > self.plan.warmup_steps + 2 * log_every(self.plan.num_steps) + 1
        return self._low_peak() if is_past else None

    def broken_by_what_it_said(self, said: Said) -> str | None:
        """What it said of batch and steps that was not asked for."""
        if said.batch is not None and said.batch != self.plan.effective_batch_size:
            asked = f"{self.plan.micro_batch} x {self.plan.accumulation} x {self.plan.num_devices}"
            return (
                f"its log says {said.batch} rows a step, and {self.plan.effective_batch_size} ({asked}) was asked for"
            )
        if said.num_steps is not None and abs(said.num_steps - self.plan.num_steps) > 1:
            return f"its log says {said.num_steps} steps, and {self.plan.num_steps} was asked for"
        return None

    def broken_at_end(self) -> str | None:
        """What the whole run shows: a peak below the one asked for, a warmup of another length, another number of steps."""
        if (low := self._low_peak()) is not None:
            return low
        every, warmup = log_every(self.plan.num_steps), self.plan.warmup_steps
        if self.num_rates >= FEWEST_LOSSES and every == 1 and abs(self._warmup_seen() - warmup) > 1:
            return f"its log shows a warmup of {self._warmup_seen()} steps, and {warmup} was asked for"
        if self.num_rates and self._last_step < self.plan.num_steps - every:
            return f"its log ends at step {self._last_step}, and {self.plan.num_steps} was asked for"
        return None

    def words(self) -> str:
        """What was compared, for the record."""
        if not self.num_rates:
            return "its log says no learning rate: the rate could not be compared"
        return f"its log agrees: peak rate {self.peak:.4g}, {self._last_step} steps, {self.plan.effective_batch_size} rows a step"

    def _warmup_seen(self) -> int:
        """Steps before the peak: the first step uses the rate of no update, so that its peak comes one later."""
        return self.peak_step - 1 + self.framework.written.rate_shift

    def _low_peak(self) -> str | None:
        """A peak that lies below the one asked for by more than one logged interval of the schedule."""
        if not self.num_rates:
            return None
        every, asked = log_every(self.plan.num_steps), self.plan.learning_rate
        # A log of every step holds the peak itself, unless there is no warmup and it logs the next step's rate.
        is_thin, has_warmup = every > 1, 0 < self.plan.warmup_steps < self.plan.num_steps
        down = (
            0.0
            if has_warmup and not is_thin
            else STEEPEST * every / max(self.plan.num_steps - self.plan.warmup_steps, 1)
        )
        up = every / self.plan.warmup_steps if is_thin and has_warmup else 0.0
        if self.peak >= asked * (1 - min(max(down, up), 0.95) - ROUNDED):
            return None
        return f"its log reaches learning rate {self.peak:.4g} at most, and {asked:.4g} was asked for"


def same_training(mine: Sequence[float], other: Sequence[float]) -> bool:
    """Whether two runs had the same losses to the last digit: at different rates, one of them was not used.

    The first losses come before any update, so that a handful must be the same, and not all alike.

    >>> same_training([3.5, 3.1, 2.9, 2.7], [3.5, 3.1, 2.9, 2.7]), same_training([3.5, 3.4, 3.3, 3.1], [3.5, 3.4, 3.2, 2.9])
    (True, False)
    """
    count = min(len(mine), len(other))
    if count < FEWEST_LOSSES:
        return False
    first, second = list(mine[:count]), list(other[:count])
    return first == second and len(set(first)) > 1
