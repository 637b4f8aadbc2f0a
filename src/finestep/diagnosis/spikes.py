"""Spikes: neighbouring rows far above the level before them, which healed by themselves."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from finestep.diagnosis.catalogue import Evidence, found
from finestep.diagnosis.curves import LossCurve
from finestep.diagnosis.robust import spike_scores
from finestep.diagnosis.signals import Signals
from finestep.diagnosis.thresholds import Thresholds
from finestep.finding import Finding


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


def episodes(signals: Signals, curve: LossCurve, limits: Thresholds) -> list[Episode]:
    """Spikes: rows with a high robust score on the log-loss, joined when at most five rows apart."""
    loss = signals.log.train.loss[curve.rows]
    # Scores are of the log-loss, and need 16 rows before the first one.
    if loss.min() <= 0 or len(loss) < 24:
        return []
    scores = spike_scores(np.log(loss), floor=0.02)
    high = np.flatnonzero(np.nan_to_num(scores) > limits.spikes.z)
    if not len(high):
        return []
    groups = np.split(high, np.flatnonzero(np.diff(high) > 5) + 1)
    found_episodes = (_episode(signals, curve, loss, group) for group in groups[:200])
    return [each for each in found_episodes if each.height > limits.spikes.ratio]


def _episode(signals: Signals, curve: LossCurve, loss: np.ndarray, group: np.ndarray) -> Episode:
    first, last = int(group[0]), int(group[-1])
    # The level around a spike: long enough for a median, short enough to follow the descent.
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


def spike_findings(signals: Signals, curve: LossCurve, limits: Thresholds) -> list[Finding]:
    """The highest of the spikes that healed, or else the first odd batch."""
    healed = [each for each in episodes(signals, curve, limits) if each.is_over]
    strong = [each for each in healed if _is_strong(each, limits)]
    step = signals.log.train.step[curve.rows]
    if strong:
        worst = max(strong, key=lambda each: each.height)
        ratio = worst.grad_ratio if math.isfinite(worst.grad_ratio) else None
        more: Evidence = {"last_step": float(step[worst.last]), "grad_norm_ratio": ratio, "spikes": len(strong)}
        return [healed_spike(float(step[worst.first]), worst.height, more)]
    # Where a row is a mean of many steps, one odd batch cannot be told from a jump.
    single = [
        each
        for each in healed
        if each.first == each.last and each.height > 2 and signals.log.context.settings.logging_steps == 1
    ]
    return [odd_batch(float(step[single[0].first]), single[0].height)] if single else []


def healed_spike(first_step: float, height: float, more: Evidence | None = None) -> Finding:
    """A jump of several steps that came back by itself; `height` is its highest loss over the level before it."""
    return found(
        "spike_recovered",
        f"The loss jumped to {height:.1f} times its level at step {first_step:.0f} and came back by itself.",
        advice="nothing to do for one; if it repeats at the same rows it is the data, otherwise lower the rate by 1.5",
        first_step=first_step,
        height=height,
        known=more,
    )


def odd_batch(step: float, height: float) -> Finding:
    """One step far above its level, and the next one normal."""
    return found(
        "bad_batch",
        f"Step {step:.0f} stands out ({height:.1f} times its level) and the next is normal again: an odd batch.",
        advice="look at the rows of that step",
        confidence=0.7,
        step=step,
        height=height,
    )


def _is_strong(episode: Episode, limits: Thresholds) -> bool:
    lasting = episode.last - episode.first >= 2
    return (lasting and episode.grad_ratio > limits.spikes.grad_ratio) or (lasting and episode.height > 3)
