"""Single steps: weights that do not move, steps that a loss scaler skips, clipping that sets the size of all steps."""

from __future__ import annotations

from collections import deque

from finestep.diagnosis.motion import untrained
from finestep.diagnosis.numerics import overflow
from finestep.diagnosis.remarks import mostly_clipped
from finestep.diagnosis.thresholds import Thresholds
from finestep.finding import Finding
from finestep.trial import StepRecord

STILL_STEPS = 3
CLIP_WINDOW = 100
SKIP_WINDOW = 20


class StepWatch:
    """Counts what single steps show."""

    def __init__(self, limits: Thresholds, *, weights_in_bf16: bool):
        self._limits = limits
        self._still_code = "bf16_stall" if weights_in_bf16 else "nothing_trained"
        self._skipped: deque[int] = deque(maxlen=limits.numbers.overflow_rows_in_20 + 1)
        self._num_still = 0
        self._clipped = 0.0

    def skipped(self, record: StepRecord) -> Finding | None:
        """Look at a step that the loss scaler left out."""
        self._skipped.append(record.step)
        if (
            len(self._skipped) <= self._limits.numbers.overflow_rows_in_20
            or record.step - self._skipped[0] >= SKIP_WINDOW
        ):
            return None
        return overflow({"step": record.step, "skipped": len(self._skipped)})

    def still(self, record: StepRecord) -> Finding | None:
        """Look at the length of an update; without a measured one the gradient must be exactly zero."""
        if record.update_norm is None and record.grad_norm != 0.0:
            return None
        moved = record.grad_norm != 0.0 and record.update_norm != 0.0
        self._num_still = 0 if moved or record.learning_rate == 0.0 else self._num_still + 1
        if self._num_still != STILL_STEPS:
            return None
        no_gradient = record.grad_norm == 0.0
        cause = "all gradients are zero" if no_gradient else "the updates do not change the weights"
        code = "nothing_trained" if no_gradient else self._still_code
        return untrained(f"No weight moves: {cause}.", code=code, step=record.step, grad_norm=record.grad_norm)

    def clipped(self, record: StepRecord, num_steps: int) -> Finding | None:
        """Look at whether a step was clipped; said once the window is full."""
        self._clipped += (record.clipped - self._clipped) / min(num_steps, CLIP_WINDOW)
        if num_steps == CLIP_WINDOW and self._clipped > self._limits.clipped_share:
            return mostly_clipped(self._clipped)
        return None
