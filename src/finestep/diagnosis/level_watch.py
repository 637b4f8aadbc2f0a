"""Drift, one step at a time: the smoothed log-loss leaves its lowest value, by ratio and by CUSUM, for many steps on end."""

from __future__ import annotations

import math

from finestep.diagnosis.catalogue import found
from finestep.diagnosis.thresholds import Thresholds
from finestep.finding import Finding
from finestep.trial import StepRecord

SMOOTHING_STEPS = 20
DRIFT_ALARM = 8.0
LEVEL_SDS = 1.4
"""Noise of the level over that of neighbouring steps, which are alike in real data (AR(1) of 0.3: 1.2)."""
DRIFT_STEPS = 20
"""Consecutive steps on which both the drift sum and the ratio must stand."""
LOST_SDS = 1.6
CLIMB_FROM = 5
"""Steps after which the smoothed loss is compared with that of the first step."""
NEGLIGIBLE = 0.05
"""Share of the first loss below which rises are not looked at; labels are learned to 0.01 nats and lower."""


class LevelWatch:
    """Follows the smoothed log-loss (weight 1/20) and its lowest value."""

    def __init__(self, limits: Thresholds):
        self._limits = limits
        self.first: float | None = None
        self.smooth = self.lowest = math.nan
        self.climb = 0.0
        """Highest smoothed log-loss above that of the first step."""
        self.num_steps = 0
        self.drift_sum = 0.0
        self._num_drifting = 0

    @property
    def excess(self) -> float:
        """Smoothed log-loss above its lowest value."""
        return self.smooth - self.lowest

    @property
    def is_calm(self) -> bool:
        """True while the level does not drift upwards."""
        return self.drift_sum < DRIFT_ALARM

    def is_negligible(self, loss: float) -> bool:
        """True for a loss of next to nothing beside the first one: a rise there is of no account."""
        return self.first is not None and loss < NEGLIGIBLE * self.first

    def follow(self, record: StepRecord, x: float, scale: float) -> Finding | None:
        """Look at one step: its log-loss `x`, and the noise of neighbouring steps."""
        weight = max(1.0 / self.num_steps, 1.0 / SMOOTHING_STEPS)
        self.smooth = x if self.num_steps == 1 else self.smooth + weight * (x - self.smooth)
        if self.first is not None and self.first > 0 and self.num_steps > CLIMB_FROM:
            self.climb = max(self.climb, self.smooth - math.log(self.first))
        # Before that the smoothed loss still remembers the first steps.
        if self.num_steps < 2 * SMOOTHING_STEPS:
            return None
        if not self.lowest <= self.smooth:
            self.lowest, self.drift_sum, self._num_drifting = self.smooth, 0.0, 0
            return None
        sd = LEVEL_SDS * scale
        return self._drifted(record, x, sd) if sd > 0.0 else None

    def _drifted(self, record: StepRecord, x: float, sd: float) -> Finding | None:
        # The lowest smoothed value lies about three of its own errors (0.16 sd) below the level that it tracks.
        self.drift_sum = max(0.0, self.drift_sum + min((x - self.lowest) / sd - 0.5, 5.0) - 0.5)
        risen = self.excess > max(math.log(self._limits.lost.unstable_ratio), 1.2 * sd)
        risen = risen and not self.is_negligible(math.exp(self.smooth))
        self._num_drifting = self._num_drifting + 1 if risen and self.drift_sum > DRIFT_ALARM else 0
        if self._num_drifting != DRIFT_STEPS:
            return None
        # Noisy losses need a larger rise, in units of their own noise.
        is_lost = self.excess > max(math.log(self._limits.lost.ratio), LOST_SDS * sd)
        return found(
            "diverged" if is_lost else "unstable",
            f"The smoothed loss has risen by {100 * math.expm1(self.excess):.0f} % above its best and stays there.",
            advice=f"roll back to the best checkpoint and divide the rate by {4 if is_lost else 2}",
            step=record.step,
            best_loss=math.exp(self.lowest),
            loss=math.exp(self.smooth),
            learning_rate=record.learning_rate,
        )

    def state(self) -> list[float]:
        """What a checkpoint keeps, apart from the first loss and the climb."""
        return [self.smooth, self.lowest, self.num_steps]

    def restore(self, level: list[float], first: float | None, climb: float) -> None:
        """Take up what was kept; a running drift begins anew."""
        self.smooth, self.lowest = level[0], level[1]
        self.num_steps = int(level[2])
        self.first, self.climb = first, climb
        self.drift_sum, self._num_drifting = 0.0, 0
