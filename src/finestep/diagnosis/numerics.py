"""Numerical failures: losses and gradients that are not finite, also where a trainer hides them as zeros."""

from __future__ import annotations

import numpy as np

from finestep.diagnosis.catalogue import NEVER, Evidence, found, rank_of
from finestep.diagnosis.signals import Signals
from finestep.diagnosis.thresholds import Thresholds
from finestep.finding import Finding

SETTLING_ROWS = 10
"""Rows at the start in which an fp16 loss scaler may skip steps while it finds its scale."""
DEAD_ROWS = 3
FEW_GRADIENTS = 30
"""With fewer rows the last two without a finite gradient norm are a failure."""
FROM_A_REAL_LOSS = 0.3
"""Loss (nats) from which exactly 0.0 in the next row is no slide."""

_PRECISION_ADVICE = (
    "train in bf16 with the adapter or master weights in fp32; look at the rows of that batch (empty labels give 0/0); "
    "only then lower the learning rate by 2"
)


def numerical_findings(signals: Signals, limits: Thresholds) -> list[Finding]:
    """Everything about non-finite numbers in the training rows."""
    if not signals.num_rows:
        return []
    checks = (_non_finite_loss, _hidden_nan, _broken_gradients)
    return [finding for check in checks if (finding := check(signals, limits)) is not None][:1]


def evaluation_findings(signals: Signals) -> list[Finding]:
    """An evaluation whose losses are not finite although training is fine."""
    evaluation = signals.log.evaluation
    if evaluation is None or not len(evaluation):
        return []
    bad = int(np.isinf(evaluation.loss).sum())
    if bad == 0:
        return []
    # Single rows without labels give single NaN; most of them point at the evaluation itself.
    share = bad / len(evaluation)
    if share < 0.5:
        return [
            found(
                "evaluation_noisy",
                f"{bad} of {len(evaluation)} evaluations are not finite.",
                advice="check that every validation row has at least one token that carries loss",
                not_finite=bad,
            )
        ]
    return [broken_evaluation(not_finite=bad, evaluations=len(evaluation))]


def broken_evaluation(**evidence: float) -> Finding:
    """Evaluations that are not finite while training is fine."""
    return found(
        "evaluation_broken",
        "The validation loss is not finite while training looks fine: the evaluation is broken, not the model.",
        advice="look for validation rows without any label (all masked or cut off), and evaluate in bf16 or fp32",
        known={**evidence},
    )


def rate_before(signals: Signals, numerical: list[Finding]) -> list[Finding]:
    """A loss that had already risen, or an absurd rate, before the numbers broke: the rate is the cause."""
    if not any(rank_of(finding) < NEVER for finding in numerical):
        return numerical
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


def _non_finite_loss(signals: Signals, limits: Thresholds) -> Finding | None:
    loss = signals.log.train.loss
    broken = np.isinf(loss)
    num = int(broken.sum())
    finite = np.flatnonzero(~broken)
    tail = len(loss) - 1 - int(finite[-1]) if len(finite) else len(loss)
    if tail == 0 and num < limits.numbers.broken_rows_share * len(loss):
        return None
    onset = int(np.flatnonzero(broken)[0])
    step = float(signals.log.train.step[onset])
    return found(
        "non_finite_loss",
        f"The loss is not a finite number from step {step:.0f} on.",
        advice=_PRECISION_ADVICE,
        step=step,
        rows=num,
        loss_before=float(loss[onset - 1]) if onset else None,
    )


def _hidden_nan(signals: Signals, limits: Thresholds) -> Finding | None:
    """HF's `logging_nan_inf_filter` prints NaN as 0.0, so a loss that drops to exactly 0 in one row and stays there
    is NaN."""
    loss = signals.log.train.loss
    if signals.log.context.objective != "supervised":
        return None
    positive = np.flatnonzero(loss != 0.0)
    tail = len(loss) - 1 - int(positive[-1]) if len(positive) else len(loss)
    gradient = signals.gradient
    nan_gradients = gradient is not None and gradient.broken_tail >= min(tail, 1)
    fell_at_once = tail == 1 and len(loss) > 1 and loss[-2] > FROM_A_REAL_LOSS
    norms = signals.log.train.grad_norm[len(loss) - tail :]
    if len(norms) and (norms == 0.0).mean() > 0.5:
        return None  # NaN would show in the gradients; exact zeros mean that nothing carries loss.
    if (tail < 2 and not fell_at_once) or (
        len(positive) and loss[positive[-1]] < limits.numbers.hidden_nan_before and not nan_gradients
    ):
        return None
    step = float(signals.log.train.step[len(loss) - tail])
    return found(
        "hidden_nan",
        f"From step {step:.0f} on the loss is exactly 0.0: that is how the Trainer prints NaN (or every label "
        "is masked).",
        advice=_PRECISION_ADVICE + "; set `logging_nan_inf_filter=False` to see it",
        confidence=0.95 if nan_gradients else 0.8,
        step=step,
        rows=tail,
        loss_before=float(loss[positive[-1]]) if len(positive) else None,
    )


def _broken_gradients(signals: Signals, limits: Thresholds) -> Finding | None:
    gradient = signals.gradient
    if gradient is None or gradient.num_not_finite == 0:
        return None
    share = gradient.num_not_finite / gradient.num_known
    late = gradient.num_not_finite - _settling(signals)
    dead_rows = 2 if gradient.num_known <= FEW_GRADIENTS else DEAD_ROWS
    evidence: Evidence = {
        "not_finite": gradient.num_not_finite,
        "rows": gradient.num_known,
        "worst_in_20_rows": gradient.worst_in_20,
    }
    if share >= limits.numbers.broken_rows_share or gradient.broken_tail >= dead_rows:
        return found(
            "dead_gradients",
            "The gradient norm is not finite in most rows or to the end: no step is taken any more.",
            advice=_PRECISION_ADVICE,
            confidence=0.9,
            known=evidence,
        )
    if late > 0 and gradient.worst_in_20 > limits.numbers.overflow_rows_in_20:
        return overflow(evidence)
    return found(
        "loss_scaler_skips",
        "A few gradient norms are not finite; an fp16 loss scaler does that and it is harmless.",
        confidence=0.9,
        known=evidence,
    )


def overflow(evidence: Evidence) -> Finding:
    """More steps without a finite gradient than a loss scaler skips on its way to its scale."""
    meaning = "Gradients overflow far more often than an fp16 loss scaler causes."
    return found("fp16_overflow", meaning, advice=_PRECISION_ADVICE, known=evidence)


def _settling(signals: Signals) -> int:
    return int(np.isinf(signals.log.train.grad_norm[:SETTLING_ROWS]).sum())
