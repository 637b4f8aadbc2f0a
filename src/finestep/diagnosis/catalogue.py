"""The catalogue of findings: code -> severity, verdict label and rank; it holds the words that never change.

The verdict of a log is the label of its finding with the lowest rank. Labels are those of hand-labelled log corpora.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

from finestep.finding import Finding, Severity

Label = Literal[
    "healthy", "lr_too_high_diverged", "lr_too_high_unstable", "lr_too_low", "undertrained", "overfitting",
    "spike_recovered",
    "numerical_failure", "no_learning", "other", "too_little_information",
]  # fmt: skip

LABEL_WORDS: dict[Label, str] = {
    "healthy": "Healthy",
    "lr_too_high_diverged": "Learning rate too high: diverged",
    "lr_too_high_unstable": "Learning rate too high: unstable",
    "lr_too_low": "Learning rate too low",
    "undertrained": "Undertrained",
    "overfitting": "Overfitting",
    "spike_recovered": "A spike that healed",
    "numerical_failure": "Numbers broke",
    "no_learning": "Nothing is learned",
    "other": "Something else is odd",
    "too_little_information": "Too little information",
}

NEVER = 1000
"""Rank of findings that inform and never decide the verdict."""


Evidence = dict[str, float | int | str | None]


class Kind(NamedTuple):
    """One code of the catalogue."""

    severity: Severity
    label: Label
    rank: int


CATALOGUE: dict[str, Kind] = {
    "several_runs": Kind("notice", "other", 0),
    "memory_ran_out": Kind("error", "other", 1),
    "unreadable_layout": Kind("warning", "too_little_information", 1),
    # Are the numbers sound?
    "non_finite_loss": Kind("error", "numerical_failure", 10),
    "hidden_nan": Kind("error", "numerical_failure", 11),
    "fp16_overflow": Kind("error", "numerical_failure", 12),
    "dead_gradients": Kind("error", "numerical_failure", 13),
    # Does anything train?
    "steps_skipped": Kind("error", "numerical_failure", 20),
    "no_labels": Kind("error", "no_learning", 21),
    "nothing_trained": Kind("error", "no_learning", 22),
    "stuck_at_plateau": Kind("warning", "no_learning", 23),
    # Is there enough to judge?
    "too_little_information": Kind("notice", "too_little_information", 25),
    # Is the run lost?
    "data_changed": Kind("warning", "other", 28),
    "unexplained_rise": Kind("warning", "other", 29),
    "diverged": Kind("error", "lr_too_high_diverged", 30),
    "stuck_high_rate": Kind("error", "lr_too_high_diverged", 31),
    "stuck_at_chance": Kind("error", "no_learning", 32),
    "worse_than_base": Kind("warning", "lr_too_high_unstable", 33),
    # Is it too good to be true?
    "too_good": Kind("warning", "other", 35),
    # What does its objective say?
    "answers_cut_off": Kind("warning", "no_learning", 36),
    "loss_not_comparable": Kind("notice", "too_little_information", 36),
    "reward_fell": Kind("warning", "lr_too_high_unstable", 37),
    "no_reward_signal": Kind("warning", "no_learning", 38),
    "reward_not_gained": Kind("warning", "no_learning", 39),
    "preference_rate_too_low": Kind("warning", "lr_too_low", 39),
    "preference_not_learned": Kind("warning", "no_learning", 39),
    # Does it generalise?
    "overfitting": Kind("warning", "overfitting", 40),
    "memorised": Kind("warning", "overfitting", 41),
    "unstable": Kind("warning", "lr_too_high_unstable", 45),
    "bf16_stall": Kind("warning", "numerical_failure", 48),
    # Were rate, warmup and length enough?
    "warmup_never_ended": Kind("warning", "undertrained", 49),
    "learning_rate_too_low": Kind("warning", "lr_too_low", 50),
    "rate_below_usual": Kind("warning", "lr_too_low", 51),
    "undertrained": Kind("warning", "undertrained", 52),
    "answers_unrelated": Kind("warning", "no_learning", 53),
    "already_converged": Kind("notice", "other", 55),
    "spike_recovered": Kind("notice", "spike_recovered", 60),
    # Is the evaluation sound?
    "evaluation_broken": Kind("warning", "numerical_failure", 65),
    "healthy": Kind("info", "healthy", 100),
    # Remarks
    "warmup_too_short": Kind("warning", "lr_too_high_unstable", NEVER),
    "rate_above_usual": Kind("notice", "lr_too_high_unstable", NEVER),
    "rate_far_below_usual": Kind("notice", "lr_too_low", NEVER),
    "bad_batch": Kind("notice", "spike_recovered", NEVER),
    "warmup_too_long": Kind("notice", "undertrained", NEVER),
    "loss_scaled": Kind("notice", "other", NEVER),
    "loss_starts_high": Kind("notice", "other", NEVER),
    "starts_at_chance": Kind("info", "healthy", NEVER),
    "past_its_best": Kind("info", "overfitting", NEVER),
    "loss_and_metric_part": Kind("info", "overfitting", NEVER),
    "stairs": Kind("notice", "overfitting", NEVER),
    "some_answers_cut_off": Kind("notice", "healthy", NEVER),
    "chosen_reward_falls": Kind("notice", "healthy", NEVER),
    "evaluation_noisy": Kind("notice", "healthy", NEVER),
    "no_evaluation": Kind("info", "healthy", NEVER),
    "interrupted": Kind("info", "healthy", NEVER),
    "mostly_clipped": Kind("notice", "healthy", NEVER),
    "loss_scaler_skips": Kind("info", "healthy", NEVER),
    "averaged_rows": Kind("info", "healthy", NEVER),
    "early_warning": Kind("notice", "lr_too_high_unstable", NEVER),
    "forgetting": Kind("notice", "other", NEVER),
}


def found(
    code: str,
    meaning: str,
    *,
    advice: str = "",
    confidence: float = 0.8,
    known: Evidence | None = None,
    **evidence: float | int | str | None,
) -> Finding:
    """A finding of the catalogue; its evidence is `known` and the named values, rounded to five digits; what is not finite is left out."""
    values = {**(known or {}), **evidence}
    shown = {key: _rounded(value) for key, value in values.items()}
    severity = CATALOGUE[code].severity
    return Finding(code=code, severity=severity, meaning=meaning, evidence=shown, advice=advice, confidence=confidence)


def _rounded(value: float | int | str | None) -> float | int | str | None:
    if not isinstance(value, float):
        return value
    return float(f"{value:.5g}") if math.isfinite(value) else None


def shown_evidence(finding: Finding) -> list[tuple[str, str]]:
    """(name, value) of the evidence in words: whole numbers in full, others with four digits."""
    return [
        (name.replace("_", " "), f"{value:.0f}" if isinstance(value, float) and _is_whole(value) else _short(value))
        for name, value in finding.evidence.items()
        if value is not None
    ]


def _is_whole(value: float) -> bool:
    return value == round(value) and 10 <= abs(value) < 1e12


def _short(value: float | int | str) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def rank_of(finding: Finding) -> int:
    """Place in the order in which findings decide the verdict."""
    return CATALOGUE[finding.code].rank
