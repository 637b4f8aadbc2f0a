"""Evaluations, one after the other: frozen weights, overfitting, a run that never beats its base, a loss too good to be true."""

from __future__ import annotations

import math

from finestep.diagnosis.early_stopping import MIN_GAIN
from finestep.diagnosis.generalization import overfits
from finestep.diagnosis.level_watch import LevelWatch
from finestep.diagnosis.motion import untrained
from finestep.diagnosis.numerics import broken_evaluation
from finestep.diagnosis.thresholds import Thresholds
from finestep.diagnosis.too_good import leak
from finestep.diagnosis.unsettled import NO_BETTER, no_better_than_base
from finestep.finding import Finding
from finestep.trial import EvalRecord

CHANCE_OF_TEXT = 5.0
"""Nats of a uniform guess above which tokens are chosen, and not labels."""
CLIMB, HARDLY_BETTER = math.log(1.3), 0.95
"""A climb of the smoothed log-loss that a sound rate does not show; what counts as better than the base after one."""
LEAST_BASE = 0.3
"""Losses (nats) of a base model below which a fall to next to nothing is no surprise."""


class EvaluationWatch:
    """Keeps the validation losses of a run, each with the smoothed training log-loss of its time."""

    def __init__(self, limits: Thresholds, *, chance_loss: float, planned_steps: int | None, base: float | None):
        self._limits = limits
        self._planned_steps = planned_steps
        self._too_good_share = limits.too_good.share_of_text if chance_loss > CHANCE_OF_TEXT else limits.too_good.share
        self.base = base
        self.losses: list[tuple[int, float, float]] = []

    def follow(self, record: EvalRecord, level: LevelWatch) -> list[Finding]:
        """Look at one evaluation."""
        if not math.isfinite(record.eval_loss):
            return [broken_evaluation(step=record.step)]
        if record.step == 0:
            self.base = record.eval_loss
        self.losses.append((record.step, record.eval_loss, level.smooth))
        seen = (self._frozen(level), self._overfitting(level), self._worse_than_base(level), self._leak(record))
        return [finding for finding in seen if finding is not None]

    def _frozen(self, level: LevelWatch) -> Finding | None:
        if len(self.losses) < 2 or level.num_steps < 5:
            return None
        (_, first, _), (step, last, _) = self.losses[0], self.losses[-1]
        if abs(last - first) > 1e-6 * abs(first):
            return None
        return untrained(
            "The validation loss is the same to the sixth digit: no weight is being trained.", step=step, eval_loss=last
        )

    def _overfitting(self, level: LevelWatch) -> Finding | None:
        """Two evaluations in a row above the lowest by more than the margin, while the training loss fell."""
        values = [loss for _, loss, _ in self.losses]
        best = min(range(len(values)), key=values.__getitem__)
        margin = max(self._limits.overfitting.rise * values[best], MIN_GAIN)
        if len(values) - 1 - best < 2 or min(values[-2:]) < values[best] + margin:
            return None
        step, lowest, smooth_then = self.losses[best]
        if not level.smooth <= smooth_then + 0.02:
            return None
        rise = values[-1] / lowest - 1 if lowest > 0 else 0.0
        return overfits(
            {"best_step": step, "best_eval_loss": lowest, "last_eval_loss": values[-1], "rise": rise, "keep_step": step}
        )

    def _worse_than_base(self, level: LevelWatch) -> Finding | None:
        """Every evaluation is above the base; or hardly below it, after a loss that had climbed first."""
        late = level.num_steps > 0.25 * (self._planned_steps or 4 * level.num_steps)
        after = [loss for step, loss, _ in self.losses if step > 0]
        allowed = HARDLY_BETTER if level.climb > CLIMB else NO_BETTER
        if self.base is None or not late or len(after) < 2 or min(after) <= allowed * self.base:
            return None
        advice = (
            "divide the rate by 4; if that does not help, the labels or the template do not fit the validation rows"
        )
        return no_better_than_base(self.base, min(after), advice=advice, learning_rate=None)

    def _leak(self, record: EvalRecord) -> Finding | None:
        base = self.base
        if base is None or record.step == 0 or base < LEAST_BASE or record.eval_loss > self._too_good_share * base:
            return None
        return leak(base, record.eval_loss, "validation", epochs=None)
