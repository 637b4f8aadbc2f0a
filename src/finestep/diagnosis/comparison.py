"""Several runs of one task compared: a sweep by hand. Which rate was best, where the cliff is, what to try next."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from finestep.diagnosis.verdict import Diagnosis

RATE_STEP = 2.0
"""Factor between neighbouring rates when one goes beyond the end of a sweep."""
SAME = 0.003
"""Relative difference of losses below which two runs count as equal. Source: seed noise in science notes 12."""

LOST = frozenset({"lr_too_high_diverged", "numerical_failure", "no_learning"})
DIFFERENT_START = 1.5
"""Factor between the first losses of runs beyond which they are hardly of one task."""


@dataclass(frozen=True)
class Row:
    """One run in a comparison; losses in nats, None = not known."""

    name: str
    label: str
    learning_rate: float | None
    score: float | None
    is_validation: bool
    is_trusted: bool = True
    """False for a run that is lost, or whose loss is too good to be true."""


@dataclass(frozen=True)
class Comparison:
    """The runs, best first, and what to try next in one sentence."""

    rows: tuple[Row, ...]
    advice: str


def compare(diagnoses: Sequence[Diagnosis]) -> Comparison:
    """Rank runs by their best validation loss, or by their last training loss when no run has one."""
    # One measure for all runs: a training loss beside a validation loss compares nothing.
    use_validation = any(each.signals.evaluation for each in diagnoses)
    rows = [_row(each, use_validation) for each in diagnoses]
    ordered = sorted(rows, key=lambda row: (not row.is_trusted, row.score is None, row.score or 0.0))
    return Comparison(tuple(ordered), _different_tasks(diagnoses, ordered) or _advice(ordered))


def _different_tasks(diagnoses: Sequence[Diagnosis], rows: Sequence[Row]) -> str:
    """What to say of runs whose first losses are far apart; empty for runs of one task."""
    starts = [each.signals.loss.start for each in diagnoses if each.signals.loss and each.signals.loss.start > 0]
    if len(starts) < 2 or max(starts) < DIFFERENT_START * min(starts):
        return ""
    return (
        f"Their losses start between {min(starts):.3g} and {max(starts):.3g}: they are hardly runs of one task, and then neither their "
        f"losses nor their rates compare. If they are, {rows[0].name} is the best."
    )


def _row(diagnosis: Diagnosis, use_validation: bool) -> Row:
    signals = diagnosis.signals
    score = None
    if use_validation and signals.evaluation:
        score = signals.evaluation.best
    elif not use_validation and signals.loss:
        score = signals.loss.end
    rate = signals.schedule.peak if signals.schedule else None
    trusted = diagnosis.label not in LOST and diagnosis.verdict.code != "too_good"
    return Row(diagnosis.log.name, diagnosis.label, rate, score, use_validation, trusted)


def _advice(rows: Sequence[Row]) -> str:
    known = [row for row in rows if row.learning_rate and row.score is not None]
    good = [row for row in known if row.is_trusted]
    rates = sorted({row.learning_rate for row in known if row.learning_rate})
    if not good or len(rates) < 2:
        return "The runs do not differ in a logged learning rate, so no rate can be recommended from them."
    best = good[0]
    caution = " (by training loss, which favours high rates)" if not best.is_validation else ""
    rate = best.learning_rate or math.nan
    text = f"Best: {best.name} at a peak rate of {rate:.2g}{caution}. "
    return text + _next_try(rate, rates, known)


def _next_try(rate: float, rates: list[float], known: Sequence[Row]) -> str:
    lost = [row.learning_rate for row in known if row.label in LOST and row.learning_rate and row.learning_rate > rate]
    # Seeds differ: a best rate within a factor of three of a lost one may be lost next time.
    if lost and min(lost) < 3 * rate:
        return f"The cliff is near ({min(lost):.2g} is lost): try {rate / 1.5:.2g} before settling on it."
    if rate == rates[-1]:
        return f"It is the highest rate tried: try {RATE_STEP * rate:.2g} next."
    if rate == rates[0]:
        return f"It is the lowest rate tried: try {rate / RATE_STEP:.2g} next."
    lower, upper = rates[rates.index(rate) - 1], rates[rates.index(rate) + 1]
    # Neighbours more than a factor of three away on each side leave room for a better rate.
    if upper / lower > 9:
        return f"Refine around it: try {math.sqrt(rate * lower):.2g} and {math.sqrt(rate * upper):.2g}."
    return "Its neighbours on both sides are worse: the rate is settled; tune the batch or the length next."
