"""Does it generalise? Overfitting by the task metric or the validation loss, and by the training loss where nothing else is known."""

from __future__ import annotations

import math

import numpy as np

from finestep.diagnosis.catalogue import Evidence, found
from finestep.diagnosis.curves import EvalCurve, LossCurve
from finestep.diagnosis.memorised import memorised
from finestep.diagnosis.metrics import MetricCurve
from finestep.diagnosis.signals import Signals
from finestep.diagnosis.thresholds import Thresholds
from finestep.finding import Finding

MANY_EVALUATIONS = 10
"""With more, one above the lowest at the end is a blip: overfitting does not come within a tenth of a run."""
USUAL_OF = 5
"""Evaluations whose median is their usual level."""


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
        finding = memorised(signals, limits)
    return [finding] if finding else []


def _overfitting(signals: Signals, evaluation: EvalCurve, limits: Thresholds) -> Finding | None:
    """The validation loss ends clearly above its lowest value while the training loss is no higher than it was
    there."""
    # A training loss that rises too is a sign of the rate, and asked about elsewhere.
    if evaluation.num_after_best == 0 or not _train_keeps_falling(signals, evaluation):
        return None
    # One evaluation above the lowest may be chance; two in a row hardly.
    needed = limits.overfitting.rise if evaluation.num_after_best >= 2 else limits.overfitting.rise_at_last
    # Noisy evaluations need a larger rise, unless the training loss shows that rows were learned by heart since.
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
    # One step only: that of the loss beside that of the metric would leave the reader with two.
    step, by = _step_to_keep(evaluation, metric)
    return overfits({**evidence, "keep_step": step}, by=by, epoch=_epoch_at(signals, step))


def overfits(evidence: Evidence, *, by: str = "", epoch: float | None = None) -> Finding:
    """The validation loss has risen above its lowest value while the training loss fell; one step is named to keep."""
    rise, best_step, keep_step = (float(evidence[name] or 0) for name in ("rise", "best_step", "keep_step"))
    where = f" (epoch {epoch:.2g})" if epoch is not None else ""
    return found(
        "overfitting",
        f"The validation loss has risen by {100 * rise:.0f} % since step {best_step:.0f} while the training loss fell{by}.",
        advice=f"keep step {keep_step:.0f}{where}; the next run needs no more steps than that",
        known=evidence,
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
        evaluation.rise < limits.overfitting.rise_despite_metric
        or metric.error_cut_since(evaluation.best_step) > limits.overfitting.clear_error_cut
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
    if curve is None:
        return _metric_was_better(metric, limits)
    if metric.is_best_at_end or metric.num_after_best < 2 or not metric.loss_since_best > limits.overfitting.rise / 2:
        return None
    if curve.start <= 0 or not 0 <= curve.end <= limits.memorised.share * curve.start:
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


def _metric_was_better(metric: MetricCurve, limits: Thresholds) -> Finding | None:
    """A table of a metric alone: which step to keep, and no cause."""
    if metric.num_after_best < 2 or metric.loss_since_best < limits.overfitting.rise_despite_metric:
        return None
    meaning = f"{metric.name} was best at step {metric.best_step:.0f}: {metric.best:.3g}, now {metric.last:.3g}."
    return found(
        "past_its_best", meaning, advice=f"keep step {metric.best_step:.0f}", best=metric.best, last=metric.last
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
    return curve.end < limits.memorised.share * _train_loss_at_best(signals, curve, evaluation)


def _train_loss_at_best(signals: Signals, curve: LossCurve, evaluation: EvalCurve) -> float:
    step = signals.log.train.step[curve.rows]
    at_best = max(int(np.searchsorted(step, evaluation.best_step)), 0)
    return float(np.median(curve.smooth[max(0, at_best - 2) : at_best + 1])) if at_best < len(step) else curve.end


def _epoch_at(signals: Signals, step: float) -> float | None:
    series = signals.log.evaluation
    if series is None:
        return None
    rows = np.flatnonzero(series.step == step)
    epoch = float(series.epoch[rows[0]]) if len(rows) else math.nan
    return epoch if math.isfinite(epoch) else None
