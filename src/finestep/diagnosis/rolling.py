"""Running statistics of a loss, one step at a time: a robust score against the steps before, and surges above their level.

A step costs a few microseconds of plain Python: windows stay sorted, so that a median is a look-up.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque

from finestep.diagnosis.robust import MAD_TO_SD, sorted_median

WINDOW = 64
MIN_VALUES = LEVEL_STEPS = 16
CHANGE_TO_SD = MAD_TO_SD / math.sqrt(2)
"""Standard deviation of Gaussian noise over the median size of its changes."""
EPISODE_STEPS = 40
"""Steps after which a spike that has not healed is called so."""
SURGE_BEGINS, SURGE_ENDS, SURGE_SCORE = 3.0, 1.5, 20.0


class RollingScore:
    """Robust score of each value against those before it; a value that stands out is not remembered.

    The level is the median of the last 16 values, the noise that of the differences between neighbours, so that a steep descent
    does not pass for noise.
    """

    def __init__(self, floor: float):
        self._floor = floor
        self._recent: deque[float] = deque()
        self._level: list[float] = []
        self._changes: deque[float] = deque()
        self._sorted_changes: list[float] = []
        self.centre = self.scale = 0.0

    def score(self, x: float) -> float:
        """(x - level) / noise, or 0 while fewer than 16 values are known."""
        if len(self._recent) < MIN_VALUES:
            return 0.0
        self.centre = sorted_median(self._level)
        self.scale = max(CHANGE_TO_SD * sorted_median(self._sorted_changes), self._floor)
        return (x - self.centre) / self.scale

    def remember(self, x: float) -> None:
        """Add a value to the window."""
        if self._recent:
            # Differences of neighbours measure noise in a descent too, where the values themselves would not.
            change = abs(x - self._recent[-1])
            if len(self._changes) == WINDOW:
                del self._sorted_changes[bisect_left(self._sorted_changes, self._changes.popleft())]
            self._changes.append(change)
            insort(self._sorted_changes, change)
        if len(self._recent) == WINDOW:
            self._recent.popleft()
        self._recent.append(x)
        insort(self._level, x)
        if len(self._level) > LEVEL_STEPS:
            del self._level[bisect_left(self._level, self._recent[-LEVEL_STEPS - 1])]

    @property
    def values(self) -> list[float]:
        """The window, oldest first."""
        return list(self._recent)


class Surge:
    """Neighbouring steps above the level before them, from the first clear one to the second calm one; 40 steps at most.

    Its scores are summed: single steps may be noise, a sum of 20 over neighbours hardly ever is (CUSUM, science notes 7.1 D2).
    """

    def __init__(self) -> None:
        self.start = self.num_steps = self._calm = 0
        self.excess = self.score = 0.0

    def follow(self, step: int, z: float, excess: float) -> None:
        """Look at one step: its score and its log-loss above the level."""
        if not self.num_steps:
            if z <= SURGE_BEGINS:
                return
            self.start, self._calm, self.excess, self.score = step, 0, 0.0, 0.0
        self.num_steps += 1
        self._calm = self._calm + 1 if z < SURGE_ENDS else 0
        if self._calm >= 2 or self.num_steps > EPISODE_STEPS:
            self.num_steps, self.excess, self.score = 0, 0.0, 0.0
            return
        self.excess += max(excess, 0.0)
        self.score += max(z, 0.0)

    @property
    def is_beyond_chance(self) -> bool:
        """True when noise hardly ever does that."""
        return self.num_steps > 0 and self.score > SURGE_SCORE
