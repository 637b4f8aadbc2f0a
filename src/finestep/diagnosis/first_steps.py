"""Did the first steps break something? Jumps and explosions at the start that the rest of the run hardly makes good."""

from __future__ import annotations

import math

import numpy as np

from finestep.diagnosis.catalogue import found
from finestep.diagnosis.curves import LossCurve
from finestep.diagnosis.rate_level import ABSURD_RATE, is_far_too_high, lower_rate_advice
from finestep.diagnosis.signals import Signals
from finestep.diagnosis.thresholds import Thresholds
from finestep.finding import Finding

EARLY_CLIMB, NEARLY_ALL, ABOVE_IGNORANCE = 1.25, 0.8, 7.8
NEVER_BETTER, DEAD_BETTER = 0.95, 0.6
"""End of a run over its best first steps that does not make a jump good, also when gradients died in it."""
DEAD_GRADIENTS = 0.15
EXPLOSION_ROWS, NOISE_OF_EXPLOSION = 12, 6.0
FIRST_ROWS = 40
"""Rows among which a jump counts as one of the first steps; more give noise more chances."""


def jumped_at_start(signals: Signals, curve: LossCurve, limits: Thresholds) -> Finding | None:
    """The first steps were good, then the loss jumped, and the rest of the run never did better than those first steps; or
    hardly better, with gradients that died in the jump."""
    loss = signals.log.train.loss[curve.rows]
    if curve.num_rows < 20 or curve.first <= 0:
        return None
    early = loss[: min(max(20, curve.num_rows // 4), FIRST_ROWS)]
    # Five rows against the best three before them: one odd batch is no jump.
    after = _medians(early, 5)
    before = np.minimum.accumulate(_medians(early, 3))[: len(after)]
    if float(before[0]) <= 0 or loss.min() <= 0:
        return None
    place = int(np.argmax(after / np.maximum(before, 1e-12)))
    best, highest = float(before[place]), float(after[place])
    error = 1.2533 * curve.noise * best * math.sqrt(1 / 5 + 1 / 3)
    # Gradients that die in the jump are evidence of their own, so less of it is asked of the loss.
    died = _gradients_died(signals)
    if highest < limits.lost.ratio * best or highest - best < (1 if died else 2) * limits.level_z * error:
        return None
    if curve.end < (DEAD_BETTER if died else NEVER_BETTER) * best:
        return None
    return found(
        "diverged",
        f"The loss jumped from {best:.3g} to {highest:.3g} in the first steps, and the rest of the run hardly made it good: the "
        "learning rate is too high.",
        advice=lower_rate_advice(signals),
        confidence=0.7,
        best_loss=best,
        highest_loss=highest,
        end_loss=curve.end,
    )


def too_high_from_the_start(signals: Signals, curve: LossCurve, limits: Thresholds) -> Finding | None:
    """A rate far above any usual one, and a sign that the first steps broke something: the loss climbed or began above ignorance, or
    gradients died. The run may come down again, to what a model without its knowledge reaches."""
    schedule = signals.schedule
    if schedule is None or curve.num_rows < limits.min_rows or not is_far_too_high(signals):
        return None
    loss, base = signals.log.train.loss[curve.rows], _base_loss(signals)
    begin = min(curve.first, base or math.inf)
    highest = float(loss[: max(4, curve.num_rows // 4)].max())
    signs = {
        "the loss climbed": begin > 0 and highest > max(EARLY_CLIMB, 1 + 3 * min(curve.noise, 0.2)) * begin,
        "the loss began above ignorance": curve.first > max(ABOVE_IGNORANCE, 1.1 * (base or 0.0)),
        "gradients died": _gradients_fell(signals),
    }
    seen = [words for words, is_seen in signs.items() if is_seen]
    if not seen:
        return None
    is_lost_for_good = schedule.peak >= ABSURD_RATE or curve.end > NEARLY_ALL * begin
    return found(
        "diverged" if is_lost_for_good else "unstable",
        f"At a rate of {schedule.peak:.2g} {' and '.join(seen)} in the first steps: the learning rate is far too high, and what the model "
        "knew is lost.",
        advice=lower_rate_advice(signals, factor=10),
        learning_rate=schedule.peak,
        first_loss=curve.first,
        highest_loss=highest,
        end_loss=curve.end,
        base_loss=base,
    )


def _base_loss(signals: Signals) -> float | None:
    """Loss before the first step: of the first batch, or on the validation rows."""
    context = signals.log.context
    return context.base_train_loss or context.base_eval_loss


def _gradients_fell(signals: Signals) -> bool:
    """The usual gradient norm of the later half is a fraction of the first ones."""
    norms = signals.log.train.grad_norm
    first, late = norms[:3], norms[len(norms) // 2 :]
    first, late = first[np.isfinite(first)], late[np.isfinite(late)]
    return len(first) > 0 and len(late) >= 3 and bool(np.median(late) < DEAD_GRADIENTS * first.max())


def exploded_at_start(signals: Signals, curve: LossCurve, limits: Thresholds) -> Finding | None:
    """Some of the first rows far above the lowest before them and above the untrained model, with gradients far above the next ones:
    the steps were too large for the loss's own slope. The run may come down again; what its first steps had learned is lost."""
    count = min(max(EXPLOSION_ROWS, curve.num_rows // 7), FIRST_ROWS)
    loss, norms = signals.log.train.loss[curve.rows], signals.log.train.grad_norm[curve.rows]
    if curve.num_rows < 3 * EXPLOSION_ROWS or loss[:count].min() <= 0:
        return None
    # Against the lowest so far, because an explosion may follow some good steps.
    lowest = np.minimum.accumulate(loss[:count])
    with np.errstate(over="ignore"):
        ratios = loss[1:count] / lowest[:-1]
    is_high = ratios > max(limits.lost.ratio, 1 + NOISE_OF_EXPLOSION * curve.noise)
    burst = _burst(norms[:count], norms[count : 3 * count])
    is_worse_than_untrained = loss[:count].max() > limits.lost.unstable_ratio * loss[0]
    if is_high.sum() < limits.explosion.rows or not (burst > limits.explosion.grad_ratio and is_worse_than_untrained):
        return None
    row = 1 + int(ratios.argmax())
    return found(
        "unstable",
        f"The loss exploded in the first steps, from {lowest[row - 1]:.3g} to {loss[row]:.3g}, with gradient norms {burst:.0f} times "
        "those of later: the learning rate is too high, or warmup too short.",
        advice=lower_rate_advice(signals),
        confidence=0.75,
        step=_step_at(signals, curve, row),
        lowest_loss=float(lowest[row - 1]),
        highest_loss=float(loss[row]),
        gradient_burst=burst,
    )


def _burst(first: np.ndarray, later: np.ndarray) -> float:
    """Largest gradient norm of the first rows over the usual one later; NaN when they are not known."""
    first, later = first[np.isfinite(first)], later[np.isfinite(later)]
    if len(first) < EXPLOSION_ROWS // 2 or len(later) < EXPLOSION_ROWS // 2 or not np.median(later) > 0:
        return math.nan
    return float(first.max() / np.median(later))


def _step_at(signals: Signals, curve: LossCurve, row: int) -> float | None:
    step = float(signals.log.train.step[curve.rows[row]])
    return step if math.isfinite(step) else None


def _gradients_died(signals: Signals) -> bool:
    """Gradient norms of the second half far below those of the first rows."""
    norms = signals.log.train.grad_norm
    first, late = norms[: max(10, len(norms) // 10)], norms[len(norms) // 2 :]
    first, late = first[np.isfinite(first)], late[np.isfinite(late)]
    return len(first) >= 8 and len(late) >= 8 and bool(np.median(late) < DEAD_GRADIENTS * np.median(first))


def _medians(x: np.ndarray, width: int) -> np.ndarray:
    return np.asarray(np.median(np.lib.stride_tricks.sliding_window_view(x, width), axis=1))
