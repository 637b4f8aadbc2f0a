"""Does it learn, and enough? Nothing trained, too low a rate, ended too early, too good to be true, nothing left to
learn."""

from __future__ import annotations

import math

import numpy as np

from finestep.diagnosis.catalogue import found
from finestep.diagnosis.chance import accumulation_factor, chance_level
from finestep.diagnosis.next_rate import moved
from finestep.diagnosis.signals import EvalCurve, LossCurve, Signals
from finestep.diagnosis.thresholds import Thresholds
from finestep.finding import Finding

LOWEST_USUAL_RATE, FAR_BELOW_SLACK = 1e-6, 1.6
"""Peak rate below which no supervised method is trained in practice; times the limits of a straight response for such a rate."""

MOST_IGNORANT = 12.5
"""Nats of a uniform guess in the largest common vocabulary; a first loss above it shows a wrong format or a sum."""
GOOD_FOR_WORDS = 0.15
"""Validation loss (nats) that no text reaches without a leak when it began above 1."""
IGNORANT_FROM, STILL_IGNORANT, SLOW_SHARE, STILL_FALLS = 4.0, 2.5, 0.55, 0.05
"""Losses (nats a token) of a start and an end with little knowledge; the least share of the start that is left; the least late fall."""
NEAR_A_GUESS = 0.8
"""Loss over that of a guess among the labels, above which a model has learned next to nothing."""
LATE_SHARE = 0.2
"""Share of the whole fall of the validation loss that came in the second half of a run which had not reached a plateau."""
MIN_ROWS_OF_FALL, MIN_STEPS_OF_FALL = 8, 30
USUAL_FOR_ADAPTERS = 1e-4
"""Peak rates above this are not called too low without knowing the model."""
LATE_PEAK, RISEN = 0.8, 2.0
"""A rate whose maximum lies this late, that far above its first value, was still warming up."""
LONG_ENOUGH_EPOCHS = 5.0
"""Epochs after which a training loss that falls is no sign that more are needed."""
FIRST_TENTH = 0.1
"""Share of the steps after which a gain is counted; before, a model learns the format."""
ANNEALED_RATE, LITTLE_OF_ALL, LITTLE = 0.15, 0.1, 0.01
"""Below this share of the peak rate, a last fall of less than that part of all that was gained, or than 1 %, is the end of the road."""
MIN_ROWS_OF_RESPONSE = 24
CALMER = 4.0
"""Scatter of the first quarter of rows over that of the last, in a log of means since the start."""
MIN_EVALUATIONS_OF_RESPONSE = 5
FAST_START = 1.5
"""Standard deviations of a row by which the first one must lie above the next for its fall to count as gain."""
UNRELATED_GAP, UNRELATED_Z = 0.05, 3.0
"""Rise of the loss of exchanged answers, nats a token and standard errors, below which they are unrelated to their prompts."""


def too_good_findings(signals: Signals, limits: Thresholds) -> list[Finding]:
    """A loss that is too good to be true."""
    finding = _too_good(signals, limits) if signals.log.context.objective == "supervised" else None
    return [finding] if finding is not None else []


def length_findings(signals: Signals, limits: Thresholds) -> list[Finding]:
    """Was the rate too low, the warmup too long, the run too short, or was there nothing left to learn?"""
    if signals.log.context.objective != "supervised":
        return []
    checks = (
        _warmup_never_ended,
        _straight_response,
        _slow_from_ignorance,
        _still_falling,
        _few_steps,
        _already_converged,
    )
    return [finding for check in checks if (finding := check(signals, limits)) is not None]


def first_loss_findings(signals: Signals, limits: Thresholds) -> list[Finding]:
    """What the first training loss says about its scale and its template."""
    curve = signals.loss
    if curve is None or curve.first <= 0:
        return []
    if signals.loss_factor > 1:
        factor = signals.loss_factor
        meaning = f"The training loss is {factor:.1f} times the validation loss at the same steps: it is summed over accumulation steps."
        return [
            found(
                "loss_scaled",
                meaning,
                advice="read the validation loss; divide the training loss by that",
                factor=factor,
            )
        ]
    scaled = accumulation_factor(curve.first)
    if scaled:
        return [
            found(
                "loss_scaled",
                f"The first loss is {scaled[0]} times ln {scaled[1]}: it is summed over accumulation steps, "
                "not averaged.",
                advice=f"divide the logged losses by {scaled[0]}; update transformers, where this is repaired",
                first_loss=curve.first,
                factor=scaled[0],
            )
        ]
    context = signals.log.context
    chance = chance_level(
        curve.first, tolerance=0.01, num_labels=context.num_labels, vocabulary_size=context.vocabulary_size
    )
    if chance is not None and chance.kind == "vocabulary":
        return [
            found(
                "starts_at_chance",
                f"The first loss is {chance.words}: the model starts from random weights, or its template or "
                "mask is wrong.",
                advice="if this is a fine-tune, check that the weights were loaded and the chat template fits",
                confidence=0.6,
                first_loss=curve.first,
            )
        ]
    return _starts_high(signals, curve)


def pairing_findings(gap: float, standard_error: float) -> list[Finding]:
    """What it means when answers fit other prompts as well: `gap` is the rise of their loss in nats a token, paired by prompt."""
    if not (gap < UNRELATED_GAP and gap < UNRELATED_Z * standard_error):
        return []
    return [
        found(
            "answers_unrelated",
            "The answers fit other prompts as well as their own: the model has learned what answers look like at most, not what "
            "they depend on.",
            advice=(
                "if rate and length are sound, labels were shuffled or columns mixed up: decode a few rows and look at them"
            ),
            confidence=0.8,
            gap_nats=gap,
            standard_error=standard_error,
        )
    ]


def _starts_high(signals: Signals, curve: LossCurve) -> list[Finding]:
    vocabulary = signals.log.context.vocabulary_size or 262144
    if curve.first <= 1.05 * math.log(vocabulary) or curve.start <= 1.05 * math.log(vocabulary):
        return []
    return [
        found(
            "loss_starts_high",
            "The loss starts above that of a uniform guess: a wrong template, labels on prompt or padding, "
            "or a summed loss.",
            advice="decode one training row with its label mask and look at it",
            confidence=0.5,
            first_loss=curve.first,
        )
    ]


def _too_good(signals: Signals, limits: Thresholds) -> Finding | None:
    """A validation loss next to nothing, or a training loss next to nothing within two epochs where no validation loss says otherwise.

    Falls are measured from the level after the first tenth of the run, because a first loss may only show a wrong format.
    """
    evaluation, curve, epochs = signals.evaluation, signals.loss, signals.progress.epochs
    if evaluation is not None and evaluation.num_rows >= 3 and evaluation.first > 0:
        start = min(evaluation.first, MOST_IGNORANT)
        fell = evaluation.last < limits.too_good_share * start and start > 1 and evaluation.last < GOOD_FOR_WORDS
        is_nothing = evaluation.last < limits.too_good_loss / 2
        return _leak(evaluation.first, evaluation.last, "validation", signals) if is_nothing or fell else None
    if curve is None or curve.num_rows < limits.min_rows or curve.end < 0 or curve.start <= 0:
        return None
    early = curve.smooth[: _rows_of_epochs(signals, curve, 2.0)]
    start = max(curve.first, curve.start) if curve.start <= MOST_IGNORANT else float(curve.smooth[curve.num_rows // 10])
    is_low = (
        float(early.min()) / signals.loss_factor < limits.too_good_loss
        and float(early.min()) < limits.too_good_share * start
    )
    # One or two evaluations say whether the low training loss is the target's or learned by heart.
    if evaluation is not None and evaluation.last > limits.too_good_loss:
        return None
    return _leak(curve.start, curve.end, "training", signals) if is_low and not epochs < 0.01 else None


def _rows_of_epochs(signals: Signals, curve: LossCurve, epochs: float) -> int:
    epoch = signals.log.train.epoch[curve.rows]
    if np.isfinite(epoch).any():
        return max(1, int((epoch <= epochs).sum()))
    return curve.num_rows


def _leak(first: float, last: float, split: str, signals: Signals) -> Finding:
    return found(
        "too_good",
        f"The {split} loss falls from {first:.3g} to {last:.2g}: the answer leaks into the input, or the "
        "target is trivial.",
        advice=(
            "check the attention mask, the label shift and duplicates between input and answer before trusting this run"
        ),
        confidence=0.7,
        first_loss=first,
        last_loss=last,
        epochs=_known(signals.progress.epochs),
    )


def _warmup_never_ended(signals: Signals, limits: Thresholds) -> Finding | None:
    """The rate was highest in the last fifth of the steps: the run ended before its warmup did."""
    train, schedule = signals.log.train, signals.schedule
    known = np.isfinite(train.learning_rate)
    rates, steps = train.learning_rate[known], train.step[known]
    if schedule is None or len(rates) < limits.min_rows or not rates.max() > 0 or steps[-1] <= steps[0]:
        return None
    peak_at = float(steps[int(np.argmax(rates >= 0.999 * rates.max()))])
    if (
        peak_at < LATE_PEAK * steps[-1]
        or rates.max() < RISEN * max(rates[0], 1e-30)
        or signals.progress.share_done < 0.5
    ):
        return None
    return found(
        "warmup_never_ended",
        "The rate was still rising when the run ended: warmup took all of its steps.",
        advice=f"warm up over 5-10 % of the steps, at the same peak rate of {schedule.peak:.2g}",
        peak_step=peak_at,
        last_step=float(steps[-1]),
    )


def _still_falling(signals: Signals, limits: Thresholds) -> Finding | None:
    curve, evaluation = signals.loss, signals.evaluation
    constant = signals.schedule is not None and signals.schedule.is_constant
    drop, is_clear = _last_fall(curve, evaluation, limits, is_constant=constant)
    if not is_clear:
        return _stopped_on_the_way(signals, curve, limits)
    if _rate_was_the_limit(signals, curve, evaluation, limits):
        return _too_low(signals, drop)
    progress, schedule = signals.progress, signals.schedule
    if _is_end_of_the_road(signals, evaluation) or (evaluation is None and progress.epochs >= LONG_ENOUGH_EPOCHS):
        return None
    was_interrupted = progress.share_done < 0.9
    rate_left = schedule is None or math.isnan(schedule.last) or schedule.last > 0.3 * schedule.peak
    eval_limit = limits.falling_eval_interrupted if was_interrupted and rate_left else limits.falling_eval
    eval_limit *= limits.annealed_factor if not was_interrupted and _has_decayed(signals) else 1.0
    is_constant = schedule is not None and schedule.is_constant and not progress.epochs >= 1
    tail_limit = (
        limits.falling_tail / 2 if was_interrupted and rate_left else limits.falling_tail * (1 if is_constant else 2)
    )
    enough = evaluation.tail_drop > eval_limit if evaluation and evaluation.num_rows >= 3 else drop > tail_limit
    long_warmup = schedule is not None and schedule.warmup_share > 0.4
    if not enough and not (long_warmup and drop > limits.falling_tail / 3):
        return None
    if _is_small_but_done(signals, curve, limits) and not long_warmup:
        return None
    return _undertrained(signals, drop, was_interrupted, long_warmup)


def _is_end_of_the_road(signals: Signals, evaluation: EvalCurve | None) -> bool:
    """The rate has decayed, and the last evaluation gained next to nothing of what was gained in all."""
    schedule, series = signals.schedule, signals.log.evaluation
    if (
        schedule is None
        or evaluation is None
        or series is None
        or evaluation.num_rows < 3
        or not schedule.last <= ANNEALED_RATE * schedule.peak
    ):
        return False
    known = np.isfinite(series.loss)
    loss, step = series.loss[known], series.step[known]
    gained = float(loss[-2]) - evaluation.last
    first = float(loss[min(int(np.searchsorted(step, FIRST_TENTH * step[-1])), len(loss) - 2)])
    return gained < LITTLE * evaluation.last or gained < LITTLE_OF_ALL * (first - evaluation.last)


def _straight_response(signals: Signals, limits: Thresholds) -> Finding | None:
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
    if progress.share_done < 0.9 or not clear or gain > limits.straight_gain:
        return None
    early, half = (_share_of_gain(signals, part) for part in (1 / 3, 1 / 2))
    # A rate that no method uses needs less of a proof.
    slack = FAR_BELOW_SLACK if schedule.peak < LOWEST_USUAL_RATE else 1.0
    if not (-LITTLE_OF_ALL < early < slack * limits.straight_third and half < slack * limits.straight_half):
        return None
    if _evaluations_bent(signals, limits.straight_half) or _calms_down(signals.log.train.loss[curve.rows]):
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


def _slow_from_ignorance(signals: Signals, limits: Thresholds) -> Finding | None:
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


def _stopped_on_the_way(signals: Signals, curve: LossCurve | None, limits: Thresholds) -> Finding | None:
    """A run stopped early at a high rate after a real fall, unless its last half excludes that the other steps bring much.

    Along the logarithm of the steps a loss falls in a nearly straight line; what the planned steps may still bring is read off the
    steepest line that the last half allows.
    """
    progress, schedule = signals.progress, signals.schedule
    if curve is None or curve.num_rows < limits.min_rows or not progress.share_done < limits.stopped_share:
        return None
    if (schedule is not None and schedule.last < 0.5 * schedule.peak) or curve.start <= 0:
        return None
    if signals.evaluation is None and progress.epochs >= LONG_ENOUGH_EPOCHS:
        return None
    rows = curve.rows[curve.num_rows // 2 :]
    slope, error = _line_through(np.log(signals.log.train.step[rows]), signals.log.train.loss[rows])
    may_gain = (2 * error - slope) * math.log(1 / progress.share_done) / max(abs(curve.end), 1e-12)
    if 1 - curve.end / curve.start < limits.expected_gain or may_gain < limits.expected_gain:
        return None
    return _undertrained(signals, 1 - curve.end / curve.start, was_interrupted=True, long_warmup=False)


def _line_through(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """(slope, its standard error widened by half) of a least-squares line."""
    centred = x - x.mean()
    spread = float(centred @ centred)
    if spread <= 0 or len(x) < 3:
        return 0.0, math.inf
    slope = float(centred @ y) / spread
    rest = y - y.mean() - slope * centred
    return slope, 1.5 * math.sqrt(float(rest @ rest) / (len(x) - 2) / spread)


def _last_fall(
    curve: LossCurve | None, evaluation: EvalCurve | None, limits: Thresholds, *, is_constant: bool
) -> tuple[float, bool]:
    """Relative drop at the end, from the validation loss when there are three, and whether it is beyond noise."""
    if evaluation is not None and evaluation.num_rows >= 3:
        recent = evaluation.tail_drop
        return recent, recent > 0.002 and evaluation.num_after_best == 0 and recent > 2 * min(evaluation.noise, 0.02)
    if curve is None or curve.num_rows < 10:
        return 0.0, False
    # At a constant rate nothing but learning brings a loss down, so a weaker trend is believed.
    needed = limits.trend_t * (0.75 if is_constant else 1.0)
    return curve.tail_drop, curve.tail_drop > 0 and (curve.tail_t > needed or curve.whole.t < -needed)


def _is_small_but_done(signals: Signals, curve: LossCurve | None, limits: Thresholds) -> bool:
    """A finished short run, hardly evaluated, whose rate has decayed to nothing: its tail falls because the rate
    does."""
    ended = _has_decayed(signals) and not signals.progress.share_done < 0.9
    is_measured = signals.evaluation is not None and signals.evaluation.num_rows >= 3
    return bool(ended and not is_measured and curve is not None)


def _has_decayed(signals: Signals) -> bool:
    """True when the learning rate is known to have come down to nothing."""
    schedule = signals.schedule
    return schedule is not None and schedule.last < 0.1 * schedule.peak


def _rate_was_the_limit(signals: Signals, curve, evaluation, limits: Thresholds) -> bool:
    """A long budget, a small gain in all, and as much of it late as early: the descent never bent."""
    epochs = signals.progress.epochs
    if not epochs >= limits.small_gain_epochs or signals.progress.share_done < 0.9:
        return False
    first, last = (evaluation.first, evaluation.last) if evaluation else (curve.start, curve.end)
    small = first > 0 and 1 - last / first < limits.small_gain
    is_told = curve is not None and curve.num_rows >= limits.min_rows
    return small and _is_ignorant_all_along(signals, first, last) and (not is_told or curve.whole.change < 0)


def _is_ignorant_all_along(signals: Signals, first: float, last: float) -> bool:
    """Near a uniform guess at first and at the end, or above 4 nats: a pre-trained model on its own task begins lower and rightly gains
    little, and one that has left its guess behind has learned."""
    if first > IGNORANT_FROM:
        return True
    chance = chance_level(first, tolerance=0.1, num_labels=signals.log.context.num_labels, vocabulary_size=None)
    return chance is not None and last > NEAR_A_GUESS * chance.loss


def _too_low(signals: Signals, drop: float) -> Finding:
    schedule = signals.schedule
    return found(
        "learning_rate_too_low",
        "After many epochs the loss has fallen little and is still falling: the learning rate was the limit.",
        advice=f"{moved(signals, 3)}",
        confidence=0.65,
        learning_rate=_known(schedule.peak if schedule else math.nan),
        epochs=_known(signals.progress.epochs),
        last_drop=drop,
    )


def _undertrained(signals: Signals, drop: float, was_interrupted: bool, long_warmup: bool) -> Finding:
    progress = signals.progress
    if was_interrupted:
        why = f"was stopped at {100 * progress.share_done:.0f} % of its planned steps, on its way down"
        advice = "resume it, or give it its whole budget"
    elif long_warmup:
        why, advice = "spent most of its steps warming up and ended while falling", "warm up over 3-10 % of the steps"
    else:
        why, advice = (
            "ended while the loss was still falling fast",
            "train 1.5-2 times as many steps with the same peak rate",
        )
    return found(
        "undertrained",
        f"The run {why}.",
        advice=advice,
        confidence=0.7,
        last_step=_known(progress.last_step),
        planned_steps=_known(progress.planned_steps),
        epochs=_known(progress.epochs),
        last_drop=drop,
    )


def _few_steps(signals: Signals, limits: Thresholds) -> Finding | None:
    """So few steps that the loss hardly left its start."""
    curve, last_step = signals.loss, signals.progress.last_step
    if curve is None or curve.num_rows < limits.min_rows or not last_step < limits.few_steps or curve.start <= 0:
        return None
    gain = 1 - curve.end / max(curve.start, signals.log.context.base_train_loss or 0.0)
    gain_of_all = 1 - curve.end / max(
        curve.first, curve.start
    )  # A high rate has gained most of it after the first row.
    if (
        gain > 3 * max(curve.noise, 0.01)
        or gain_of_all > 4 * max(curve.noise, 0.01)
        or curve.whole.t < -limits.trend_t
        or _evaluations_gained(signals)
        or curve.spread < 0.02
    ):
        return None
    return found(
        "undertrained",
        f"Only {last_step:.0f} steps were taken and the loss has not left its noise.",
        advice="train several hundred steps, with a smaller batch or more epochs if rows are few",
        confidence=0.7,
        last_step=last_step,
        gain=gain,
    )


def _evaluations_gained(signals: Signals) -> bool:
    """Three evaluations or more, the last of which is better than the first beyond their noise."""
    evaluation = signals.evaluation
    if evaluation is None or evaluation.num_rows < 3:
        return False
    return evaluation.last < evaluation.first * (1 - 2 * max(evaluation.noise, 0.002))


def _already_converged(signals: Signals, limits: Thresholds) -> Finding | None:
    """A long run with normal steps that gained next to nothing: the starting point had seen this data."""
    curve, evaluation = signals.loss, signals.evaluation
    if (
        curve is None
        or curve.num_rows < 30
        or curve.start <= 0
        or not signals.progress.last_step >= 3 * limits.few_steps
    ):
        return None
    # A fine-tune may gain most of what there is within its first row.
    first = curve.first if curve.first > (1 + FAST_START * max(curve.noise, 0.01)) * curve.start else 0.0
    gain = 1 - curve.end / max(first, curve.start, float(np.median(curve.smooth[: max(1, curve.num_rows // 20)])))
    eval_gain = 1 - evaluation.best / evaluation.first if evaluation and evaluation.first > 0 else 0.0
    if not -0.05 < gain < limits.converged_gain or eval_gain > limits.converged_gain:
        return None
    return found(
        "already_converged",
        "The loss hardly changes over the whole run: the model had learned this data before, or there is "
        "nothing to learn.",
        advice=(
            "check that you did not start from an adapter trained on the same rows; otherwise use harder or new data"
        ),
        confidence=0.55,
        first_loss=curve.start,
        last_loss=curve.end,
        gain=gain,
    )


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
