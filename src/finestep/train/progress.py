"""Where a trial is. With the weights and Adam's moments, this is all that resuming needs; it computes nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Progress:
    """The counters and the best evaluation of one trial; a checkpoint keeps them as JSON."""

    step: int = 0
    evaluated_step: int = -1
    best_step: int = 0
    best_loss: float = math.inf
    best_metrics: dict[str, float] = field(default_factory=dict)
    best_sums: list[float] = field(default_factory=list)
    """Sums of the rows that a reload is checked on, at the best evaluation."""
    base_loss: float = math.nan
    evaluations_without_gain: int = 0
    reference: list[float] | None = None
    """Sums of the validation rows at the last evaluation that was progress beyond noise."""
    num_tokens: int = 0
    elapsed_s: float = 0.0
    micro_batch_size: int = 0
    kl_now: float | None = None
    """KL from the base at the last evaluation, nats a token; None: not watched."""

    def values(self) -> dict[str, Any]:
        """A copy of all fields by name."""
        return {**vars(self), "best_metrics": dict(self.best_metrics)}

    def gone_back_to(self, earlier: dict[str, Any]) -> Progress:
        """An earlier state, with the best evaluation and the time spent since: both stay when a run goes back."""
        best = {name: value for name, value in vars(self).items() if name.startswith("best_")}
        return Progress(**{**earlier, **best, "elapsed_s": self.elapsed_s})
