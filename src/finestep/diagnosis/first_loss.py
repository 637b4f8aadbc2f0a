"""What the first training loss says about its scale, its template and its labels."""

from __future__ import annotations

import math

from finestep.diagnosis.catalogue import found
from finestep.diagnosis.chance import accumulation_factor, chance_level
from finestep.diagnosis.curves import LossCurve
from finestep.diagnosis.signals import Signals
from finestep.diagnosis.thresholds import Thresholds
from finestep.finding import Finding


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
