"""Overfitting, memorising and forgetting; early stopping judged with paired standard errors."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from finestep.diagnosis.catalogue import Evidence, found
from finestep.diagnosis.metrics import MetricCurve
from finestep.diagnosis.signals import EvalCurve, LossCurve, Signals
from finestep.diagnosis.thresholds import Thresholds
from finestep.finding import Finding

MIN_GAIN = 0.002
"""Smallest drop of the validation loss, in nats, that counts as gain. Source: science notes 8."""

MANY_EVALUATIONS = 10
"""With more, one above the lowest at the end is a blip: overfitting does not come within a tenth of a run."""

USUAL_OF = 5
"""Evaluations whose median is their usual level."""

FORGETTING_BUDGET = 0.1
"""KL divergence from the base model in nats per token that is usually tolerated. Source: science notes 8
(judgement)."""

STAIR, SMALL_STAIR, STAIRS_SHARE, MAX_BORDERS = 0.25, 0.05, 0.45, 100
"""Drops at two epoch borders, and the end over the first epoch's level, that mean learning by heart; a drop worth a remark."""
MANY_EPOCHS, NEXT_TO_NOTHING = 20.0, 0.01
"""After so many epochs a loss of that share of its first level is learned by heart, whatever its scale."""
MEMORISED_FROM = 0.5
"""First-epoch losses below this (nats) are no text generation; their fall to zero proves nothing."""


def generalization_findings(signals: Signals, limits: Thresholds) -> list[Finding]:
    """Overfitting by the validation loss, or memorising by the training loss alone."""
    if signals.log.context.objective == "reinforcement":
        return []
    evaluation, metric = signals.evaluation, signals.metric
    if evaluation is not None and evaluation.num_rows >= 2:
        finding = _overfitting(signals, evaluation, limits)
    elif metric is not None:
        finding = _metric_fell(signals, metric, limits)
    else:
        finding = _memorised(signals, limits)
    return [finding] if finding else []


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
    evidence: Evidence = {
        "best_step": evaluation.best_step, "best_eval_loss": evaluation.best, "last_eval_loss": evaluation.last,
        "rise": evaluation.rise, "evaluations_after_best": evaluation.num_after_best,
    }  # fmt: skip
    if min(evaluation.rise, _usual_rise(signals)) < needed:
        return _past_its_best(evaluation, evidence) if evaluation.rise > 0.005 else None
    metric = signals.metric
    if metric is not None and metric.is_best_at_end and _metric_decides(metric, evaluation, limits):
        return _parted(metric, evidence)
    step, by = _step_to_keep(evaluation, metric)
    epoch = _epoch_at(signals, step)
    where = f" (epoch {epoch:.2g})" if epoch is not None else ""
    return found(
        "overfitting",
        f"The validation loss has risen by {100 * evaluation.rise:.0f} % since step {evaluation.best_step:.0f} while the training loss "
        f"fell{by}.",
        advice=f"keep step {step:.0f}{where}; the next run needs no more steps than that",
        known={**evidence, "keep_step": step},
    )


def _usual_rise(signals: Signals) -> float:
    """Rise of the usual level of the last evaluations above the lowest such level: of many evaluations the single lowest is a lucky one."""
    series = signals.log.evaluation
    known = series.loss[np.isfinite(series.loss)] if series is not None else np.empty(0)
    if len(known) < 2 * MANY_EVALUATIONS:
        return math.inf
    levels = np.median(np.lib.stride_tricks.sliding_window_view(known, USUAL_OF), axis=1)
    return float(levels[-1] / levels.min() - 1) if levels.min() > 0 else math.inf


def _metric_decides(metric: MetricCurve, evaluation: EvalCurve, limits: Thresholds) -> bool:
    """True when the metric gained clearly since the loss was lowest, or when the loss has risen by next to nothing."""
    return (
        evaluation.rise < limits.overfit_despite_metric
        or metric.error_cut_since(evaluation.best_step) > limits.clear_error_cut
    )


def _step_to_keep(evaluation: EvalCurve, metric: MetricCurve | None) -> tuple[float, str]:
    """The one step that is named: that of the best task metric, where there is one, otherwise of the lowest validation loss."""
    if metric is None:
        return evaluation.best_step, ""
    if metric.best_step == evaluation.best_step:
        return metric.best_step, f"; {metric.name} was best there too"
    return metric.best_step, f"; {metric.name} was best at step {metric.best_step:.0f}, and it counts"


def _parted(metric: MetricCurve, evidence: Evidence) -> Finding:
    """The loss rises and the metric does not fall: surer probabilities, no worse answers."""
    return found(
        "loss_and_metric_part",
        f"The validation loss rises, but {metric.name} is as good as ever at the end, and it counts: answers are no worse, only too sure.",
        advice=f"keep step {metric.last_step:.0f}",
        known={**evidence, "keep_step": metric.last_step},
    )


def _metric_fell(signals: Signals, metric: MetricCurve, limits: Thresholds) -> Finding | None:
    """Without a validation loss: the metric was better before, and the training loss has fallen to a fraction since."""
    curve = signals.loss
    if (
        metric.is_best_at_end
        or metric.num_after_best < 2
        or curve is None
        or not metric.loss_since_best > limits.overfit_rise / 2
    ):
        return None
    if curve.end > limits.memorised_share * curve.start:
        return None
    return found(
        "overfitting",
        f"{metric.name} was best at step {metric.best_step:.0f} ({metric.best:.3g}, now {metric.last:.3g}) while the training loss fell to "
        f"{curve.end:.2g}.",
        advice=f"keep step {metric.best_step:.0f}; the next run needs no more steps than that",
        keep_step=metric.best_step,
        best=metric.best,
        last=metric.last,
    )


def _past_its_best(evaluation: EvalCurve, evidence: Evidence) -> Finding:
    meaning = f"The validation loss was lowest at step {evaluation.best_step:.0f}."
    return found("past_its_best", meaning, advice=f"keep step {evaluation.best_step:.0f}", known=evidence)


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
    """Without any validation: the training loss fell far below its first epoch, over many epochs or in stairs at their borders."""
    curve, epochs = signals.loss, signals.progress.epochs
    if (
        curve is None
        or curve.num_rows < limits.min_rows
        or signals.log.context.objective != "supervised"
        or not epochs >= 2
    ):
        return None
    level = _first_epoch_level(signals, curve)
    share = curve.end / level if level > 0 else 1.0
    drops = _border_drops(signals, curve)
    by_heart = epochs >= limits.memorised_epochs and level >= MEMORISED_FROM and share <= limits.memorised_share
    by_heart = by_heart or (epochs >= MANY_EPOCHS and share <= NEXT_TO_NOTHING)
    in_stairs = sum(drop >= STAIR for drop in drops) >= 2 and share < STAIRS_SHARE
    if not (by_heart or in_stairs):
        return _stairs(drops)
    from_epoch = next((number for number, drop in enumerate(drops, start=2) if drop >= STAIR / 2), None)
    since = f" from epoch {from_epoch} on" if from_epoch else ""
    how = (
        f"in stairs at the epoch borders, from {level:.3g} to {curve.end:.2g}"
        if in_stairs
        else f"from {level:.3g} to {curve.end:.2g}"
    )
    return found(
        "memorised",
        f"Over {epochs:.0f} epochs the training loss fell {how}: the rows are learned by heart{since}.",
        advice="train 1-3 epochs and hold back validation rows to see where it turns",
        epochs=epochs,
        first_epoch_loss=level,
        last_loss=curve.end,
    )


def _stairs(drops: list[float]) -> Finding | None:
    """Steps of a size that is worth a word, and proves nothing."""
    largest = max(drops, default=0.0)
    if largest < SMALL_STAIR:
        return None
    meaning = (
        f"The training loss drops by {100 * largest:.0f} % at an epoch border: rows that come again are recognised."
    )
    return found("stairs", meaning, advice="hold back validation rows before adding epochs", largest_drop=largest)


def _first_epoch_level(signals: Signals, curve: LossCurve) -> float:
    """Usual loss of the first epoch's later half, or the first row where that epoch has none."""
    epoch = signals.log.train.epoch[curve.rows]
    loss = signals.log.train.loss[curve.rows]
    first = loss[epoch <= 1.05]
    return float(np.median(first)) if len(first) else max(curve.first, curve.start)


def _border_drops(signals: Signals, curve: LossCurve) -> list[float]:
    """Relative drop at each epoch border, between the fifths of an epoch before and after it, beyond the slope inside the epochs."""
    epoch, loss = signals.log.train.epoch[curve.rows], signals.log.train.loss[curve.rows]
    if not np.isfinite(epoch).all() or epoch[-1] < 1.2:
        return []
    drops = []
    for border in range(1, min(math.ceil(epoch[-1] - 0.2), MAX_BORDERS)):
        before, after = (
            loss[(epoch > border + low) & (epoch <= border + high)] for low, high in ((-0.25, 0.0), (0.02, 0.25))
        )
        inside = loss[(epoch > border - 0.6) & (epoch <= border - 0.25)]
        if min(len(before), len(after), len(inside)) < 3 or not np.median(before) > 0:
            continue
        slope = max(0.0, 1 - float(np.median(before) / max(float(np.median(inside)), 1e-12)))
        drops.append(1 - float(np.median(after) / np.median(before)) - slope)
    return drops


def _epoch_at(signals: Signals, step: float) -> float | None:
    series = signals.log.evaluation
    if series is None:
        return None
    rows = np.flatnonzero(series.step == step)
    epoch = float(series.epoch[rows[0]]) if len(rows) else math.nan
    return epoch if math.isfinite(epoch) else None
