"""Does anything train at all? Steps that were left out, a rate of nothing, losses that repeat, a loss that does not move."""

from __future__ import annotations

import math

import numpy as np

from finestep.diagnosis.catalogue import found
from finestep.diagnosis.chance import UNIGRAM_RANGE
from finestep.diagnosis.curves import LossCurve
from finestep.diagnosis.signals import Signals
from finestep.diagnosis.thresholds import Thresholds
from finestep.diagnosis.training_log import Column
from finestep.finding import Finding

MOST_SKIPPED = 0.5
"""Share of the steps left out from which no run learns."""
ALL_ZERO = 0.9
LONGEST_PERIOD = 5000
SAME_DIGITS = 2e-4
"""Relative difference of two printed losses that are the same."""
MIN_ROWS_OF_STANDING, NORM_STANDS, MOST_SPREAD, STILL_MUCH = 20, 0.05, 0.02, 1.0
"""Rows; relative change of the gradient norm; spread of the rows; and nats that are left, of a run in which nothing moves."""
PLATEAU_FROM, PLATEAU_MOVE, PLATEAU_EVAL_MOVE, IGNORANT_LOSS = 0.1, 0.03, 0.01, 4.0
"""A loss (validation, nats) this high that moves so little after a tenth of the run has learned nothing more than frequencies."""


def motion_findings(signals: Signals, limits: Thresholds) -> list[Finding]:
    """The first reason for which nothing is learned."""
    checks = (_skipped, _no_rate, _no_labels, _repeats, _constant, _plateau)
    return [finding for check in checks if (finding := check(signals, limits)) is not None][:1]


def _skipped(signals: Signals, limits: Thresholds) -> Finding | None:
    skipped = signals.log.context.num_skipped_steps or 0
    steps = signals.progress.last_step
    if skipped < 10 or not skipped >= MOST_SKIPPED * steps:
        return None
    return found(
        "steps_skipped",
        f"{skipped} of {steps:.0f} steps were left out because gradients overflowed: the weights hardly move.",
        advice="train in bf16, or in fp16 with fp32 master weights; the learning rate is not the problem",
        skipped_steps=skipped,
        last_step=steps,
    )


def _no_rate(signals: Signals, limits: Thresholds) -> Finding | None:
    rates = signals.log.train.learning_rate
    known = rates[np.isfinite(rates)]
    if len(known) < 3 or known.max() > 0:
        return None
    # A small rate that is printed with three decimals reads 0.000: what moves is trained.
    curve = signals.loss
    moves = curve is not None and abs(curve.whole.t) > limits.trend_t
    if moves or signals.log.context.objective != "supervised":
        return None
    meaning = "The learning rate is 0 in every row: no weight is changed."
    return found(
        "nothing_trained", meaning, advice="check the scheduler and the optimizer's parameters", learning_rate=0.0
    )


def _no_labels(signals: Signals, limits: Thresholds) -> Finding | None:
    """Loss and gradient norm are exactly 0: nothing carries loss, and no number broke."""
    train = signals.log.train
    norms = train.grad_norm
    both = (train.loss == 0.0) & (norms == 0.0)
    if signals.log.context.objective != "supervised" or len(both) < 2 or both.mean() < ALL_ZERO:
        return None
    return found(
        "no_labels",
        "Loss and gradient norm are exactly 0: no token carries loss, so nothing is trained.",
        advice="decode one training row with its label mask: the answers are masked, cut off, or in a column that is not read",
        rows=int(both.sum()),
    )


def _repeats(signals: Signals, limits: Thresholds) -> Finding | None:
    """Each epoch shows the same losses, digit for digit: no weight moved between them."""
    loss = signals.log.train.loss
    period = _period(loss[np.isfinite(loss)])
    if period is None:
        return None
    return found(
        "nothing_trained",
        f"The same {period} losses come again in every epoch, digit for digit: no weight is updated.",
        advice="check that the optimizer steps, that it holds the trained parameters, and that they require gradients",
        period=period,
        rows=len(loss),
    )


def _period(loss: Column) -> int | None:
    """Rows after which the losses repeat; None when they do not, or do not differ among themselves."""
    if len(loss) < 8 or not loss.min() > 0 or np.ptp(loss) < 50 * SAME_DIGITS * loss.max():
        return None
    for period in np.flatnonzero(np.isclose(loss[1 : 1 + LONGEST_PERIOD], loss[0], rtol=SAME_DIGITS)) + 1:
        if 3 <= period <= len(loss) // 2 and np.allclose(loss[period:], loss[:-period], rtol=SAME_DIGITS):
            return int(period)
    return None


def _constant(signals: Signals, limits: Thresholds) -> Finding | None:
    curve = signals.loss
    if curve is None or curve.num_rows < limits.min_rows or signals.log.context.objective == "reinforcement":
        return None
    # A loss that takes both signs has no ratio, so it counts as moving.
    moves = abs(curve.end / curve.start - 1) if curve.start > 0 else 1.0
    evaluation = signals.evaluation
    eval_moves = abs(evaluation.last / evaluation.first - 1) if evaluation and evaluation.first > 0 else 0.0
    if max(curve.spread, moves, eval_moves) <= limits.stuck.flat_spread:
        meaning = "The loss does not move at all, to the third digit: no weight is being trained."
    elif _stands_with_its_gradients(signals, curve, max(moves, eval_moves), limits):
        meaning = (
            "From the first row to the last neither the loss nor the gradient norm moves: no weight is being trained."
        )
    else:
        return None
    return untrained(
        meaning,
        loss=curve.end,
        spread=curve.spread,
        grad_norm=signals.gradient.median if signals.gradient else None,
    )


def untrained(meaning: str, *, code: str = "nothing_trained", **evidence: float | None) -> Finding:
    """No weight moves; `meaning` says what shows it."""
    advice = "check `requires_grad`, the adapter's target modules, the optimizer's parameters and the label mask"
    return found(code, meaning, advice=advice, known={**evidence})


def _stands_with_its_gradients(signals: Signals, curve: LossCurve, moves: float, limits: Thresholds) -> bool:
    """Rows differ only by their batches, and gradients keep their size. Weights that move change at least one of the two in hundreds of
    steps: a loss that has nothing left to gain has gradients that shrink, or a level that drifts."""
    gradient = signals.gradient
    if (
        gradient is None
        or curve.num_rows < MIN_ROWS_OF_STANDING
        or not signals.progress.last_step >= 3 * limits.few_steps
    ):
        return False
    # The trend over the whole run, because first and last rows may agree by chance.
    drift = abs(curve.whole.change) / max(curve.end, 1e-12)
    norms_stand = gradient.num_not_finite == 0 and abs(gradient.last_to_first - 1) < NORM_STANDS
    return bool(
        max(moves, drift) < limits.stuck.flat_spread / 2
        and curve.spread < MOST_SPREAD
        and norms_stand
        and curve.end > STILL_MUCH
    )


def _plateau(signals: Signals, limits: Thresholds) -> Finding | None:
    """After its first tenth nothing moves any more, at a level at which the model knows hardly anything."""
    curve, evaluation = signals.loss, signals.evaluation
    if (
        curve is None
        or curve.num_rows < 30
        or evaluation is None
        or evaluation.num_rows < 2
        or not evaluation.best > IGNORANT_LOSS
    ):
        return None
    if UNIGRAM_RANGE[0] <= evaluation.best <= UNIGRAM_RANGE[1]:
        return None  # Token frequencies alone: a question of the rate, which comes later.
    # The first tenth may fall from a wrong format to the level of frequencies.
    later = curve.smooth[int(PLATEAU_FROM * curve.num_rows) :]
    eval_moves = abs(evaluation.last / evaluation.first - 1)
    moves = float(np.median(later[: len(later) // 4])) / max(float(np.median(later[-len(later) // 4 :])), 1e-12) - 1
    # Evaluations of the end alone cannot show that nothing moved before.
    is_early = signals.log.evaluation is not None and signals.log.evaluation.step[0] < 0.6 * signals.progress.last_step
    if abs(moves) > PLATEAU_MOVE or eval_moves > PLATEAU_EVAL_MOVE or not is_early or not math.isfinite(moves):
        return None
    return found(
        "stuck_at_plateau",
        f"After its first steps nothing moves any more: validation loss {evaluation.first:.3g} and {evaluation.last:.3g}. The answers do "
        "not follow from what the model sees.",
        advice="decode a few rows: do answer and input belong together, and which tokens carry loss? The rate is not the problem",
        first_eval_loss=evaluation.first,
        last_eval_loss=evaluation.last,
    )
