"""Learned by heart, judged without any validation: the training loss over many epochs, or in stairs at their borders."""

from __future__ import annotations

import math

import numpy as np

from finestep.diagnosis.catalogue import found
from finestep.diagnosis.curves import LossCurve
from finestep.diagnosis.signals import Signals
from finestep.diagnosis.thresholds import Thresholds
from finestep.finding import Finding

STAIR, SMALL_STAIR, STAIRS_SHARE, MAX_BORDERS = 0.25, 0.05, 0.45, 100
"""Drops at two epoch borders, and the end over the first epoch's level, that mean learning by heart; a drop worth a remark."""
USUAL_EPOCHS, HIGH_STAIR = 3.5, 0.4
"""Within the usual one to three epochs only stairs so high are learning by heart: the shipped model at its best rate fell in two stairs
of 25 % and more, one of them lower than this, while its validation loss still went down."""
MANY_EPOCHS, NEXT_TO_NOTHING = 20.0, 0.01
"""After so many epochs a loss of that share of its first level is learned by heart, whatever its scale."""
MEMORISED_FROM = 0.5
"""First-epoch losses below this (nats) are no text generation; their fall to zero proves nothing."""


def memorised(signals: Signals, limits: Thresholds) -> Finding | None:
    """Without any validation: the training loss fell far below its first epoch, over many epochs or in stairs at their borders."""
    curve, epochs = signals.loss, signals.progress.epochs
    if (
        curve is None
        or curve.num_rows < limits.min_rows
        or signals.log.context.objective != "supervised"
        or not epochs >= 2
    ):
        return None
    level = _first_epoch_level(signals, curve)
    share = curve.end / level if level > 0 else 1.0
    drops = _border_drops(signals, curve)
    by_heart = epochs >= limits.memorised.epochs and level >= MEMORISED_FROM and share <= limits.memorised.share
    by_heart = by_heart or (epochs >= MANY_EPOCHS and share <= NEXT_TO_NOTHING)
    # Two borders, because one drop may be a change of the rate.
    least = STAIR if epochs > USUAL_EPOCHS else HIGH_STAIR
    in_stairs = sum(drop >= least for drop in drops) >= 2 and share < STAIRS_SHARE
    if not (by_heart or in_stairs):
        return _stairs(drops)
    from_epoch = next((number for number, drop in enumerate(drops, start=2) if drop >= STAIR / 2), None)
    since = f" from epoch {from_epoch} on" if from_epoch else ""
    how = (
        f"in stairs at the epoch borders, from {level:.3g} to {curve.end:.2g}"
        if in_stairs
        else f"from {level:.3g} to {curve.end:.2g}"
    )
    return found(
        "memorised",
        f"Over {epochs:.0f} epochs the training loss fell {how}: the rows are learned by heart{since}.",
        advice="train 1-3 epochs and hold back validation rows to see where it turns",
        epochs=epochs,
        first_epoch_loss=level,
        last_loss=curve.end,
    )


def _stairs(drops: list[float]) -> Finding | None:
    """Steps of a size that is worth a word, and proves nothing."""
    largest = max(drops, default=0.0)
    if largest < SMALL_STAIR:
        return None
    meaning = (
        f"The training loss drops by {100 * largest:.0f} % at an epoch border: rows that come again are recognised."
    )
    return found("stairs", meaning, advice="hold back validation rows before adding epochs", largest_drop=largest)


def _first_epoch_level(signals: Signals, curve: LossCurve) -> float:
    """Usual loss of the first epoch's later half, or the first row where that epoch has none."""
    epoch = signals.log.train.epoch[curve.rows]
    loss = signals.log.train.loss[curve.rows]
    first = loss[epoch <= 1.05]
    return float(np.median(first)) if len(first) else max(curve.first, curve.start)


def _border_drops(signals: Signals, curve: LossCurve) -> list[float]:
    """Relative drop at each epoch border, between the fifths of an epoch before and after it, beyond the slope inside the epochs."""
    epoch, loss = signals.log.train.epoch[curve.rows], signals.log.train.loss[curve.rows]
    if not np.isfinite(epoch).all() or epoch[-1] < 1.2:
        return []
    drops = []
    for border in range(1, min(math.ceil(epoch[-1] - 0.2), MAX_BORDERS)):
        before, after = (
            loss[(epoch > border + low) & (epoch <= border + high)] for low, high in ((-0.25, 0.0), (0.02, 0.25))
        )
        inside = loss[(epoch > border - 0.6) & (epoch <= border - 0.25)]
        if min(len(before), len(after), len(inside)) < 3 or not np.median(before) > 0:
            continue
        # A loss that falls steadily falls at the border too: the slope of the epoch before is taken off.
        slope = max(0.0, 1 - float(np.median(before) / max(float(np.median(inside)), 1e-12)))
        drops.append(1 - float(np.median(after) / np.median(before)) - slope)
    return drops
