"""The verdict on a log: all findings, in the order of what decides, and one label; the entry to this room."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from finestep.diagnosis.catalogue import CATALOGUE, NEVER, Evidence, Label, found, rank_of
from finestep.diagnosis.generalization import generalization_findings
from finestep.diagnosis.learning import first_loss_findings, learning_findings
from finestep.diagnosis.numerics import evaluation_findings, numerical_findings
from finestep.diagnosis.signals import Signals, signals_of
from finestep.diagnosis.stability import stability_findings, stuck_findings
from finestep.diagnosis.thresholds import DEFAULT, Thresholds
from finestep.diagnosis.training_log import TrainingLog
from finestep.finding import Finding

LONG_WARMUP = 0.4
"""Share of the steps beyond which warmup is a mistake of the schedule."""


EXPLAIN_THE_LENGTH = frozenset(
    {"diverged", "stuck_high_rate", "stuck_at_chance", "nothing_trained", "overfitting", "memorised"}
)
ABOUT_THE_LENGTH = frozenset({"undertrained", "already_converged"})
SHORT_WARMUP = 0.02
EARLY_CLIMB, EARLY_ROWS = 1.25, 12
BURST = 4.0
"""Gradient norm in the first rows over its median that belongs to a climb."""
MANY_STEPS_A_ROW = 10


@dataclass(frozen=True)
class Diagnosis:
    """What is said about one run. `findings` begins with the one that gave the label."""

    log: TrainingLog
    signals: Signals
    label: Label
    findings: tuple[Finding, ...]

    @property
    def verdict(self) -> Finding:
        """The finding that decides."""
        return self.findings[0]


def diagnose_log(log: TrainingLog, limits: Thresholds = DEFAULT) -> Diagnosis:
    """Judge one run; never raises on the content of a log."""
    signals = signals_of(log)
    findings = _all_findings(signals, limits)
    deciding = [finding for finding in findings if rank_of(finding) < NEVER]
    if not deciding:
        findings.append(_healthy(signals))
    ordered = sorted(findings, key=rank_of)
    return Diagnosis(log, signals, CATALOGUE[ordered[0].code].label, tuple(ordered))


def _all_findings(signals: Signals, limits: Thresholds) -> list[Finding]:
    numerical = numerical_findings(signals, limits)
    side = first_loss_findings(signals, limits) + _side_findings(signals, limits)
    if any(rank_of(finding) < NEVER for finding in numerical):
        return [*_rate_before(signals, numerical), *side]
    little = _too_little(signals, limits)
    if little is not None:
        return [little, *numerical, *side]
    findings = (
        numerical + evaluation_findings(signals) + stuck_findings(signals, limits) + stability_findings(signals, limits)
    )
    findings += generalization_findings(signals, limits) + learning_findings(signals, limits)
    if signals.log.context.objective == "reinforcement":
        side.append(_not_comparable())
    return _without_contradictions(findings) + side


def _without_contradictions(findings: list[Finding]) -> list[Finding]:
    """Leave out "too short" and "nothing to learn" about a run that was lost or went on too long: their advice would be the opposite."""
    if not {finding.code for finding in findings} & EXPLAIN_THE_LENGTH:
        return findings
    return [finding for finding in findings if finding.code not in ABOUT_THE_LENGTH]


def _rate_before(signals: Signals, numerical: list[Finding]) -> list[Finding]:
    """A loss that had already risen, or an absurd rate, before the numbers broke: the rate is the cause."""
    curve, schedule = signals.loss, signals.schedule
    absurd = schedule is not None and schedule.peak >= 1 and signals.log.context.method not in ("prompt", "p-tuning")
    positive = curve.smooth[curve.smooth > 0] if curve is not None else np.empty(0)
    rose = len(positive) > 5 and float(positive[-3:].min()) > 1.5 * max(
        float(positive[:3].max()), float(positive.min())
    )
    if not (absurd or rose):
        return numerical
    cause = found(
        "diverged",
        "The loss grew before it stopped being a number: the learning rate is too high.",
        advice="divide the peak learning rate by 10" if absurd else "divide the peak learning rate by 4",
        confidence=0.8,
        learning_rate=schedule.peak if schedule else None,
    )
    return [cause]


def _too_little(signals: Signals, limits: Thresholds) -> Finding | None:
    train, evals = signals.num_rows, signals.num_evaluations
    enough_eval = evals >= 4
    if (train >= 3 or enough_eval) and train + evals >= limits.min_rows:
        return None
    missing = "no training loss" if not train else f"{train} training rows"
    return found(
        "too_little_information",
        f"The log holds {missing} and {evals} evaluations: too little to judge.",
        advice="log every 1-10 steps (`logging_steps`) and evaluate at least 4 times",
        confidence=0.9,
        train_rows=train,
        evaluations=evals,
    )


def _side_findings(signals: Signals, limits: Thresholds) -> list[Finding]:
    progress, schedule = signals.progress, signals.schedule
    findings = []
    if signals.num_rows and not signals.num_evaluations:
        meaning = "There is no validation loss, so overfitting can only be guessed."
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
    every = signals.log.context.logging_steps
    if every is None or every < MANY_STEPS_A_ROW:
        return []
    meaning = f"Each row is the mean of {every:.0f} steps, so a short spike cannot be seen."
    return [found("averaged_rows", meaning, advice="log every step next time", confidence=0.9, logging_steps=every)]


def _clipping(signals: Signals, limits: Thresholds) -> list[Finding]:
    clipped = signals.log.train.clipped
    known = clipped[np.isfinite(clipped)]
    if len(known) < 20 or known.mean() <= limits.clipped_share:
        return []
    share = float(known.mean())
    meaning = f"{100 * share:.0f} % of the steps are clipped, so clipping sets their size."
    advice = "normal for LoRA; the learning rate alone decides the step then"
    return [found("mostly_clipped", meaning, advice=advice, share=share)]


def _not_comparable() -> Finding:
    return found(
        "loss_not_comparable", "This is reinforcement learning: its loss says little; rewards do.", confidence=0.9
    )


def _healthy(signals: Signals) -> Finding:
    curve, evaluation = signals.loss, signals.evaluation
    numbers: Evidence = {}
    if curve is not None:
        numbers = {"first_loss": curve.start, "last_loss": curve.end}
    if evaluation is not None:
        numbers |= {"best_eval_loss": evaluation.best, "best_step": evaluation.best_step}
    sure = 0.8 if evaluation is not None else 0.6
    return found("healthy", "Nothing is wrong with this run.", confidence=sure, known=numbers)
