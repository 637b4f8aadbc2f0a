"""Spikes, one step at a time: from the first high step to the second calm one, or until a jump has not come back for 40 steps."""

from __future__ import annotations

import math

from finestep.diagnosis.catalogue import found
from finestep.diagnosis.rolling import EPISODE_STEPS
from finestep.diagnosis.spikes import healed_spike, odd_batch
from finestep.diagnosis.thresholds import Thresholds
from finestep.finding import Finding
from finestep.trial import StepRecord


class SpikeWatch:
    """Follows one spike after the other."""

    def __init__(self, limits: Thresholds):
        self._limits = limits
        self._losses: list[float] = []
        self._start = self._num_calm = 0

    @property
    def is_open(self) -> bool:
        """True while a spike is under way."""
        return bool(self._losses)

    def reset(self) -> None:
        """Forget the spike under way."""
        self._losses = []

    def follow(self, record: StepRecord, x: float, z: float, centre: float) -> Finding | None:
        """Look at one step: its log-loss, the score of that, and the level of the log-loss before it."""
        if not self._losses:
            # A high score alone may be a quiet log; the loss must have jumped as well.
            if z <= self._limits.spikes.z or x - centre < math.log(self._limits.spikes.ratio):
                return None
            self._start, self._num_calm = record.step, 0
        self._losses.append(x)
        self._num_calm = self._num_calm + 1 if z < self._limits.spikes.z / 2 else 0
        height = math.exp(max(self._losses) - centre)
        # Two calm steps, because one may lie between two high ones.
        if self._num_calm >= 2:
            length, self._losses = len(self._losses) - self._num_calm, []
            return (
                odd_batch(self._start, height) if length <= 1 else healed_spike(self._start, height, {"steps": length})
            )
        if len(self._losses) <= EPISODE_STEPS:
            return None
        self._losses = []
        return found(
            "unstable",
            f"The loss jumped at step {self._start} and has not come back for {EPISODE_STEPS} steps.",
            advice="roll back to before the jump and divide the rate by 2",
            step=self._start,
            height=height,
            learning_rate=record.learning_rate,
        )
