"""Was the learning rate the limit? How the loss answered to the rate that was spent."""

from __future__ import annotations

import math

import numpy as np

from finestep.diagnosis.catalogue import found
from finestep.diagnosis.chance import MOST_IGNORANT, chance_level
from finestep.diagnosis.curves import EvalCurve, LossCurve
from finestep.diagnosis.next_rate import moved
from finestep.diagnosis.signals import Signals, or_none
from finestep.diagnosis.thresholds import Thresholds
from finestep.finding import Finding

LOWEST_USUAL_RATE, FAR_BELOW_SLACK = 1e-6, 1.6
"""Peak rate below which no supervised method is trained in practice; times the limits of a straight response for such a rate."""
IGNORANT_FROM, STILL_IGNORANT, SLOW_SHARE, STILL_FALLS = 4.0, 2.5, 0.55, 0.05
"""Losses (nats a token) of a start and an end with little knowledge; the least share of the start that is left; the least late fall."""
NEAR_A_GUESS = 0.8
"""Loss over that of a guess among the labels, above which a model has learned next to nothing."""
LATE_SHARE = 0.2
"""Share of the whole fall of the validation loss that came in the second half of a run which had not reached a plateau."""
MIN_ROWS_OF_FALL, MIN_STEPS_OF_FALL = 8, 30
USUAL_FOR_ADAPTERS = 1e-4
"""Peak rates above this are not called too low without knowing the model."""
MIN_ROWS_OF_RESPONSE, MOST_LOST_FIRST = 24, 0.1
"""Rows from which the response is looked at; share of the whole gain that noise may show as lost in the first third."""
CALMER = 4.0
"""Scatter of the first quarter of rows over that of the last, in a log of means since the start."""
MIN_EVALUATIONS_OF_RESPONSE = 5


def straight_response(signals: Signals, limits: Thresholds) -> Finding | None:
    """A small fall in all that came no earlier than the rate was spent: per unit of learning rate the loss fell as fast at the
    end as at the start, where a sound run has most of its gain in the first third of the summed rate."""
    curve, schedule, progress = signals.loss, signals.schedule, signals.progress
    if (
        curve is None
        or schedule is None
        or curve.num_rows < MIN_ROWS_OF_RESPONSE
        or not progress.last_step >= limits.few_steps
    ):
        return None
    gain = 1 - curve.end / curve.start if curve.start > 0 else 0.0
    error = max(curve.contrast_error, 0.005)
    clear = gain > limits.level_z * error or (gain > 2 * error and curve.whole.t < -1.5 * limits.trend_t)
    if progress.share_done < 0.9 or not clear or gain > limits.too_low.straight_gain:
        return None
    # A sound run has 85 to 95 % of its gain in the first third of the summed rate; a straight line has a third.
    early, half = (_share_of_gain(signals, part) for part in (1 / 3, 1 / 2))
    # A rate that no method uses needs less of a proof.
    slack = FAR_BELOW_SLACK if schedule.peak < LOWEST_USUAL_RATE else 1.0
    if not (
        -MOST_LOST_FIRST < early < slack * limits.too_low.straight_third and half < slack * limits.too_low.straight_half
    ):
        return None
    if _evaluations_bent(signals, limits.too_low.straight_half) or _calms_down(signals.log.train.loss[curve.rows]):
        return None
    return found(
        "learning_rate_too_low",
        "The loss fell in proportion to the learning rate that was spent and never bent: the learning rate was the limit.",
        advice=f"{moved(signals, 10)}, and refine from there",
        confidence=0.7,
        learning_rate=schedule.peak,
        gain=gain,
        share_of_gain_in_first_third=early,
        share_of_gain_in_first_half=half,
    )


def slow_from_ignorance(signals: Signals, limits: Thresholds) -> Finding | None:
    """A language model that began with next to no knowledge, ended with little, at the end of its schedule, and was falling all along:
    noisy batches hide the shape of the response, but a run that comes so little of its way had too small steps."""
    curve, schedule, progress = signals.loss, signals.schedule, signals.progress
    if curve is None or schedule is None or curve.num_rows < MIN_ROWS_OF_FALL or progress.share_done < 0.9:
        return None
    is_classifier = signals.log.context.num_labels or signals.metric is not None
    far = (
        IGNORANT_FROM < curve.start < MOST_IGNORANT
        and level_of_end(signals, curve) > STILL_IGNORANT
        and curve.end > SLOW_SHARE * curve.start
    )
    if is_classifier or not far or not progress.last_step >= MIN_STEPS_OF_FALL or schedule.peak > USUAL_FOR_ADAPTERS:
        return None
    if not _falls_late(signals, curve):
        return None
    return found(
        "learning_rate_too_low",
        f"The model began with next to no knowledge ({curve.start:.3g} nats) and came only to {curve.end:.3g}, falling all along: the "
        "learning rate was the limit.",
        advice=f"{moved(signals, 10)}, and refine from there",
        learning_rate=schedule.peak,
        first_loss=curve.start,
        last_loss=curve.end,
    )


def level_of_end(signals: Signals, curve: LossCurve) -> float:
    """Loss at the end in nats a token: the validation loss where there is one, because a training loss may be a sum."""
    return signals.evaluation.last if signals.evaluation is not None else curve.end


def _falls_late(signals: Signals, curve: LossCurve) -> bool:
    """The loss fell in the second half too: by the validation loss where that was measured, otherwise beyond the noise of its rows."""
    series = signals.log.evaluation
    known = series.loss[np.isfinite(series.loss)] if series is not None else np.empty(0)
    if len(known) >= 3:
        return bool(known[len(known) // 2 - 1] - known[-1] > LATE_SHARE * (known[0] - known[-1]) > 0)
    # Not the first quarter: there any run falls.
    quarters = np.array_split(signals.log.train.loss[curve.rows], 4)
    before, now = float(np.mean(quarters[1])), float(np.mean(quarters[3]))
    error = math.hypot(*(float(np.std(q, ddof=1)) / math.sqrt(len(q)) for q in (quarters[1], quarters[3])))
    return before - now > max(STILL_FALLS * before, 1.5 * error)


def _share_of_gain(signals: Signals, part: float) -> float:
    """Share of the whole fall that was there when `part` of the summed learning rate was spent; NaN when rates are not logged.

    Read off the validation loss where that was measured often and from the start: it has a fraction of the noise of single batches.
    """
    train = signals.log.train
    known = np.isfinite(train.learning_rate)
    rates, steps = train.learning_rate[known], train.step[known]
    if known.mean() < 0.9 or len(steps) < MIN_ROWS_OF_RESPONSE or rates.max() <= 0 or steps[-1] <= steps[0]:
        return math.nan
    # The area under the schedule up to each row: what a changing rate has done so far.
    spent = np.cumsum(rates * np.gradient(steps))
    place = float(steps[min(int(np.searchsorted(spent, part * spent[-1])), len(steps) - 1)])
    series = signals.log.evaluation
    if series is not None and signals.num_evaluations >= MIN_EVALUATIONS_OF_RESPONSE and series.step[0] <= steps[0]:
        loss = series.loss
        return (
            float((loss[0] - np.interp(place, series.step, loss)) / (loss[0] - loss[-1]))
            if loss[0] > loss[-1]
            else math.nan
        )
    return _share_of_training_gain(signals, place)


def _evaluations_bent(signals: Signals, limit: float) -> bool:
    """Between the first and the last evaluation most of the gain came in the first half of the rate that was spent there: rows of the
    training loss may be smoothed by the logger, and then they lag behind."""
    train, series = signals.log.train, signals.log.evaluation
    rates = np.nan_to_num(train.learning_rate)
    if series is None or signals.num_evaluations < MIN_EVALUATIONS_OF_RESPONSE or not rates.sum() > 0:
        return False
    known = np.isfinite(series.loss)
    loss, step = series.loss[known], series.step[known]
    spent = np.interp(step, train.step, np.cumsum(rates * np.gradient(train.step)))
    gained = loss[0] - np.interp(0.5 * (spent[0] + spent[-1]), spent, loss)
    return bool(gained > limit * (loss[0] - loss[-1]) > 0)


def _calms_down(loss: np.ndarray) -> bool:
    """Rows scatter ever less from the first to the last quarter: they are means since the start, which bend late whatever the run does."""
    scatter = [float(np.median(np.abs(np.diff(part, 2)))) for part in np.array_split(loss, 4) if len(part) > 3]
    return len(scatter) == 4 and scatter[0] > CALMER * scatter[-1] and scatter[0] > scatter[1] > scatter[2]


def _share_of_training_gain(signals: Signals, place: float) -> float:
    """The same from the training loss around a step."""
    curve = signals.loss
    assert curve is not None
    loss = signals.log.train.loss[curve.rows]
    row = int(np.searchsorted(signals.log.train.step[curve.rows], place))
    width = max(1, curve.num_rows // 10)
    window = loss[max(0, row - width) : row + width + 1]
    # The share that chance may add to, so that noisy rows prove nothing.
    error = 1.2533 * curve.noise * curve.median * math.sqrt(1 / len(window) + 1 / 3) / 2
    return (curve.start - float(np.median(window)) + error) / (curve.start - curve.end)


def rate_was_the_limit(
    signals: Signals, curve: LossCurve | None, evaluation: EvalCurve | None, limits: Thresholds
) -> bool:
    """A long budget, a small gain in all, and a model that was ignorant at first and is so in the end."""
    epochs = signals.progress.epochs
    if not epochs >= limits.too_low.small_gain_epochs or signals.progress.share_done < 0.9:
        return False
    judged_by = evaluation or curve
    if judged_by is None:
        return False
    first = judged_by.first if isinstance(judged_by, EvalCurve) else judged_by.start
    last = judged_by.last if isinstance(judged_by, EvalCurve) else judged_by.end
    small = first > 0 and 1 - last / first < limits.too_low.small_gain
    is_falling = curve is None or curve.num_rows < limits.min_rows or curve.whole.change < 0
    return small and is_falling and _is_ignorant_all_along(signals, first, last)


def _is_ignorant_all_along(signals: Signals, first: float, last: float) -> bool:
    """Near a uniform guess at first and at the end, or above 4 nats: a pre-trained model on its own task begins lower and rightly gains
    little, and one that has left its guess behind has learned."""
    if first > IGNORANT_FROM:
        return True
    chance = chance_level(first, tolerance=0.1, num_labels=signals.log.context.num_labels, vocabulary_size=None)
    return chance is not None and last > NEAR_A_GUESS * chance.loss


def too_low_finding(signals: Signals, drop: float) -> Finding:
    schedule = signals.schedule
    return found(
        "learning_rate_too_low",
        "After many epochs the loss has fallen little and is still falling: the learning rate was the limit.",
        advice=f"{moved(signals, 3)}",
        confidence=0.65,
        learning_rate=or_none(schedule.peak if schedule else math.nan),
        epochs=or_none(signals.progress.epochs),
        last_drop=drop,
    )
