"""A loss that is too good to be true: leaked answers, or a target that is trivial."""

from __future__ import annotations

import numpy as np

from finestep.diagnosis.catalogue import found
from finestep.diagnosis.chance import MOST_IGNORANT
from finestep.diagnosis.curves import LossCurve
from finestep.diagnosis.signals import Signals, or_none
from finestep.diagnosis.thresholds import Thresholds
from finestep.finding import Finding

GOOD_FOR_WORDS = 0.15
"""Validation loss (nats) that no text reaches without a leak when it began above 1."""


def too_good_findings(signals: Signals, limits: Thresholds) -> list[Finding]:
    """A loss that is too good to be true."""
    finding = _too_good(signals, limits) if signals.log.context.objective == "supervised" else None
    return [finding] if finding is not None else []


def _too_good(signals: Signals, limits: Thresholds) -> Finding | None:
    """A validation loss next to nothing, or a training loss next to nothing within two epochs where no validation loss says otherwise.

    Falls are measured from the level after the first tenth of the run, because a first loss may only show a wrong format.
    """
    evaluation, curve, epochs = signals.evaluation, signals.loss, signals.progress.epochs
    if evaluation is not None and evaluation.num_rows >= 3 and evaluation.first > 0:
        start = min(evaluation.first, MOST_IGNORANT)
        fell = evaluation.last < limits.too_good.share * start and start > 1 and evaluation.last < GOOD_FOR_WORDS
        is_nothing = evaluation.last < limits.too_good.loss / 2
        return (
            leak(evaluation.first, evaluation.last, "validation", epochs=or_none(epochs))
            if is_nothing or fell
            else None
        )
    if curve is None or curve.num_rows < limits.min_rows or curve.end < 0 or curve.start <= 0:
        return None
    # After two epochs a low loss may be learned by heart, which is another finding.
    early = curve.smooth[: _rows_of_epochs(signals, curve, 2.0)]
    start = max(curve.first, curve.start) if curve.start <= MOST_IGNORANT else float(curve.smooth[curve.num_rows // 10])
    is_low = (
        float(early.min()) / signals.loss_factor < limits.too_good.loss
        and float(early.min()) < limits.too_good.share * start
    )
    # One or two evaluations say whether the low training loss is the target's or learned by heart.
    if evaluation is not None and evaluation.last > limits.too_good.loss:
        return None
    return leak(curve.start, curve.end, "training", epochs=or_none(epochs)) if is_low and not epochs < 0.01 else None


def _rows_of_epochs(signals: Signals, curve: LossCurve, epochs: float) -> int:
    epoch = signals.log.train.epoch[curve.rows]
    if np.isfinite(epoch).any():
        return max(1, int((epoch <= epochs).sum()))
    return curve.num_rows


def leak(first: float, last: float, split: str, *, epochs: float | None) -> Finding:
    """The loss of a split fell further than a sound task lets it."""
    return found(
        "too_good",
        f"The {split} loss falls from {first:.3g} to {last:.2g}: the answer leaks into the input, or the "
        "target is trivial.",
        advice=(
            "check the attention mask, the label shift and duplicates between input and answer before trusting this run"
        ),
        confidence=0.7,
        first_loss=first,
        last_loss=last,
        epochs=epochs,
    )
