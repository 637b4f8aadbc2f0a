"""Do answers belong to their prompts? The loss of exchanged answers against that of their own."""

from __future__ import annotations

from finestep.diagnosis.catalogue import found
from finestep.finding import Finding

UNRELATED_GAP, UNRELATED_Z = 0.05, 2.0
"""Exchanged answers are unrelated to their prompts when the rise of their loss, nats a token, is less than so many standard errors
from zero, and so many above it are still less than this gap. What is known less well says nothing either way."""
MEASURED = frozenset({"answers_unrelated"})
"""Findings that took a measurement of their own: no record of a run shows them, so that its outcome must tell them."""


def pairing_findings(gap: float, standard_error: float) -> list[Finding]:
    """What it means when answers fit other prompts as well: `gap` is the rise of their loss in nats a token, paired by answer."""
    doubt = UNRELATED_Z * standard_error
    if not (gap < doubt and gap + doubt < UNRELATED_GAP):
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
