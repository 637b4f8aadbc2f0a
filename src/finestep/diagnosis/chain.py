"""The chain of questions that makes a verdict: asked in order, the first that is answered with a fault decides.

First the run, then the rate: each question is only meaningful when those before it found nothing. `EXCLUSIONS` names what is not said
beside what, because the advice would be the opposite. docs/diagnose.md explains the same order to users.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from finestep.diagnosis.catalogue import NEVER, Evidence, found, rank_of
from finestep.diagnosis.first_loss import first_loss_findings
from finestep.diagnosis.generalization import generalization_findings
from finestep.diagnosis.known_rate import known_rate_findings
from finestep.diagnosis.length import length_findings
from finestep.diagnosis.motion import motion_findings
from finestep.diagnosis.numerics import evaluation_findings, numerical_findings, rate_before
from finestep.diagnosis.objective import objective_findings
from finestep.diagnosis.remarks import remarks
from finestep.diagnosis.signals import Signals
from finestep.diagnosis.stability import stability_findings
from finestep.diagnosis.stuck import stuck_findings
from finestep.diagnosis.thresholds import Thresholds
from finestep.diagnosis.too_good import too_good_findings
from finestep.finding import Finding

FEW_ROWS, ENOUGH_EVALUATIONS = 8, 3
"""Rows (training and validation together) below which a run without a fault is not called healthy, unless it is known to be whole or
was evaluated so often."""

Check = Callable[[Signals, Thresholds], list[Finding]]


class Question(NamedTuple):
    """One question; `ends` when an answer leaves nothing to ask about the run's shape."""

    words: str
    check: Check
    ends: bool = False


def _numbers(signals: Signals, limits: Thresholds) -> list[Finding]:
    return rate_before(signals, numerical_findings(signals, limits))


def _lost(signals: Signals, limits: Thresholds) -> list[Finding]:
    return stuck_findings(signals, limits) + stability_findings(signals, limits)


def _enough(signals: Signals, limits: Thresholds) -> list[Finding]:
    train, evals = signals.num_rows, signals.num_evaluations
    if (train >= 3 or evals >= 4) and train + evals >= limits.min_rows:
        return []
    found_in_it = "No training loss was" if not train else f"{train} training rows were"
    return [
        found(
            "too_little_information",
            f"{found_in_it} found in the log, beside {evals} evaluations: too little to judge.",
            advice="log every 1-10 steps (`logging_steps`) and evaluate at least 4 times",
            train_rows=train,
            evaluations=evals,
        )
    ]


QUESTIONS: tuple[Question, ...] = (
    Question("Are the numbers sound?", _numbers, ends=True),
    Question("Does anything train?", motion_findings, ends=True),
    Question("Is there enough to judge?", _enough, ends=True),
    Question("Is the run lost?", _lost),
    Question("Is it too good to be true?", too_good_findings),
    Question("What does its objective say?", objective_findings),
    Question("Does it generalise?", generalization_findings),
    Question("Were rate, warmup and length enough?", length_findings),
    Question("Is the rate a usual one?", known_rate_findings),
    Question("Is the evaluation sound?", lambda signals, limits: evaluation_findings(signals)),
)

_LOST = frozenset({"diverged", "stuck_high_rate", "stuck_at_chance", "unstable", "reward_fell", "worse_than_base"})
_NOTHING_LEARNED = frozenset({
    "nothing_trained", "no_labels", "steps_skipped", "stuck_at_plateau", "reward_not_gained", "preference_not_learned", "answers_cut_off",
    "no_reward_signal",
})  # fmt: skip
_TOO_LONG = frozenset({"overfitting", "memorised", "past_its_best", "loss_and_metric_part"})
_TOO_SHORT = frozenset({"undertrained", "warmup_never_ended", "already_converged"})
_TOO_LOW = frozenset({"learning_rate_too_low", "rate_below_usual", "preference_rate_too_low"})
_TOO_HIGH = frozenset({"rate_above_usual", "warmup_too_short"})

EXCLUSIONS: dict[str, frozenset[str]] = {
    **dict.fromkeys(_LOST, _TOO_LONG | _TOO_SHORT | _TOO_LOW | {"too_good", "spike_recovered"}),
    **dict.fromkeys(
        _NOTHING_LEARNED, _TOO_LONG | _TOO_SHORT | _LOST | _TOO_HIGH | _TOO_LOW | {"too_good", "spike_recovered"}
    ),
    **dict.fromkeys(_TOO_LONG, _TOO_SHORT | _TOO_LOW),
    **dict.fromkeys(_TOO_LOW, _TOO_HIGH | {"already_converged", "undertrained", "rate_far_below_usual"}),
    "warmup_never_ended": _TOO_LOW | {"undertrained", "warmup_too_long"},
    "undertrained": _TOO_LONG | {"learning_rate_too_low", "already_converged"},
    "learning_rate_too_low": _TOO_LONG
    | {"undertrained", "already_converged", "rate_below_usual", "rate_far_below_usual"}
    | _TOO_HIGH,
    "too_good": _TOO_SHORT | _TOO_LOW | {"overfitting", "memorised", "past_its_best"},
    "data_changed": _TOO_SHORT | _TOO_LOW | {"overfitting", "past_its_best"},
    "unexplained_rise": _TOO_SHORT | _TOO_LOW | {"overfitting", "past_its_best"},
    "too_little_information": _TOO_LONG | _TOO_SHORT | _TOO_LOW | _LOST | {"no_evaluation"},
    "healthy": frozenset({"no_evaluation"}),
}
"""Code -> codes that are not said beside it; of two that exclude each other the earlier answer stays."""


def all_findings(signals: Signals, limits: Thresholds) -> list[Finding]:
    """The answers in the order of what decides, the verdict first, and then the remarks."""
    answers: list[Finding] = []
    for question in QUESTIONS:
        answers += question.check(signals, limits)
        if question.ends and any(rank_of(each) < NEVER for each in answers):
            break
    # By rank, because a later question may find the graver fault.
    answers = without_contradictions(sorted(answers, key=rank_of))
    if not any(rank_of(each) < NEVER for each in answers):
        answers.insert(0, healthy(signals))
    beside = first_loss_findings(signals, limits) + remarks(signals, limits)
    return without_contradictions([*answers, *beside])


def without_contradictions(findings: list[Finding]) -> list[Finding]:
    """Leave out each finding that an earlier one excludes, and a second one of the same code."""
    kept: list[Finding] = []
    for finding in findings:
        excluded = any(
            finding.code in EXCLUSIONS.get(before.code, ()) or finding.code == before.code for before in kept
        )
        if not excluded:
            kept.append(finding)
    return kept


def healthy(signals: Signals) -> Finding:
    """No fault was found: said as such when the log could have shown one, and otherwise with what was not found in it."""
    curve, evaluation = signals.loss, signals.evaluation
    numbers: Evidence = {}
    if curve is not None:
        numbers = {"first_loss": curve.start, "last_loss": curve.end}
    if evaluation is not None:
        numbers |= {"best_eval_loss": evaluation.best, "best_step": evaluation.best_step}
    missing = _not_logged(signals)
    rows = signals.num_rows + signals.num_evaluations
    # Few rows of a whole run, or many evaluations, would have shown a fault; few rows of half a run would not.
    could_show = signals.num_evaluations >= ENOUGH_EVALUATIONS or signals.progress.share_done >= 0.9
    if rows < FEW_ROWS and not could_show:
        meaning = f"Nothing wrong can be seen in {rows} rows, which would show little of it."
        return found(
            "too_little_information", meaning, advice=f"log every few steps; {_log_next_time(missing)}", known=numbers
        )
    if not missing:
        return found("healthy", "Nothing is wrong with this run.", known=numbers)
    meaning = f"Nothing wrong can be seen, but {_and(missing)} not found in the log."
    return found("healthy", meaning, advice=_log_next_time(missing), known=numbers)


def _not_logged(signals: Signals) -> list[str]:
    missing = []
    if signals.evaluation is None and signals.metric is None and signals.log.context.objective != "reinforcement":
        missing.append("a validation loss")
    if signals.schedule is None:
        missing.append("the learning rate")
    return missing


def _and(names: list[str]) -> str:
    return " and ".join(names) + (" was" if len(names) == 1 else " were")


def _log_next_time(missing: list[str]) -> str:
    return (
        "hold back rows and evaluate next time" if "a validation loss" in missing else "log the learning rate next time"
    )
