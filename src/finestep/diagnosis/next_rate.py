"""The one rate that a verdict names: the run's own rate times a factor, kept inside what is usual for its model and method."""

from __future__ import annotations

from finestep.diagnosis.signals import Signals


def next_rate(signals: Signals, factor: float) -> float | None:
    """The rate to try; None when the run's own is not known.

    Where the recommended interval is known and lies in the same direction, the new rate does not leave it.
    """
    schedule = signals.schedule
    if schedule is None:
        return None
    wanted = factor * schedule.peak
    usual = _usual(signals)
    if usual is None:
        return wanted
    _, low, high = usual
    # A recommended interval knows more than a bare factor, if it lies on the side that the run points to.
    inside = min(max(wanted, low), high)
    is_same_way = (inside < schedule.peak) == (factor < 1)
    return inside if is_same_way else wanted


def moved(signals: Signals, factor: float) -> str:
    """Advice in words, with one number: "divide the peak learning rate by 4, to about 5e-05"."""
    rate, schedule = next_rate(signals, factor), signals.schedule
    verb = (
        f"divide the peak learning rate by {1 / factor:.3g}"
        if factor < 1
        else f"multiply the peak learning rate by {factor:.3g}"
    )
    if rate is None or schedule is None:
        return verb
    if abs(rate / (factor * schedule.peak) - 1) > 0.01:
        direction = "lower" if factor < 1 else "raise"
        return f"{direction} the peak learning rate to about {rate:.2g}, which is usual for this model and method"
    return f"{verb}, to about {rate:.2g}"


def _usual(signals: Signals) -> tuple[float, float, float] | None:
    context = signals.log.context
    return context.advice.usual_rate if context.advice.usual_method is None else None
