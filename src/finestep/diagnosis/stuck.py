"""A loss that sits on a level of ignorance from start to end, or comes back to one."""

from __future__ import annotations

import math

import numpy as np

from finestep.diagnosis.catalogue import Evidence, found
from finestep.diagnosis.chance import MOST_IGNORANT, Chance
from finestep.diagnosis.curves import LossCurve
from finestep.diagnosis.rate_level import chance_of, diverged, is_high_rate, lower_rate_advice
from finestep.diagnosis.signals import Signals
from finestep.diagnosis.thresholds import Thresholds
from finestep.finding import Finding

WHEN_AT_CHANCE = "check that labels belong to their inputs and that the head is trained; then try a rate 3 times higher"
GUESSING = 0.03
"""Distance of an accuracy from that of a guess among k labels, and relative distance of the loss from ln k, of a model that guesses."""
HARDLY_WORDS = (6.0, 8.5)
"""Nats a token of a model that knows single tokens and next to nothing of their order."""
STANDS_STILL = 0.01
"""Relative change below which a loss stands."""
BETTER_BEFORE = 0.05
"""A relative change that is worth the name."""


def stuck_findings(signals: Signals, limits: Thresholds) -> list[Finding]:
    """A loss that sits on a level of ignorance from start to end."""
    curve = signals.loss
    if curve is None or curve.num_rows < limits.min_rows or signals.log.context.objective != "supervised":
        return []
    guessing = _guesses(signals, curve, limits)
    if guessing is not None:
        return [guessing]
    chance = chance_of(signals, curve.end, limits)
    evaluation = signals.evaluation
    if chance is None or not _is_plausible(signals, chance) or not _never_left(signals, curve, chance, limits):
        return _ignorant_to_the_end(signals, curve, limits)
    # A validation loss that left chance behind says more than the noisy training loss.
    if evaluation is not None and evaluation.best < 0.9 * min(chance.loss, evaluation.first):
        return []
    peak = signals.schedule.peak if signals.schedule else math.nan
    evidence: Evidence = {"loss": curve.end, "level": chance.words, "learning_rate": peak if peak == peak else None}
    if chance.kind == "unigram" or is_high_rate(signals):
        return [
            found(
                "stuck_high_rate",
                f"The loss sits at {chance.words} from the start and never leaves it: most likely the rate is "
                "too high.",
                advice=lower_rate_advice(signals, factor=5),
                confidence=0.65,
                known=evidence,
            )
        ]
    return [
        found(
            "stuck_at_chance",
            f"The loss stays at {chance.words}: the model learns nothing.",
            advice=WHEN_AT_CHANCE,
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
    start = min(curve.start, float(curve.smooth[curve.num_rows // 10])) if curve.start > MOST_IGNORANT else curve.start
    if curve.end < (1 - limits.too_low.small_gain / 2) * start or signals.progress.last_step < limits.few_steps:
        return []
    if is_high_rate(signals):
        meaning = f"The loss ends at {level:.3g}, hardly below what token frequencies alone reach, at a high rate: it is too high."
        return [found("stuck_high_rate", meaning, advice=lower_rate_advice(signals, factor=5), loss=level)]
    if signals.schedule is not None and not _stands_still(curve, start):
        return []
    meaning = (
        f"The loss ends at {level:.3g}, hardly below what token frequencies alone reach: the model learns nothing."
    )
    return [found("stuck_at_chance", meaning, advice=WHEN_AT_CHANCE, loss=level)]


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
    # The number of labels is read off the loss itself, because logs seldom say it.
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
    if was_better or rose_first or is_high_rate(signals):
        how = " after it had been better." if was_better else " after a rise in its first steps." if rose_first else "."
        return diverged(signals, words + how, curve.best, curve.end)
    return found(
        "stuck_at_chance",
        words + ": it learns nothing.",
        advice=WHEN_AT_CHANCE,
        loss=curve.end,
        accuracy=float(accuracy[-1]),
    )


def _is_plausible(signals: Signals, chance: Chance) -> bool:
    """ln 3 and ln 4 are also ordinary losses of chat models, so they need a known number of labels or an accuracy."""
    if chance.kind != "labels" or chance.loss < 0.7 or signals.log.context.num_labels:
        return True
    return any(
        name.endswith(("accuracy", "f1", "acc")) for series in signals.log.evaluations for name in series.metrics
    )


def _never_left(signals: Signals, curve: LossCurve, chance: Chance, limits: Thresholds) -> bool:
    # A model that has just begun is at chance too.
    enough = not signals.progress.last_step < limits.few_steps
    # An untrained head guesses a little worse than evenly, hardly ever better.
    begins_there = (
        -limits.stuck.chance_tolerance
        < curve.first / chance.loss - 1 + curve.noise
        < 3 * limits.stuck.chance_tolerance + 4 * curve.noise
    )
    stays = abs(curve.median / chance.loss - 1) < limits.stuck.chance_tolerance
    gain = max(curve.start, float(curve.smooth[0])) / curve.end - 1
    is_flat = abs(curve.whole.change) < 1.5 * limits.stuck.chance_tolerance * chance.loss
    lowest = (1 - 2 * limits.stuck.chance_tolerance - limits.level_z * curve.contrast_error) * chance.loss
    return bool(
        enough
        and begins_there
        and stays
        and is_flat
        and gain < 1.5 * limits.stuck.chance_tolerance + curve.noise
        and curve.best > lowest
    )
