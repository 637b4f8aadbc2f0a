"""Is the learning rate too high? Lost runs, unsettled runs, spikes, and the rises that have another cause."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from finestep.diagnosis.catalogue import Evidence, found
from finestep.diagnosis.chance import Chance, accumulation_factor, chance_level
from finestep.diagnosis.next_rate import moved
from finestep.diagnosis.robust import spike_scores, trend
from finestep.diagnosis.signals import LossCurve, Signals, relative_rate
from finestep.diagnosis.thresholds import Thresholds
from finestep.finding import Finding

_METHOD_RATE_LIMITS = {"lora": 5e-3, "qlora": 5e-3, "prompt": 0.5, "p-tuning": 0.5, "prefix": 0.1, "full": 5e-4}
_UNKNOWN_METHOD_LIMIT = 1e-3
"""Peak rates above which a run stuck from its first step is blamed on the rate; prompt tuning lives at 1e-2."""

_WHEN_AT_CHANCE = (
    "check that labels belong to their inputs and that the head is trained; then try a rate 3 times higher"
)
ABSURD_RATE = 0.3
USUAL_ANYWHERE = 2e-4
"""A rate that trains most models: usual for LoRA, between those of small and large models for all weights."""
FAR_TOO_HIGH = 0.02
"""Peak rate beyond what any published fine-tune of weights or adapters uses; prompts are trained with more."""
NO_BETTER, FELL_FAR = 1.02, 0.7
EARLY_CLIMB, NEARLY_ALL, ABOVE_IGNORANCE = 1.25, 0.8, 7.8
TINY_LOSS = 0.05
WORSE_THAN_A_GUESS = 12.5
"""Nats of a uniform guess in the largest common vocabulary: a run that began far below and ends above it has lost its weights, and no
change of data explains that."""
NEVER_BETTER, DEAD_BETTER = 0.95, 0.6
"""End of a run over its best first steps that does not make a jump good, also when gradients died in it."""
DEAD_GRADIENTS = 0.15
ALL_GIVEN_BACK, SMALL_GAIN_LOST, BETTER_BEFORE = 0.9, 1.04, 0.05
"""Share of the gain that is gone, and what it was at least, of a run that ends where it began; a change worth the name."""
FEW_ROWS, TWICE = 30, 2.0
EVALS_ROSE = 1.1
GUESSING = 0.03
"""Distance of an accuracy from that of a guess among k labels, and relative distance of the loss from ln k, of a model that guesses."""
HARDLY_WORDS = (6.0, 8.5)
"""Nats a token of a model that knows single tokens and next to nothing of their order."""
STANDS_STILL = 0.01
"""Relative change below which a loss stands."""
EXPLOSION_ROWS, NOISE_OF_EXPLOSION = 12, 6.0
FIRST_ROWS = 40
"""Rows among which a jump counts as one of the first steps; more give noise more chances."""


class Episode(NamedTuple):
    """Neighbouring rows far above the level before them; `height` is their highest loss over that level."""

    first: int
    last: int
    height: float
    before: float
    after: float
    grad_ratio: float

    @property
    def is_over(self) -> bool:
        """True when the level after it is near the level before it."""
        return self.after <= 1.1 * self.before + 1e-9


def stability_findings(signals: Signals, limits: Thresholds) -> list[Finding]:
    """A lost or unsettled run, or its healed spikes."""
    curve = signals.loss
    if curve is None or curve.num_rows < 4 or signals.log.context.objective == "reinforcement":
        return []
    lost = (
        _lost(signals, curve, limits) or _ends_high(signals, curve, limits) or _evaluations_rose(signals, curve, limits)
    )
    if lost is not None:
        return [lost]
    checks = (_too_high_from_the_start, _worse_than_base, _unsettled, _jumped_at_start, _exploded_at_start)
    findings = [finding for check in checks if (finding := check(signals, curve, limits)) is not None][:1]
    return findings + _spikes(signals, curve, limits)


def is_lost(curve: LossCurve, limits: Thresholds) -> bool:
    """True when the end lies far above the best level (or the first row) and most of the gain is gone."""
    if min(curve.best, curve.first, curve.start) <= 0:
        return False
    beyond = (curve.end - curve.best) / max(curve.start - curve.best, 1e-12)
    clear = math.log(curve.end / curve.best) > limits.level_z * max(curve.contrast_error, 0.01)
    fell_back = curve.end > limits.diverged_ratio * curve.best and beyond > limits.lost_gain and clear
    return bool(fell_back or _lost_at_once(curve, limits))


def _lost_at_once(curve: LossCurve, limits: Thresholds) -> bool:
    """A model that was good before the first step and never again: a fine-tune worse than its base."""
    early = float(np.max(curve.smooth[: max(3, curve.num_rows // 4)]))
    noise = max(curve.noise, 0.05) * max(curve.end, 1e-12)
    return (
        curve.end > limits.diverged_ratio * curve.first
        and early > 2 * curve.first
        and curve.end - curve.first > 4 * noise
    )


def _lost(signals: Signals, curve: LossCurve, limits: Thresholds) -> Finding | None:
    if not is_lost(curve, limits):
        return None
    row = _rise_row(curve)
    step = float(signals.log.train.step[row])
    rate = relative_rate(signals.log, row)
    evidence: Evidence = {
        "step": step, "best_loss": min(curve.best, curve.first), "end_loss": curve.end, "first_loss": curve.first,
        "learning_rate": _rate_at(signals, row), "rate_over_peak": rate if rate == rate else None,
    }  # fmt: skip
    chance = _chance(signals, curve.end, limits)
    is_destroyed = curve.end > max(WORSE_THAN_A_GUESS, limits.diverged_ratio * curve.first) and not accumulation_factor(
        curve.first
    )
    if not is_destroyed and row >= _peak_row(signals) and _has_another_cause(signals, curve, row, limits, chance):
        return _not_the_rate(curve, row, evidence) if signals.log.context.objective == "supervised" else None
    where = f" and stays at {chance.words}" if chance else ""
    return found(
        "diverged",
        f"The loss rose from {min(curve.best, curve.first):.3g} at about step {step:.0f} to {curve.end:.3g}{where}: "
        "the learning rate is too high.",
        advice=_lower_rate_advice(signals),
        confidence=0.9,
        known=evidence,
    )


def _ends_high(signals: Signals, curve: LossCurve, limits: Thresholds) -> Finding | None:
    """A log of few rows whose last two both lie far above its lowest: too few for medians, and too far for chance."""
    loss = signals.log.train.loss[curve.rows]
    if not limits.min_rows <= curve.num_rows <= FEW_ROWS or not loss.min() > TINY_LOSS:
        return None
    # The second lowest, because the lowest of noisy rows is a lucky one.
    low, evaluation = float(np.sort(loss)[1]), signals.evaluation
    is_denied = evaluation is not None and evaluation.num_rows >= 2 and evaluation.num_after_best == 0
    if is_denied or not loss[-2:].min() > max(TWICE, 1 + 4 * min(curve.noise, 0.4)) * low:
        return None
    return _diverged(signals, f"The last losses are {loss[-1] / low:.1f} times the lowest.", low, float(loss[-1]))


def _evaluations_rose(signals: Signals, curve: LossCurve, limits: Thresholds) -> Finding | None:
    """Validation and training loss both end above where they began: not overfitting, but a model that gets worse."""
    base = signals.log.context.base_train_loss
    if (
        base is not None
        and curve.num_rows >= limits.min_rows
        and curve.end > EVALS_ROSE * base
        and curve.end - base > 2 * curve.level_error
    ):
        return _diverged(
            signals,
            f"The training loss ends at {curve.end:.3g}, above the {base:.3g} before training.",
            base,
            curve.end,
        )
    series = signals.log.evaluation
    known = series.loss[np.isfinite(series.loss)] if series is not None else np.empty(0)
    if len(known) < 3 or not known[0] > 0 or np.median(known[-3:]) <= EVALS_ROSE * known[0] or curve.end < curve.start:
        return None
    meaning = f"The validation loss went from {known[0]:.3g} up to {known[-1]:.3g}, and the training loss did not fall."
    return _diverged(signals, meaning, float(known[0]), float(known[-1]))


def _diverged(signals: Signals, meaning: str, before: float, after: float) -> Finding:
    return found(
        "diverged",
        f"{meaning} The learning rate is too high.",
        advice=_lower_rate_advice(signals),
        best_loss=before,
        end_loss=after,
        learning_rate=signals.schedule.peak if signals.schedule else None,
    )


def _has_another_cause(signals: Signals, curve: LossCurve, row: int, limits: Thresholds, chance: Chance | None) -> bool:
    rate = relative_rate(signals.log, row)
    tiny = curve.end < TINY_LOSS and rate < 0.7
    is_past_peak = not rate >= 0.95  # Or not known: then the gradients decide alone.
    return rate < limits.low_rate_share or tiny or (chance is None and is_past_peak and _calm_jump(signals, curve, row))


def _calm_jump(signals: Signals, curve: LossCurve, row: int) -> bool:
    """A step up, after the peak rate, that no gradient norm shows before, at or after it."""
    norms = signals.log.train.grad_norm
    before, after = norms[:row], norms[max(0, row - 3) :]
    before, after = before[np.isfinite(before)], after[np.isfinite(after)]
    known = len(before) >= 8 and len(after) >= 8
    return bool(known and after.max() < 3 * np.median(before) and _is_abrupt(curve, row))


def _is_abrupt(curve: LossCurve, row: int) -> bool:
    """True when most of the rise happens within two smoothing windows."""
    window = max(3, curve.num_rows // 20)
    position = int(np.searchsorted(curve.rows, row))
    before = float(np.median(curve.smooth[max(0, position - 2 * window) : max(1, position - window)]))
    later = curve.smooth[position + window : position + 2 * window]
    after = float(np.median(later)) if len(later) else curve.end
    return after - before > 0.6 * (curve.end - before)


def _not_the_rate(curve: LossCurve, row: int, evidence: Evidence) -> Finding:
    if _is_abrupt(curve, row):
        return found(
            "data_changed",
            "The loss jumps although the learning rate is past its peak and no gradient shows it: the data "
            "or the loss changed.",
            advice="look at the rows from that step on (their order, template and masking), and shuffle the data",
            confidence=0.7,
            known=evidence,
        )
    return found(
        "unexplained_rise",
        "The loss rises slowly while the learning rate falls; cannot tell why, because no rate explains it.",
        advice="look at the order of the data and at how the loss is defined; log a validation loss next time",
        confidence=0.6,
        known=evidence,
    )


def stuck_findings(signals: Signals, limits: Thresholds) -> list[Finding]:
    """A loss that sits on a level of ignorance from start to end."""
    curve = signals.loss
    if curve is None or curve.num_rows < limits.min_rows or signals.log.context.objective != "supervised":
        return []
    guessing = _guesses(signals, curve, limits)
    if guessing is not None:
        return [guessing]
    chance = _chance(signals, curve.end, limits)
    evaluation = signals.evaluation
    if chance is None or not _is_plausible(signals, chance) or not _never_left(signals, curve, chance, limits):
        return _ignorant_to_the_end(signals, curve, limits)
    if evaluation is not None and evaluation.best < 0.9 * min(chance.loss, evaluation.first):
        return []
    peak = signals.schedule.peak if signals.schedule else math.nan
    evidence: Evidence = {"loss": curve.end, "level": chance.words, "learning_rate": peak if peak == peak else None}
    if chance.kind == "unigram" or _is_high_rate(signals):
        return [
            found(
                "stuck_high_rate",
                f"The loss sits at {chance.words} from the start and never leaves it: most likely the rate is "
                "too high.",
                advice=_lower_rate_advice(signals, factor=5),
                confidence=0.65,
                known=evidence,
            )
        ]
    return [
        found(
            "stuck_at_chance",
            f"The loss stays at {chance.words}: the model learns nothing.",
            advice=_WHEN_AT_CHANCE,
            confidence=0.75,
            known=evidence,
        )
    ]


def _ignorant_to_the_end(signals: Signals, curve: LossCurve, limits: Thresholds) -> list[Finding]:
    """A language model that ends where token frequencies alone bring it, and gained next to nothing: a high rate has destroyed it, and
    without a known rate nothing was learned at least. A low rate is judged by its response, later."""
    level = signals.evaluation.last if signals.evaluation is not None else curve.end
    is_language = not signals.log.context.num_labels and signals.metric is None and signals.loss_factor == 1.0
    if not (is_language and HARDLY_WORDS[0] <= level <= HARDLY_WORDS[1] and HARDLY_WORDS[0] <= curve.best):
        return []
    # A start above ignorance shows a wrong format: what was gained is counted from the level after the first tenth.
    start = (
        min(curve.start, float(curve.smooth[curve.num_rows // 10])) if curve.start > WORSE_THAN_A_GUESS else curve.start
    )
    if curve.end < (1 - limits.small_gain / 2) * start or signals.progress.last_step < limits.few_steps:
        return []
    if _is_high_rate(signals):
        meaning = f"The loss ends at {level:.3g}, hardly below what token frequencies alone reach, at a high rate: it is too high."
        return [found("stuck_high_rate", meaning, advice=_lower_rate_advice(signals, factor=5), loss=level)]
    if signals.schedule is not None and not _stands_still(curve, start):
        return []
    meaning = (
        f"The loss ends at {level:.3g}, hardly below what token frequencies alone reach: the model learns nothing."
    )
    return [found("stuck_at_chance", meaning, advice=_WHEN_AT_CHANCE, loss=level)]


def _stands_still(curve: LossCurve, start: float) -> bool:
    """A low rate would still bring the loss down slowly; here it stands."""
    later = float(np.median(curve.smooth[curve.num_rows // 5 :]))
    return max(abs(curve.end / start - 1), abs(curve.end / later - 1)) < STANDS_STILL


def _guesses(signals: Signals, curve: LossCurve, limits: Thresholds) -> Finding | None:
    """Loss at ln k and accuracy at 1/k in the end, whatever the first rows were: the model guesses among its labels."""
    series = signals.log.evaluation
    names = [name for name in (series.metrics if series is not None else {}) if name.endswith(("accuracy", "acc"))]
    if series is None or not names or curve.end <= 0:
        return None
    accuracy = series.metrics[names[0]]
    accuracy = accuracy[np.isfinite(accuracy)]
    num_labels = round(math.exp(min(curve.end, 10.0)))
    if not len(accuracy) or num_labels < 2 or abs(curve.end / math.log(num_labels) - 1) > GUESSING:
        return None
    if abs(float(np.median(accuracy[-3:])) - 1 / num_labels) > min(GUESSING, 0.5 / num_labels):
        return None
    error = limits.level_z * max(curve.contrast_error, 0.01)
    was_better = (
        curve.best < (1 - max(BETTER_BEFORE, error)) * curve.end
        or float(accuracy.max()) > 1 / num_labels + 3 * GUESSING
    )
    early = curve.smooth[: max(4, curve.num_rows // 5)]
    rose_first = float(early.max()) > (1 + max(BETTER_BEFORE, error)) * curve.start
    words = (
        f"The model guesses among {num_labels} labels in the end (loss {curve.end:.3g}, accuracy {accuracy[-1]:.2g})"
    )
    if was_better or rose_first or _is_high_rate(signals):
        how = " after it had been better." if was_better else " after a rise in its first steps." if rose_first else "."
        return _diverged(signals, words + how, curve.best, curve.end)
    return found(
        "stuck_at_chance",
        words + ": it learns nothing.",
        advice=_WHEN_AT_CHANCE,
        loss=curve.end,
        accuracy=float(accuracy[-1]),
    )


def _is_high_rate(signals: Signals) -> bool:
    """Above what is usual, where model and method are known; otherwise above what the method takes at most."""
    context, peak = signals.log.context, signals.schedule.peak if signals.schedule else math.nan
    if context.usual_rate is not None:
        return bool(peak > 2 * context.usual_rate[2])
    # The first logged rate of a decay lies a little below the peak.
    return bool(peak > 0.9 * _METHOD_RATE_LIMITS.get(context.method or "", _UNKNOWN_METHOD_LIMIT))


def _is_plausible(signals: Signals, chance: Chance) -> bool:
    """ln 3 and ln 4 are also ordinary losses of chat models, so they need a known number of labels or an accuracy."""
    if chance.kind != "labels" or chance.loss < 0.7 or signals.log.context.num_labels:
        return True
    return any(
        name.endswith(("accuracy", "f1", "acc")) for series in signals.log.evaluations for name in series.metrics
    )


def _never_left(signals: Signals, curve: LossCurve, chance: Chance, limits: Thresholds) -> bool:
    enough = not signals.progress.last_step < limits.few_steps
    begins_there = (
        -limits.chance_tolerance
        < curve.first / chance.loss - 1 + curve.noise
        < 3 * limits.chance_tolerance + 4 * curve.noise
    )
    stays = abs(curve.median / chance.loss - 1) < limits.chance_tolerance
    gain = max(curve.start, float(curve.smooth[0])) / curve.end - 1
    is_flat = abs(curve.whole.change) < 1.5 * limits.chance_tolerance * chance.loss
    lowest = (1 - 2 * limits.chance_tolerance - limits.level_z * curve.contrast_error) * chance.loss
    return bool(
        enough
        and begins_there
        and stays
        and is_flat
        and gain < 1.5 * limits.chance_tolerance + curve.noise
        and curve.best > lowest
    )


def _chance(signals: Signals, loss: float, limits: Thresholds) -> Chance | None:
    context = signals.log.context
    return (
        chance_level(
            loss,
            tolerance=limits.chance_tolerance,
            num_labels=context.num_labels,
            vocabulary_size=context.vocabulary_size,
        )
        if loss > 0
        else None
    )


def _unsettled(signals: Signals, curve: LossCurve, limits: Thresholds) -> Finding | None:
    """Not lost, but well above its best, or drifting upwards together with the validation loss."""
    if min(curve.best, curve.start) <= 0:
        return None
    beyond = (curve.end - curve.best) / max(curve.start - curve.best, 1e-12)
    clear = math.log(curve.end / curve.best) > limits.level_z * max(curve.contrast_error, 0.01)
    evaluation = signals.evaluation
    risen = curve.end > limits.unstable_ratio * curve.best and beyond > limits.lost_gain / 2 and clear
    risen = risen or (clear and beyond > ALL_GIVEN_BACK and curve.end > SMALL_GAIN_LOST * curve.best)
    eval_up = evaluation is None or evaluation.rise > 0.005 or evaluation.num_rows < 2
    drifts = (
        curve.whole.t > limits.trend_t
        and curve.whole.change > 2.5 * curve.level_error * curve.start
        and evaluation is not None
    )
    grew = curve.end > curve.start or beyond > 0.9
    if not ((risen and eval_up) or (drifts and evaluation is not None and evaluation.rise > 0.005 and grew)):
        return None
    row = _rise_row(curve)
    rate = relative_rate(signals.log, row)
    if row >= _peak_row(signals):
        if rate < 0.95 and _chance(signals, curve.end, limits) is None and _calm_jump(signals, curve, row):
            known: Evidence = {"step": float(signals.log.train.step[row]), "rate_over_peak": rate}
            return _not_the_rate(curve, row, {**known, "best_loss": curve.best, "end_loss": curve.end})
        if rate < limits.low_rate_share:
            return None
    chance = _chance(signals, curve.end, limits)
    if (
        chance is not None
        and chance.kind == "labels"
        and abs(curve.start / chance.loss - 1) < 0.1
        and beyond > ALL_GIVEN_BACK
    ):
        return _diverged(
            signals, f"The loss came down to {curve.best:.3g} and went back to {chance.words}.", curve.best, curve.end
        )
    return found(
        "unstable",
        f"Training and validation loss end above their best ({curve.best:.3g} -> {curve.end:.3g}): the rate "
        "is at its limit.",
        advice=_lower_rate_advice(signals, factor=2),
        confidence=0.6,
        best_loss=curve.best,
        end_loss=curve.end,
        drift_t=curve.whole.t,
        learning_rate=_rate_at(signals, row),
    )


def _jumped_at_start(signals: Signals, curve: LossCurve, limits: Thresholds) -> Finding | None:
    """The first steps were good, then the loss jumped, and the rest of the run never did better than those first steps; or
    hardly better, with gradients that died in the jump."""
    loss = signals.log.train.loss[curve.rows]
    if curve.num_rows < 20 or curve.first <= 0:
        return None
    early = loss[: min(max(20, curve.num_rows // 4), FIRST_ROWS)]
    after = _medians(early, 5)
    before = np.minimum.accumulate(_medians(early, 3))[: len(after)]
    if float(before[0]) <= 0 or loss.min() <= 0:
        return None
    place = int(np.argmax(after / np.maximum(before, 1e-12)))
    best, highest = float(before[place]), float(after[place])
    error = 1.2533 * curve.noise * best * math.sqrt(1 / 5 + 1 / 3)
    died = _gradients_died(signals)
    if highest < limits.diverged_ratio * best or highest - best < (1 if died else 2) * limits.level_z * error:
        return None
    if curve.end < (DEAD_BETTER if died else NEVER_BETTER) * best:
        return None
    return found(
        "diverged",
        f"The loss jumped from {best:.3g} to {highest:.3g} in the first steps, and the rest of the run hardly made it good: the "
        "learning rate is too high.",
        advice=_lower_rate_advice(signals),
        confidence=0.7,
        best_loss=best,
        highest_loss=highest,
        end_loss=curve.end,
    )


def _too_high_from_the_start(signals: Signals, curve: LossCurve, limits: Thresholds) -> Finding | None:
    """A rate far above any usual one, and a sign that the first steps broke something: the loss climbed or began above ignorance, or
    gradients died. The run may come down again, to what a model without its knowledge reaches."""
    schedule = signals.schedule
    if schedule is None or curve.num_rows < limits.min_rows or not _is_far_too_high(signals):
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
        advice=_lower_rate_advice(signals, factor=10),
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


def _worse_than_base(signals: Signals, curve: LossCurve, limits: Thresholds) -> Finding | None:
    """After a quarter of the run no evaluation is better than the one before the first step, and the training loss did not fall far."""
    series = signals.log.evaluation
    if series is None or not len(series):
        return None
    base = signals.log.context.base_eval_loss or (float(series.loss[0]) if series.step[0] == 0 else None)
    after = series.loss[(series.step > 0.25 * signals.progress.last_step) & np.isfinite(series.loss)]
    if base is None or len(after) < 2 or after.min() <= NO_BETTER * base or curve.end < FELL_FAR * curve.start:
        return None
    return found(
        "worse_than_base",
        f"No evaluation is better than the {base:.3g} of the model before training (best {after.min():.3g}).",
        advice=_lower_rate_advice(signals),
        base_eval_loss=base,
        best_eval_loss=float(after.min()),
        learning_rate=signals.schedule.peak if signals.schedule else None,
    )


def _is_far_too_high(signals: Signals) -> bool:
    """Several times above the recommended interval where that is known, otherwise beyond every method that trains weights."""
    context, peak = signals.log.context, signals.schedule.peak if signals.schedule else math.nan
    if context.method in ("prompt", "p-tuning", "prefix"):
        return bool(peak > _METHOD_RATE_LIMITS[context.method])
    if context.usual_rate is not None and context.usual_method is None:
        return bool(peak > min(10 * context.usual_rate[2], FAR_TOO_HIGH))
    return bool(peak >= FAR_TOO_HIGH)


def _gradients_fell(signals: Signals) -> bool:
    """The usual gradient norm of the later half is a fraction of the first ones."""
    norms = signals.log.train.grad_norm
    first, late = norms[:3], norms[len(norms) // 2 :]
    first, late = first[np.isfinite(first)], late[np.isfinite(late)]
    return len(first) > 0 and len(late) >= 3 and bool(np.median(late) < DEAD_GRADIENTS * first.max())


def _exploded_at_start(signals: Signals, curve: LossCurve, limits: Thresholds) -> Finding | None:
    """Some of the first rows far above the lowest before them and above the untrained model, with gradients far above the next ones:
    the steps were too large for the loss's own slope. The run may come down again; what its first steps had learned is lost."""
    count = min(max(EXPLOSION_ROWS, curve.num_rows // 7), FIRST_ROWS)
    loss, norms = signals.log.train.loss[curve.rows], signals.log.train.grad_norm[curve.rows]
    if curve.num_rows < 3 * EXPLOSION_ROWS or loss[:count].min() <= 0:
        return None
    lowest = np.minimum.accumulate(loss[:count])
    with np.errstate(over="ignore"):
        ratios = loss[1:count] / lowest[:-1]
    is_high = ratios > max(limits.diverged_ratio, 1 + NOISE_OF_EXPLOSION * curve.noise)
    burst = _burst(norms[:count], norms[count : 3 * count])
    is_worse_than_untrained = loss[:count].max() > limits.unstable_ratio * loss[0]
    if is_high.sum() < limits.exploded_rows or not (burst > limits.grad_explosion and is_worse_than_untrained):
        return None
    row = 1 + int(ratios.argmax())
    return found(
        "unstable",
        f"The loss exploded in the first steps, from {lowest[row - 1]:.3g} to {loss[row]:.3g}, with gradient norms {burst:.0f} times "
        "those of later: the learning rate is too high, or warmup too short.",
        advice=_lower_rate_advice(signals),
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
    return np.median(np.lib.stride_tricks.sliding_window_view(x, width), axis=1)


def episodes(signals: Signals, curve: LossCurve, limits: Thresholds) -> list[Episode]:
    """Spikes: rows with a high robust score on the log-loss, joined when at most five rows apart."""
    loss = signals.log.train.loss[curve.rows]
    if loss.min() <= 0 or len(loss) < 24:
        return []
    scores = spike_scores(np.log(loss), floor=0.02)
    high = np.flatnonzero(np.nan_to_num(scores) > limits.spike_z)
    if not len(high):
        return []
    groups = np.split(high, np.flatnonzero(np.diff(high) > 5) + 1)
    found_episodes = (_episode(signals, curve, loss, group) for group in groups[:200])
    return [each for each in found_episodes if each.height > limits.spike_ratio]


def _episode(signals: Signals, curve: LossCurve, loss: np.ndarray, group: np.ndarray) -> Episode:
    first, last = int(group[0]), int(group[-1])
    width = max(4, min(32, len(loss) // 20))
    before = float(np.median(loss[max(0, first - width) : first]))
    rest = loss[last + 1 : last + 1 + 2 * width]
    after = float(np.median(rest)) if len(rest) >= 3 else math.inf
    norms = signals.log.train.grad_norm[curve.rows]
    known = norms[np.isfinite(norms)]
    near = norms[max(0, first - 2) : last + 2]
    near = near[np.isfinite(near)]
    ratio = float(near.max() / max(np.median(known), 1e-12)) if len(near) and len(known) else math.nan
    return Episode(first, last, float(loss[first : last + 1].max()) / before, before, after, ratio)


def _spikes(signals: Signals, curve: LossCurve, limits: Thresholds) -> list[Finding]:
    seen = episodes(signals, curve, limits)
    healed = [each for each in seen if each.is_over]
    strong = [each for each in healed if _is_strong(each, limits)]
    step = signals.log.train.step[curve.rows]
    if strong:
        worst = max(strong, key=lambda each: each.height)
        return [
            found(
                "spike_recovered",
                f"The loss jumped to {worst.height:.1f} times its level at step {step[worst.first]:.0f} and "
                "came back by itself.",
                advice=(
                    "nothing to do for one; if it repeats at the same rows it is the data, otherwise "
                    "lower the rate by 1.5"
                ),
                confidence=0.8,
                first_step=float(step[worst.first]),
                last_step=float(step[worst.last]),
                height=worst.height,
                grad_norm_ratio=worst.grad_ratio if worst.grad_ratio == worst.grad_ratio else None,
                spikes=len(strong),
            )
        ]
    single = [
        each
        for each in healed
        if each.first == each.last and each.height > 2 and signals.log.context.logging_steps == 1
    ]
    if not single:
        return []
    return [
        found(
            "bad_batch",
            f"One step stands out ({single[0].height:.1f} times its level) and the next is normal again: one "
            "odd batch.",
            advice="look at the rows of that step",
            step=float(step[single[0].first]),
            height=single[0].height,
            steps=len(single),
        )
    ]


def _is_strong(episode: Episode, limits: Thresholds) -> bool:
    lasting = episode.last - episode.first >= 2
    return (lasting and episode.grad_ratio > limits.grad_spike_ratio) or (lasting and episode.height > 3)


def _rise_row(curve: LossCurve) -> int:
    """Row of the log at which the smoothed loss last crosses half-way between its best and its end."""
    level = math.sqrt(max(curve.best, 1e-12) * max(curve.end, 1e-12))
    below = np.flatnonzero(curve.smooth <= level)
    position = min(int(below[-1]) + 1, curve.num_rows - 1) if len(below) else 0
    return int(curve.rows[position])


def _peak_row(signals: Signals) -> int:
    rates = signals.log.train.learning_rate
    return int(np.argmax(np.where(np.isfinite(rates), rates, -1.0))) if len(rates) else 0


def _rate_at(signals: Signals, row: int) -> float | None:
    rate = float(signals.log.train.learning_rate[row])
    return rate if math.isfinite(rate) else None


def _lower_rate_advice(signals: Signals, factor: float = 4) -> str:
    schedule, context = signals.schedule, signals.log.context
    knows_usual = context.usual_rate is not None and context.usual_method is None
    if schedule and schedule.peak >= ABSURD_RATE and not knows_usual and context.method not in ("prompt", "p-tuning"):
        return f"a rate of {schedule.peak:.2g} is beyond that of any method: lower it to about {USUAL_ANYWHERE:.0e}"
    warmup = ""
    if schedule and schedule.warmup_share < 0.02:
        warmup = ", and warm up over 5-10 % of the steps"
    return moved(signals, 1 / factor) + warmup


def rises(x: np.ndarray, limits: Thresholds) -> bool:
    """True when a series has a clear upward trend."""
    return trend(x).t > limits.trend_t
