"""Where a trial is. With the weights and Adam's moments, this is all that resuming needs; it computes nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace


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

    def copied(self) -> Progress:
        """The same, which stays as it is while training goes on."""
        return replace(self, best_metrics=dict(self.best_metrics))

    def gone_back_to(self, earlier: Progress) -> Progress:
        """An earlier state, with the best evaluation and the time spent since: both stay when a run goes back."""
        return replace(
            earlier,
            best_step=self.best_step,
            best_loss=self.best_loss,
            best_metrics=self.best_metrics,
            best_sums=self.best_sums,
            elapsed_s=self.elapsed_s,
        )
