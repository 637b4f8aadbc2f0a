"""The immediate check of every step: is this run lost? It sees one number after another and never looks ahead.

The thresholds are those of the project's science notes (section 7.1, D0 and D3): non-finite values end a run at once; a
loss far above both its start and pure chance has exploded; a smoothed loss half above its best and above its start is lost.
"""

from __future__ import annotations

import math
from collections import deque

EXPLOSION_FACTOR = 2.0
DRIFT_FACTOR = 1.5
SMOOTHING_STEPS = 20
FEWEST_ROWS = 32


class PooledLoss:
    """Mean loss of the newest steps that together had at least 32 labelled rows.

    A step of one labelled row has the loss of one guess: sure and wrong, it is far beyond chance in a run that learns well. A step
    with many rows is its own mean. Text needs none of this: twice the loss of a guess over a whole vocabulary is no single mistake.
    """

    def __init__(self) -> None:
        self._steps: deque[tuple[float, int]] = deque()

    def add(self, loss: float, num_rows: int) -> None:
        """Add a step, and let go of those that are not needed any more."""
        self._steps.append((loss, max(num_rows, 1)))
        while sum(count for _, count in self._steps) - self._steps[0][1] >= FEWEST_ROWS:
            self._steps.popleft()

    @property
    def surely(self) -> float:
        """The mean less two of its standard errors (none of a single step); minus infinity while it has too few rows."""
        total = sum(count for _, count in self._steps)
        if total < FEWEST_ROWS:
            return -math.inf
        mean = sum(loss * count for loss, count in self._steps) / total
        spread = sum(count * (loss - mean) ** 2 for loss, count in self._steps) / total
        return mean - 2 * math.sqrt(spread / max(len(self._steps) - 1, 1))


class DivergenceWatch:
    """Fed with every step's loss and gradient norm; answers with a reason when the run has diverged.

    Args:
        chance_loss: loss of a uniform guess in nats, ln(vocabulary) or ln(labels).
    """

    def __init__(self, chance_loss: float):
        self.chance_loss = chance_loss
        self._first: float | None = None
        self._smooth = 0.0
        self._lowest = math.inf
        self._num_seen = 0

    def reason(self, loss: float, grad_norm: float) -> str | None:
        """Why the run is lost, in words, or None while it is not."""
        if not math.isfinite(loss):
            return f"the loss is {loss}"
        if not math.isfinite(grad_norm):
            return f"the gradient norm is {grad_norm}"
        first = self._first = loss if self._first is None else self._first
        # Against chance as well, because a good model may double a small loss on one hard batch.
        if loss > EXPLOSION_FACTOR * max(first, self.chance_loss):
            return f"the loss exploded to {loss:.3g} (start {first:.3g}, chance {self.chance_loss:.3g})"
        return self._drift(loss, first)

    def state(self) -> list[float]:
        """What a checkpoint has to keep."""
        return [self._first if self._first is not None else math.nan, self._smooth, self._lowest, self._num_seen]

    def restore(self, state: list[float]) -> None:
        """Take up what `state` gave."""
        first, self._smooth, self._lowest, seen = state
        self._first = None if math.isnan(first) else first
        self._num_seen = int(seen)

    def _drift(self, loss: float, first: float) -> str | None:
        self._num_seen += 1
        # A plain mean until there are enough steps for the running one, so that the first step does not weigh most.
        weight = max(1.0 / self._num_seen, 1.0 / SMOOTHING_STEPS)
        self._smooth += weight * (loss - self._smooth)
        if self._num_seen < SMOOTHING_STEPS:
            return None
        self._lowest = min(self._lowest, self._smooth)
        # Above its start too: a rise from a very low loss that is still far below it costs little.
        if self._smooth > DRIFT_FACTOR * self._lowest and self._smooth > max(first, 0.0):
            return f"the smoothed loss rose from {self._lowest:.3g} to {self._smooth:.3g}, above its start {first:.3g}"
        return None
