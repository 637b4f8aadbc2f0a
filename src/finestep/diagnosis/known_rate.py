"""The rate against what is recommended for this model, method and data, where those are known; the loss decides first."""

from __future__ import annotations

import math

from finestep.diagnosis.catalogue import Evidence, found
from finestep.diagnosis.signals import Signals
from finestep.diagnosis.thresholds import Thresholds
from finestep.diagnosis.too_low import level_of_end
from finestep.finding import Finding

FAR = 3.0
"""Factor beyond the recommended interval from which it is worth a word; the interval holds four of five published optima."""
STILL_IGNORANT = 2.5
"""Loss (nats a token) above which a language model still has much to learn."""
VERY_FAR = 10.0
"""Factor from the recommended rate at which a small gain is the rate's fault."""


def known_rate_findings(signals: Signals, limits: Thresholds) -> list[Finding]:
    """What the peak rate is beside the usual one; nothing where neither model nor the size of it is known."""
    advice, schedule = signals.log.context.advice, signals.schedule
    if schedule is None or not schedule.peak > 0:
        return []
    if advice.usual_rate is None:
        return _if_bounded(signals, schedule.peak, advice.least_rate, limits)
    if advice.usual_method is not None:
        return _if_guessed(schedule.peak, advice.usual_rate, advice.usual_method)
    aim, low, high = advice.usual_rate
    known: Evidence = {"learning_rate": schedule.peak, "usual": aim, "usual_low": low, "usual_high": high}
    if schedule.peak * FAR < low:
        factor = aim / schedule.peak
        meaning = (
            f"The rate is {factor:.0f} times below what is usual for this model and method ({low:.2g} to {high:.2g})."
        )
        return [found(_code_below(signals, factor, limits), meaning, advice=f"try {aim:.2g}", known=known)]
    if schedule.peak > FAR * high:
        factor = schedule.peak / aim
        meaning = (
            f"The rate is {factor:.0f} times above what is usual for this model and method ({low:.2g} to {high:.2g})."
        )
        return [
            found(
                "rate_above_usual", meaning, advice=f"try {aim:.2g} if the run is not as good as you hoped", known=known
            )
        ]
    return []


def _code_below(signals: Signals, factor: float, limits: Thresholds) -> str:
    """A verdict where the run gained or knows little, otherwise a remark."""
    curve = signals.loss
    gain = 1 - curve.end / curve.start if curve is not None and curve.start > 0 else math.nan
    # A loss over labels says nothing of words, so its level is not compared with that of texts.
    is_classifier = signals.log.context.num_labels or signals.metric is not None
    is_poor = curve is not None and level_of_end(signals, curve) > STILL_IGNORANT and not is_classifier
    decides = factor >= VERY_FAR and (gain < limits.too_low.small_gain or is_poor)
    return "rate_below_usual" if decides else "rate_far_below_usual"


def _if_bounded(signals: Signals, peak: float, least: tuple[float, float] | None, limits: Thresholds) -> list[Finding]:
    """The model is not known, but the trainer's count of operations says how large it is at most; a smaller one takes a higher rate."""
    if least is None or peak * FAR >= least[1]:
        return []
    aim, low = least
    meaning = (
        f"The rate is at least {aim / peak:.0f} times below what is usual for a model as small as this one must be, by its operations "
        f"a row ({low:.2g} and more)."
    )
    code = _code_below(signals, aim / peak, limits)
    return [found(code, meaning, advice=f"try {aim:.2g}", learning_rate=peak, usual=aim, usual_low=low)]


def _if_guessed(peak: float, usual: tuple[float, float, float], method: str) -> list[Finding]:
    """The method is not known: say what would follow if it were the usual one, and decide nothing."""
    aim, low, high = usual
    if peak * FAR >= low:
        return []
    name = {"lora": "LoRA"}.get(method, method)
    meaning = f"If this is {name}, the rate is {aim / peak:.0f} times below what is usual for its size ({low:.2g} to {high:.2g})."
    advice = f"then try {aim:.2g}; say `--method` to have it judged"
    return [
        found(
            "rate_far_below_usual",
            meaning,
            advice=advice,
            learning_rate=peak,
            usual=aim,
            usual_low=low,
            usual_high=high,
        )
    ]
