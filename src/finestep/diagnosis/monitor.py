"""LiveMonitor: the detectors, one step at a time, while a run trains; it sees records and answers with new findings.

Each code is said once a run, healed spikes at most a few times. Thresholds are wider than those of a whole log, because it looks again
at every step; `docs/figures/diagnose.md` states how often clean simulated runs set each off.
"""

from __future__ import annotations

import math
from typing import Any

from finestep.diagnosis.catalogue import found
from finestep.diagnosis.divergence import EXPLOSION_FACTOR, DivergenceWatch, PooledLoss
from finestep.diagnosis.evaluation_watch import EvaluationWatch
from finestep.diagnosis.level_watch import LOST_SDS, LevelWatch
from finestep.diagnosis.rolling import RollingScore, Surge
from finestep.diagnosis.spike_watch import SpikeWatch
from finestep.diagnosis.step_watch import StepWatch
from finestep.diagnosis.thresholds import DEFAULT, Thresholds
from finestep.finding import Finding
from finestep.trial import EvalRecord, StepRecord

LOSS_FLOOR = 0.02
"""Smallest standard deviation of the log-loss that is believed."""
EXPLODED_STEPS = 2
"""Steps in a row far beyond chance that make a lost run; one may be an odd batch."""
LOST_STEPS = 10
"""Steps for which a drift far above the best must stand before the run is called lost; healing spikes are shorter."""
LOST_EXCESS = math.log(1.4)
SAID_AT_MOST = {"spike_recovered": 3, "bad_batch": 3}
"""How often a finding is said in a run; all others once."""
RISK_PROBES = 3
"""Consecutive one-forward probes beyond half of the critical rate that make an early warning. Source: science notes 7.2 E2."""
LOG_OF_NOTHING = -27.6


class LiveMonitor:
    """Call `step` once per optimizer step and `evaluation` once per evaluation; both return the findings that are new.

    Args:
        chance_loss: loss of a uniform guess in nats, ln(vocabulary) or ln(labels).
        planned_steps: length of the run in optimizer steps.
        base_eval_loss: validation loss before the first step, when known.
        has_loss_scaler: training is in fp16, where a few gradients that are not finite are normal and their steps are skipped.
        weights_in_bf16: the trained weights themselves are bf16, which loses updates below 1/512 of a weight.
        is_of_labels: the loss is that of labels, one a row (`num_loss_tokens` are rows), and few of them make a noisy mean.
    """

    def __init__(
        self,
        *,
        chance_loss: float,
        planned_steps: int | None = None,
        base_eval_loss: float | None = None,
        has_loss_scaler: bool = False,
        weights_in_bf16: bool = False,
        is_of_labels: bool = False,
        limits: Thresholds = DEFAULT,
    ):
        self._has_loss_scaler = has_loss_scaler
        self._divergence = DivergenceWatch(chance_loss)
        self._pooled = PooledLoss() if is_of_labels else None
        self._loss = RollingScore(LOSS_FLOOR)
        self._surge = Surge()
        self._level = LevelWatch(limits)
        self._spikes = SpikeWatch(limits)
        self._steps = StepWatch(limits, weights_in_bf16=weights_in_bf16)
        self._evaluations = EvaluationWatch(
            limits, chance_loss=chance_loss, planned_steps=planned_steps, base=base_eval_loss
        )
        self._told: dict[str, int] = {}
        self._num_risky = 0
        self._num_lost = self._num_exploded = 0

    def step(self, record: StepRecord) -> list[Finding]:
        """Look at one optimizer step."""
        if self._level.first is None:
            self._level.first = record.loss
        if self._has_loss_scaler and math.isfinite(record.loss) and not math.isfinite(record.grad_norm):
            return self._new(self._steps.skipped(record))
        if self._pooled is not None:
            self._pooled.add(record.loss, record.num_loss_tokens)
        lost = self._divergence.reason(record.loss, record.grad_norm)
        self._num_exploded = self._num_exploded if lost is not None else 0
        if lost is not None and self._is_certain(record):
            return self._new(_lost(record, lost))
        self._level.num_steps += 1
        return self._follow(record)

    @property
    def base_eval_loss(self) -> float | None:
        """Validation loss before the first step, when known."""
        return self._evaluations.base

    @property
    def is_calm(self) -> bool:
        """True while no spike is under way and the level does not drift upwards: a state worth coming back to."""
        return not (self._spikes.is_open or self._surge.num_steps or self._num_lost) and self._level.is_calm

    @property
    def harm(self) -> tuple[int, float]:
        """(first step, harm) of the surge under way: by how much the log-loss stood above its level before, summed over steps."""
        return self._surge.start, self._surge.excess if self._surge.is_beyond_chance else 0.0

    @property
    def has_exploded(self) -> bool:
        """True while the loss of the last step is far beyond pure chance; one such step may be an odd batch."""
        return self._num_exploded > 0

    def evaluation(self, record: EvalRecord) -> list[Finding]:
        """Look at one evaluation."""
        return self._new(*self._evaluations.follow(record, self._level))

    def probe(self, step: int, step_ratio: float) -> list[Finding]:
        """Look at a one-forward probe: measured over predicted loss drop of one update, 1 - rate / critical rate.

        Source: science notes 7.2 E1: 1 for tiny steps, 0.5 at half the critical rate, below 0 when the step does harm.
        """
        self._num_risky = self._num_risky + 1 if step_ratio < 0.5 else 0
        if self._num_risky < RISK_PROBES:
            return []
        return self._new(
            found(
                "early_warning",
                "The learning rate is beyond half of what the loss surface bears, though the loss has not moved yet.",
                advice="lower the peak rate by 1.5-2 or warm up longer",
                confidence=0.6,
                step=step,
                step_ratio=step_ratio,
                rate_over_critical=1 - step_ratio,
            )
        )

    def state(self) -> dict[str, object]:
        """What a checkpoint keeps; JSON."""
        return {
            "divergence": self._divergence.state(), "loss": self._loss.values, "told": dict(self._told),
            "level": self._level.state(), "evals": [list(each) for each in self._evaluations.losses],
            "base": self._evaluations.base, "first": self._level.first, "climb": self._level.climb,
        }  # fmt: skip

    def restore(self, state: dict[str, Any]) -> None:
        """Take up what `state` gave; running spikes and drifts begin anew."""
        self._divergence.restore(state["divergence"])
        self._loss = RollingScore(LOSS_FLOOR)
        for value in state["loss"]:
            self._loss.remember(value)
        self._told = dict(state["told"])
        self._level.restore(state["level"], state["first"], state["climb"])
        self._evaluations.losses = [(int(step), loss, smooth) for step, loss, smooth in state["evals"]]
        self._evaluations.base = state["base"]
        self._spikes.reset()
        self._surge, self._num_lost, self._num_exploded = Surge(), 0, 0
        self._pooled = PooledLoss() if self._pooled is not None else None

    def _follow(self, record: StepRecord) -> list[Finding]:
        """What spikes, surges, the level and the step itself say of a step that is not certainly lost."""
        x = math.log(record.loss) if record.loss > 1e-12 else LOG_OF_NOTHING
        z = self._loss.score(x)
        spike = self._spikes.follow(record, x, z, self._loss.centre)
        self._surge.follow(record.step, 0.0 if self._level.is_negligible(record.loss) else z, x - self._loss.centre)
        # A spike or a surge must not become the level against which it is measured.
        if not self._spikes.is_open and not self._surge.num_steps:
            self._loss.remember(x)
        drift = self._level.follow(record, x, self._loss.scale)
        return self._new(spike, drift, self._steps.still(record), self._steps.clipped(record, self._level.num_steps))

    def _new(self, *findings: Finding | None) -> list[Finding]:
        """The findings that were not said often enough already."""
        new = []
        for finding in findings:
            count = self._told.get(finding.code, 0) if finding is not None else 0
            if finding is not None and count < SAID_AT_MOST.get(finding.code, 1):
                self._told[finding.code] = count + 1
                new.append(finding)
        return new

    def _is_certain(self, record: StepRecord) -> bool:
        """False for what noise, an odd batch and healing spikes also make, until it has stood for some steps: one exploded loss, and
        a mere drift of the mean."""
        if not (math.isfinite(record.loss) and math.isfinite(record.grad_norm)):
            return True
        self._num_exploded = self._num_exploded + 1 if self._has_exploded(record) else 0
        if self._num_exploded:
            return self._num_exploded >= EXPLODED_STEPS
        is_far = self._level.excess > max(LOST_EXCESS, LOST_SDS * self._loss.scale)
        self._num_lost = self._num_lost + 1 if is_far else 0
        return self._num_lost >= LOST_STEPS

    def _has_exploded(self, record: StepRecord) -> bool:
        limit = EXPLOSION_FACTOR * max(self._level.first or 0.0, self._divergence.chance_loss)
        return record.loss > limit and (self._pooled is None or self._pooled.surely > limit)


def _lost(record: StepRecord, reason: str) -> Finding:
    """A step after which nothing good comes: the loss exploded, or a number is none."""
    if math.isfinite(record.loss) and math.isfinite(record.grad_norm):
        return found(
            "diverged",
            f"At step {record.step} {reason}: the learning rate is too high.",
            advice="roll back to the last good checkpoint and divide the rate by 2-4",
            confidence=0.9,
            step=record.step,
            loss=record.loss,
            learning_rate=record.learning_rate,
        )
    cause = "no token of the batch carries loss" if record.num_loss_tokens == 0 else "numbers overflowed"
    return found(
        "non_finite_loss" if not math.isfinite(record.loss) else "dead_gradients",
        f"At step {record.step} {reason} ({cause}).",
        advice="look at the rows of this batch; keep weights in fp32 or bf16; then lower the rate by 2",
        confidence=0.95,
        step=record.step,
        loss_tokens=record.num_loss_tokens,
    )
