"""Overfitting, memorising and forgetting; early stopping judged with paired standard errors."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from finestep.diagnosis.catalogue import Evidence, found
from finestep.diagnosis.signals import EvalCurve, LossCurve, Signals
from finestep.diagnosis.thresholds import Thresholds
from finestep.finding import Finding

MIN_GAIN = 0.002
"""Smallest drop of the validation loss, in nats, that counts as gain. Source: science notes 8."""

MANY_EVALUATIONS = 10
"""With more, one above the lowest at the end is a blip: overfitting does not come within a tenth of a run."""

FORGETTING_BUDGET = 0.1
"""KL divergence from the base model in nats per token that is usually tolerated. Source: science notes 8
(judgement)."""

MEMORISED_FROM = 0.5
"""First-epoch losses below this (nats) are no text generation; their fall to zero proves nothing."""


def generalization_findings(signals: Signals, limits: Thresholds) -> list[Finding]:
    """Overfitting by the validation loss, or memorising by the training loss alone."""
    if signals.log.context.objective == "reinforcement":
        return []
    evaluation = signals.evaluation
    if evaluation is None or evaluation.num_rows < 2:
        return [finding for finding in (_memorised(signals, limits),) if finding]
    return [finding for finding in (_overfitting(signals, evaluation, limits),) if finding]


def paired_gain(
    before: Sequence[float], after: Sequence[float], units: Sequence[float] | None = None
) -> tuple[float, float]:
    """Drop of the loss between two evaluations on the same rows, and its standard error.

    Without `units` the values are losses of rows, all alike; with `units` (tokens of each row) they are sums over each row, and
    the drop is in nats a token. Pairing removes the spread between rows, which is 5-20 times larger. Source: science notes 8;
    Miller, arXiv 2411.00640.

    >>> paired_gain([2.0, 4.0, 9.0], [1.0, 3.0, 8.0])
    (1.0, 0.0)
    """
    difference = np.asarray(before, dtype=float) - np.asarray(after, dtype=float)
    if not len(difference):
        return 0.0, math.inf
    mean_units = 1.0 if units is None else float(np.mean(units))
    drop = float(difference.mean()) / mean_units
    if len(difference) < 2:
        return drop, math.inf
    # Rows with more tokens weigh more: the error of a ratio of sums (Cochran, Sampling Techniques, 6.4).
    weights = np.ones(len(difference)) if units is None else np.asarray(units, dtype=float) / mean_units
    spread = difference / mean_units - drop * weights
    return drop, float(spread.std(ddof=1) / math.sqrt(len(difference)))


def is_progress(
    reference: Sequence[float] | None, now: Sequence[float], units: Sequence[float], *, min_gain: float = 0.0
) -> bool:
    """True when the validation loss fell by more than noise since the reference, the last evaluation that was progress.

    Small steps add up, because the reference stays until they are progress together. Values are sums over each row.
    """
    if reference is None or len(reference) != len(now) or not np.isfinite(reference).all():
        return True
    drop, error = paired_gain(reference, now, units)
    return drop > max(smallest_gain(error), min_gain)


def smallest_gain(standard_error: float) -> float:
    """Drop of the validation loss that counts as progress: two paired standard errors, at least 0.002 nats."""
    return max(2 * standard_error, MIN_GAIN)


def should_stop(losses: Sequence[float], *, patience: int, min_gain: float) -> bool:
    """True when the last `patience` evaluations brought no gain over the best before them.

    >>> should_stop([2.0, 1.5, 1.51, 1.55, 1.6], patience=3, min_gain=0.002)
    True
    """
    if len(losses) <= patience:
        return False
    best_before = min(losses[:-patience])
    return min(losses[-patience:]) > best_before - min_gain


def forgetting_findings(kl_nats: float, *, budget: float = FORGETTING_BUDGET) -> list[Finding]:
    """Too far from the base model on general text."""
    if not kl_nats > budget:
        return []
    return [
        found(
            "forgetting",
            f"On general text the model has moved {kl_nats:.3g} nats per token away from its base (budget {budget:g}).",
            advice="lower the learning rate by 2, train less, or use LoRA; expect 2-5 times for full fine-tuning",
            confidence=0.7,
            kl_nats=kl_nats,
            budget=budget,
        )
    ]


def _overfitting(signals: Signals, evaluation: EvalCurve, limits: Thresholds) -> Finding | None:
    """The validation loss ends clearly above its lowest value while the training loss is no higher than it was
    there."""
    if evaluation.num_after_best == 0 or not _train_keeps_falling(signals, evaluation):
        return None
    needed = limits.overfit_rise if evaluation.num_after_best >= 2 else limits.overfit_rise_at_last
    if not (evaluation.num_after_best >= 2 and _learned_by_heart_since(signals, evaluation, limits)):
        needed = max(needed, 3 * min(evaluation.noise, 0.05))
    if evaluation.num_after_best == 1 and evaluation.num_rows > MANY_EVALUATIONS:
        needed = math.inf
    if evaluation.metric_is_best_at_end:
        needed = max(needed, 2 * limits.overfit_rise)
    evidence: Evidence = {
        "best_step": evaluation.best_step, "best_eval_loss": evaluation.best, "last_eval_loss": evaluation.last,
        "rise": evaluation.rise, "evaluations_after_best": evaluation.num_after_best,
    }  # fmt: skip
    if evaluation.rise < needed:
        return _past_its_best(evaluation, evidence) if evaluation.rise > 0.005 else None
    epoch = _epoch_at(signals, evaluation.best_step)
    where = f" (epoch {epoch:.2g})" if epoch is not None else ""
    metric = (
        f"; {evaluation.metric_name} is best at the end, so judge by it" if evaluation.metric_is_best_at_end else ""
    )
    return found(
        "overfitting",
        f"The validation loss rises since step {evaluation.best_step:.0f}{where} while the training loss "
        f"falls{metric}.",
        advice=(
            f"stop at step {evaluation.best_step:.0f}{where} or use that checkpoint; a lower rate or fewer "
            "epochs come next"
        ),
        confidence=0.85 if evaluation.rise > 0.03 else 0.7,
        known=evidence,
    )


def _past_its_best(evaluation: EvalCurve, evidence: Evidence) -> Finding:
    meaning = f"The validation loss was lowest at step {evaluation.best_step:.0f}."
    return found("past_its_best", meaning, advice="keep that checkpoint", confidence=0.5, known=evidence)


def _train_keeps_falling(signals: Signals, evaluation: EvalCurve) -> bool:
    curve = signals.loss
    if curve is None or curve.num_rows < 3:
        return True
    return curve.end <= _train_loss_at_best(signals, curve, evaluation) * (1 + max(0.02, 2 * curve.level_error))


def _learned_by_heart_since(signals: Signals, evaluation: EvalCurve, limits: Thresholds) -> bool:
    """True when the training loss fell to a fraction since the best evaluation: then the two losses part, whatever the noise of single
    evaluations."""
    curve = signals.loss
    if curve is None or curve.num_rows < limits.min_rows or curve.end <= 0:
        return False
    return curve.end < limits.memorised_share * _train_loss_at_best(signals, curve, evaluation)


def _train_loss_at_best(signals: Signals, curve: LossCurve, evaluation: EvalCurve) -> float:
    step = signals.log.train.step[curve.rows]
    at_best = max(int(np.searchsorted(step, evaluation.best_step)), 0)
    return float(np.median(curve.smooth[max(0, at_best - 2) : at_best + 1])) if at_best < len(step) else curve.end


def _memorised(signals: Signals, limits: Thresholds) -> Finding | None:
    curve, epochs = signals.loss, signals.progress.epochs
    if curve is None or not epochs >= limits.memorised_epochs or curve.num_rows < limits.min_rows:
        return None
    epoch = signals.log.train.epoch[curve.rows]
    loss = signals.log.train.loss[curve.rows]
    first_epoch = loss[epoch <= 1.05]
    level = float(np.median(first_epoch)) if len(first_epoch) else curve.first
    if level < MEMORISED_FROM or curve.end > limits.memorised_share * level:
        return None
    return found(
        "memorised",
        f"Over {epochs:.0f} epochs the training loss fell from {level:.3g} to {curve.end:.2g}: the rows are "
        "learned by heart.",
        advice="train 1-3 epochs and hold back validation rows to see where it turns",
        confidence=0.75,
        epochs=epochs,
        first_epoch_loss=level,
        last_loss=curve.end,
    )


def _epoch_at(signals: Signals, step: float) -> float | None:
    series = signals.log.evaluation
    if series is None:
        return None
    rows = np.flatnonzero(series.step == step)
    epoch = float(series.epoch[rows[0]]) if len(rows) else math.nan
    return epoch if math.isfinite(epoch) else None
