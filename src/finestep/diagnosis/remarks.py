"""Remarks: what is worth knowing about a run and never decides its verdict."""

from __future__ import annotations

import math

import numpy as np

from finestep.diagnosis.catalogue import Evidence, found
from finestep.diagnosis.signals import Signals
from finestep.diagnosis.thresholds import Thresholds
from finestep.finding import Finding

LONG_WARMUP = 0.4
"""Share of the steps beyond which warmup is a mistake of the schedule."""
SHORT_WARMUP = 0.02
EARLY_CLIMB, EARLY_ROWS = 1.25, 12
BURST = 4.0
"""Gradient norm in the first rows over its median that belongs to a climb."""
MANY_STEPS_A_ROW = 10


def remarks(signals: Signals, limits: Thresholds) -> list[Finding]:
    progress, schedule = signals.progress, signals.schedule
    findings = []
    if signals.num_rows and not signals.num_evaluations:
        meaning = "No validation loss was found in the log, so overfitting can only be guessed."
        findings.append(found("no_evaluation", meaning, advice="hold back rows and evaluate next time"))
    if progress.share_done < 0.9:
        meaning = f"The run stopped at {100 * progress.share_done:.0f} % of its planned steps."
        steps: Evidence = {"last_step": progress.last_step, "planned_steps": progress.planned_steps}
        findings.append(found("interrupted", meaning, known=steps))
    if schedule is not None and schedule.warmup_share > LONG_WARMUP:
        meaning = f"Warmup takes {100 * schedule.warmup_share:.0f} % of the steps."
        advice = "warm up over 3-10 % of the steps"
        findings.append(found("warmup_too_long", meaning, advice=advice, warmup_share=schedule.warmup_share))
    return findings + _short_warmup(signals) + _averages(signals) + _clipping(signals, limits)


def _short_warmup(signals: Signals) -> list[Finding]:
    """The loss climbs in the first rows at the full rate and comes down again, whatever comes later."""
    curve, schedule = signals.loss, signals.schedule
    if (
        curve is None
        or schedule is None
        or curve.num_rows < 20
        or schedule.warmup_share > SHORT_WARMUP
        or curve.first <= 0
    ):
        return []
    # A climb later than the first seventh is no matter of the warmup.
    count = max(EARLY_ROWS, curve.num_rows // 7)
    loss = signals.log.train.loss[curve.rows][:count]
    first = max(curve.first, float(np.median(loss[:3])))
    levels = np.median(np.lib.stride_tricks.sliding_window_view(loss, 5), axis=1)
    highest = float(levels.max())
    # Five rows against three; a burst of gradient norm in the same rows is evidence of its own.
    error = 1.2533 * curve.noise * first * math.sqrt(1 / 5 + 1 / 3)
    norms = signals.log.train.grad_norm[curve.rows]
    burst = bool(
        np.isfinite(norms).sum() > EARLY_ROWS
        and np.nanmax(_finite(norms[:count])) > BURST * np.nanmedian(_finite(norms))
    )
    if highest < EARLY_CLIMB * first or highest - first < (2.5 if burst else 4.5) * error:
        return []
    meaning = (
        f"The loss climbs from {first:.3g} to {highest:.3g} in the first steps at the full rate: warmup is too short."
    )
    advice = "warm up over 5-10 % of the steps; if it still climbs, divide the rate by 2"
    return [found("warmup_too_short", meaning, advice=advice, confidence=0.7, first_loss=first, highest=highest)]


def _finite(values: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(values), values, np.nan)


def _averages(signals: Signals) -> list[Finding]:
    every = signals.log.context.settings.logging_steps
    if every is None or every < MANY_STEPS_A_ROW:
        return []
    meaning = f"Each row is the mean of {every:.0f} steps, so a short spike cannot be seen."
    return [found("averaged_rows", meaning, advice="log every step next time", confidence=0.9, logging_steps=every)]


def _clipping(signals: Signals, limits: Thresholds) -> list[Finding]:
    clipped = signals.log.train.clipped
    known = clipped[np.isfinite(clipped)]
    if len(known) < 20 or known.mean() <= limits.clipped_share:
        return []
    return [mostly_clipped(float(known.mean()))]


def mostly_clipped(share: float) -> Finding:
    """Most steps are as long as the clipping lets them be."""
    meaning = f"{100 * share:.0f} % of the steps are clipped, so clipping sets their size."
    advice = "normal for LoRA; the learning rate alone decides the step then"
    return found("mostly_clipped", meaning, advice=advice, share=share)
