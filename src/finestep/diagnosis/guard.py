"""The guard's decision when a run is in trouble: rate, batch or accident, and what to change; it touches no weights.

It follows the table of the science notes (7.3) from the surest evidence to the weakest; without any, the rate is
lowered, because that is the commonest cause (7.1 D5: restart from the last good checkpoint, half the rate, skip nothing first).
Numerics are no cause in our own loop: it computes in fp32 or bf16, whose ranges are the same, and what it trains is fp32; a batch
that is no number is none in fp32 either.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from finestep.diagnosis.robust import sorted_median
from finestep.trial import Action, Cause, Intervention, StepRecord

MAX_INTERVENTIONS = 4
RATE_FACTOR = 0.5
PROBE_RISE = 1.1
"""The fixed probe batch counts as harmed when its loss is above this multiple of its loss before."""
SAME_PLACE_STEPS = 2
OUTLIER_ROWS = 3
OUTLIER_FACTOR = 4.0
TREND_STEPS = 10


@dataclass(frozen=True)
class Probes:
    """What was measured after the trouble; None = not measured. Losses in nats, on rows that never change."""

    probe_loss_good: float | None = None
    """Loss of the fixed probe batch at the last good checkpoint."""
    probe_loss_now: float | None = None
    """Loss of the same probe batch in the troubled state."""
    replay_loss: float | None = None
    """Loss of the troubling batch at the last good checkpoint, before any step."""
    row_losses: tuple[float, ...] = ()
    """Losses of the single rows of the troubling batch."""


@dataclass(frozen=True)
class Decision:
    """What the loop shall do: go back to the last good checkpoint, then this."""

    action: Action
    cause: Cause
    reason: str
    rate_factor: float = 1.0
    confidence: float = 0.5


def decide(
    records: Sequence[StepRecord], probes: Probes = Probes(), *, earlier: Sequence[Intervention] = ()
) -> Decision:
    """Choose the intervention for trouble at the last of `records` (the steps since before the last good
    checkpoint)."""
    if len(earlier) >= MAX_INTERVENTIONS:
        return Decision("stop", "unknown", f"{len(earlier)} interventions did not save the run", confidence=0.9)
    if not records:
        return Decision("lower_rate", "unknown", "no step is recorded", RATE_FACTOR, 0.3)
    for look in (_empty_labels, _repeats, _odd_rows, _replay, _probe_batch, _trend):
        decision = look(records, probes, earlier)
        if decision is not None:
            return decision
    return Decision(
        "lower_rate", "unknown", "nothing tells the cause apart; the rate is the commonest", RATE_FACTOR, 0.4
    )


def _empty_labels(records: Sequence[StepRecord], probes: Probes, earlier: Sequence[Intervention]) -> Decision | None:
    if records[-1].num_loss_tokens != 0:
        return None
    return Decision("skip_batch", "batch", "no token of the batch carries loss (0 / 0)", confidence=0.99)


def _repeats(records: Sequence[StepRecord], probes: Probes, earlier: Sequence[Intervention]) -> Decision | None:
    """Trouble that comes again: a repetition that went wrong in the same place was no accident; after the rate was
    lowered it is the data's fault, after a skipped batch the rate's."""
    here = [each for each in earlier if abs(each.step - records[-1].step) <= SAME_PLACE_STEPS]
    if not here:
        return None
    if here[-1].action == "retry":
        return Decision("lower_rate", "rate", "the same steps went wrong again", RATE_FACTOR, 0.85)
    if here[-1].action == "lower_rate":
        return Decision("skip_batch", "batch", "the same batch fails again at a lower rate", confidence=0.8)
    return Decision("lower_rate", "rate", "it fails again without that batch", RATE_FACTOR, 0.8)


def _odd_rows(records: Sequence[StepRecord], probes: Probes, earlier: Sequence[Intervention]) -> Decision | None:
    rows = sorted(probes.row_losses)
    if len(rows) < 2 * OUTLIER_ROWS + 1:
        return None
    middle = sorted_median(rows)
    odd = sum(not loss <= OUTLIER_FACTOR * middle for loss in probes.row_losses)
    if not 1 <= odd <= OUTLIER_ROWS or _harmed(probes):
        return None
    return Decision("skip_batch", "batch", f"{odd} of {len(rows)} rows have a loss far above the rest", confidence=0.8)


def _replay(records: Sequence[StepRecord], probes: Probes, earlier: Sequence[Intervention]) -> Decision | None:
    if probes.replay_loss is None:
        return None
    usual = _usual_loss(records)
    if not probes.replay_loss <= 1.5 * usual:
        return Decision("skip_batch", "batch", "the batch is as bad for the checkpoint before it", confidence=0.85)
    if _rising_norms(records) or any(each.action == "retry" for each in earlier):
        return Decision("lower_rate", "rate", "the batch is normal for the checkpoint before it", RATE_FACTOR, 0.85)
    return Decision(
        "retry", "accident", "batch and gradients before it are normal; the same steps again tell accident from rate"
    )


def _probe_batch(records: Sequence[StepRecord], probes: Probes, earlier: Sequence[Intervention]) -> Decision | None:
    if probes.probe_loss_good is None or probes.probe_loss_now is None:
        return None
    if _harmed(probes):
        return Decision("lower_rate", "rate", "the loss of other rows rose as well", RATE_FACTOR, 0.8)
    return Decision("skip_batch", "batch", "the loss of other rows is unchanged", confidence=0.75)


def _harmed(probes: Probes) -> bool:
    if probes.probe_loss_good is None or probes.probe_loss_now is None:
        return False
    return not probes.probe_loss_now <= PROBE_RISE * probes.probe_loss_good


def _trend(records: Sequence[StepRecord], probes: Probes, earlier: Sequence[Intervention]) -> Decision | None:
    """Gradient norms that doubled over ten steps before the trouble: the rate; a single jump: the batch."""
    if _rising_norms(records):
        return Decision("lower_rate", "rate", "gradient norms had been rising for ten steps", RATE_FACTOR, 0.65)
    norms = _finite_norms(records)
    if len(norms) >= 3 * TREND_STEPS and norms[-1] > 6 * sorted_median(sorted(norms[:-TREND_STEPS])):
        return Decision("skip_batch", "batch", "one batch, with calm gradients before it", confidence=0.55)
    return None


def _rising_norms(records: Sequence[StepRecord]) -> bool:
    norms = _finite_norms(records)
    if len(norms) < 3 * TREND_STEPS:
        return False
    before = sorted_median(sorted(norms[-TREND_STEPS - 1 : -1]))
    return before > 2 * sorted_median(sorted(norms[:-TREND_STEPS]))


def _finite_norms(records: Sequence[StepRecord]) -> list[float]:
    return [record.grad_norm for record in records if math.isfinite(record.grad_norm)]


def _usual_loss(records: Sequence[StepRecord]) -> float:
    finite = sorted(record.loss for record in records[:-1] if math.isfinite(record.loss))
    return sorted_median(finite) if finite else math.inf
