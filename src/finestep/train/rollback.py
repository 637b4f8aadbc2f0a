"""The guard of one trial: it watches every step, keeps the last good states in memory, and puts the run back when it is lost.

What to do is decided by `diagnosis.guard` from records and a few forward passes; here is only the way back. It never plans.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from pydantic import BaseModel

from finestep.diagnosis.catalogue import found
from finestep.diagnosis.guard import MAX_INTERVENTIONS, RATE_FACTOR, Decision, Probes, decide
from finestep.diagnosis.monitor import LiveMonitor
from finestep.finding import Finding
from finestep.protocol import OnTrouble
from finestep.train.progress import Progress
from finestep.trial import EvalRecord, Intervention, StepRecord

Values = dict[str, torch.Tensor]

FATAL = frozenset({"diverged", "non_finite_loss", "dead_gradients"})
"""Codes that end a trial of a study, when they are sure."""
TROUBLE = FATAL | {"unstable", "fp16_overflow"}
"""Codes that send a guarded run back."""
HOPELESS = frozenset({"worse_than_base"})
"""Codes that send a guarded run back to its start, with a quarter of the rate."""
SURE = 0.9
STEPS_BETWEEN_SNAPSHOTS = 20
STEPS_BETWEEN_LARGE_SNAPSHOTS = 50
LARGE_FROM = 20_000_000
NUM_SNAPSHOTS = 2
RECENT_STEPS = 64
SKIPPED_STRETCH = 50
"""Steps that a skipped batch may draw after it, as long as their loss is as bad: a bad part of the data is rarely one batch."""
BAD_LOSS = 1.5
HARM = 6.0
"""Excess log-loss, summed over the steps of a surge, at which the run goes back: 3 steps at 8 times the usual loss, 15 at 1.5
times. Going back costs a few steps; a spike that heals by itself seldom comes near."""


@dataclass(frozen=True)
class Snapshot:
    """A good state: copies in host memory."""

    step: int
    values: Values
    moments: Values
    optimizer_steps: int
    progress: Progress
    monitor: dict[str, object]


class GuardState(BaseModel):
    """What a checkpoint keeps of a guard."""

    monitor: dict[str, object]
    findings: tuple[Finding, ...]
    interventions: tuple[Intervention, ...]
    rate_factor: float
    skip: tuple[int | None, float]
    """The first step of a skipped stretch, and the loss above which its steps are skipped."""


class Guard:
    """Watches one trial and remembers how to get back.

    Attributes:
        findings: everything that the monitor has said.
        interventions: everything that was done about trouble.
        rate_factor: factor on the learning rate from here on.
        last_eval_is_finite: False after an evaluation whose loss is no number.
    """

    def __init__(self, on_trouble: OnTrouble, *, chance_loss: float, num_steps: int, is_of_labels: bool = False):
        self.on_trouble = on_trouble
        self.monitor = LiveMonitor(chance_loss=chance_loss, planned_steps=num_steps, is_of_labels=is_of_labels)
        self.findings: list[Finding] = []
        self.interventions: list[Intervention] = []
        self.rate_factor = 1.0
        self.last_eval_is_finite = True
        self._recent: deque[StepRecord] = deque(maxlen=RECENT_STEPS)
        self._snapshots: deque[Snapshot] = deque(maxlen=NUM_SNAPSHOTS)
        self._first: Snapshot | None = None
        self._every = STEPS_BETWEEN_SNAPSHOTS
        self._skip_from: int | None = None
        self._bad_above = math.inf

    # ---- watching

    def highest_loss(self, step: int) -> float:
        """A step with a larger loss must not touch the weights: one of a skipped stretch of bad batches."""
        if self._skip_from is None or step < self._skip_from:
            return math.inf
        if step == self._skip_from:
            return -math.inf
        return self._bad_above if step <= self._skip_from + SKIPPED_STRETCH else math.inf

    def note_update(self, step: int) -> None:
        """A step has touched the weights: a skipped stretch is over with it."""
        if self._skip_from is not None and step > self._skip_from:
            self._skip_from = None

    def watch(self, record: StepRecord, *, was_updated: bool) -> tuple[list[Finding], Finding | None]:
        """(new findings, the one that calls for the answer that `on_trouble` names)."""
        is_finite = math.isfinite(record.loss) and math.isfinite(record.grad_norm)
        if is_finite and not was_updated:
            return [], None
        self._recent.append(record)
        new = self.monitor.step(record)
        trouble = next((finding for finding in new if self._calls(finding)), None) or self._harmful(record)
        new += [trouble] if trouble is not None and trouble not in new else []
        self.findings += new
        return new, trouble

    def probed(self, step: int, step_ratio: float) -> list[Finding]:
        """New findings after a one-forward probe."""
        new = self.monitor.probe(step, step_ratio)
        self.findings += new
        return new

    def look(self, record: EvalRecord) -> tuple[list[Finding], Finding | None]:
        """(new findings after an evaluation, the one that sends a guarded run back to its start)."""
        new = self.monitor.evaluation(record)
        self.findings += new
        self.last_eval_is_finite = math.isfinite(record.eval_loss)
        is_guarded = self.on_trouble == "rollback"
        return new, next((finding for finding in new if is_guarded and finding.code in HOPELESS), None)

    def _calls(self, finding: Finding) -> bool:
        if self.on_trouble == "stop":
            return finding.code in FATAL and finding.confidence >= SURE
        return self.on_trouble == "rollback" and finding.code in TROUBLE

    def _harmful(self, record: StepRecord) -> Finding | None:
        """A surge that has done harm enough to undo it, although it might yet heal."""
        start, harm = self.monitor.harm
        if self.monitor.has_exploded:
            start, harm = record.step, HARM
        if self.on_trouble != "rollback" or harm < HARM:
            return None
        return found(
            "unstable",
            f"The loss has risen since step {start} and has not come back.",
            advice="lower the rate by 2 if it happens again",
            confidence=0.8,
            step=start,
            loss=record.loss,
            learning_rate=record.learning_rate,
        )

    # ---- the way back

    def snapshot_due(self, step: int) -> bool:
        """True when the run is calm and its last good state is old."""
        if self.on_trouble != "rollback" or not self.monitor.is_calm:
            return False
        return not self._snapshots or step - self._snapshots[-1].step >= self._every

    def keep(self, snapshot: Snapshot) -> None:
        """Remember a good state; large ones are taken less often. The first is never forgotten."""
        self._first = self._first or snapshot
        self._snapshots.append(snapshot)
        is_large = sum(value.numel() for value in snapshot.values.values()) > LARGE_FROM
        self._every = STEPS_BETWEEN_LARGE_SNAPSHOTS if is_large else STEPS_BETWEEN_SNAPSHOTS

    def good_state(self, onset: int) -> Snapshot:
        """The newest state from before the trouble began; later ones are forgotten."""
        while len(self._snapshots) > 1 and self._snapshots[-1].step >= onset:
            self._snapshots.pop()
        return self._snapshots[-1]

    def start_over(self, finding: Finding) -> tuple[Snapshot, Decision]:
        """(the first state, what to change) for a run that never was any good; `stop` when it has been tried too often."""
        assert self._first is not None
        self._snapshots.clear()
        self._snapshots.append(self._first)
        if len(self.interventions) >= MAX_INTERVENTIONS:
            return self._first, Decision("stop", "unknown", finding.meaning, confidence=0.9)
        return self._first, Decision("lower_rate", "rate", finding.meaning, RATE_FACTOR**2, 0.8)

    def decide(self, onset: int, probes: Probes) -> Decision:
        """What to do about trouble that began at step `onset`."""
        before = [record for record in self._recent if record.step <= onset]
        return decide(before, probes, earlier=self.interventions)

    def go_on(self, decision: Decision, *, onset: int, back_to: Snapshot) -> Intervention:
        """Take up the state of the monitor in a snapshot, and what was decided."""
        self.monitor.restore(back_to.monitor)
        usual = [record.loss for record in self._recent if record.step <= back_to.step and math.isfinite(record.loss)]
        while self._recent and self._recent[-1].step > back_to.step:
            self._recent.pop()
        self.rate_factor *= decision.rate_factor
        if decision.action == "skip_batch":
            self._skip_from, self._bad_above = onset, BAD_LOSS * _median(usual[-20:])
        done = Intervention(
            step=onset,
            back_to=back_to.step,
            action=decision.action,
            cause=decision.cause,
            reason=decision.reason,
            rate_factor=decision.rate_factor,
        )
        self.interventions.append(done)
        return done

    # ---- checkpoints

    def state(self) -> GuardState:
        """What a checkpoint keeps. Snapshots stay behind: a run that is taken up again begins with a new one."""
        return GuardState(
            monitor=self.monitor.state(),
            findings=tuple(self.findings),
            interventions=tuple(self.interventions),
            rate_factor=self.rate_factor,
            skip=(self._skip_from, self._bad_above),
        )

    def restore(self, state: GuardState) -> None:
        """Take up what `state` gave."""
        self.monitor.restore(state.monitor)
        self.findings, self.interventions = list(state.findings), list(state.interventions)
        self.rate_factor = state.rate_factor
        self._skip_from, self._bad_above = state.skip


def onset_of(finding: Finding, record: StepRecord) -> int:
    """The step at which trouble began: that of a jump, or the step at which it was seen."""
    step = finding.evidence.get("step")
    return min(int(step), record.step) if isinstance(step, int | float) else record.step


def _median(values: Sequence[float]) -> float:
    ordered = sorted(values)
    return ordered[len(ordered) // 2] if ordered else math.inf
