"""Do answers belong to their prompts? The loss of exchanged answers against that of their own."""

from __future__ import annotations

from finestep.diagnosis.catalogue import found
from finestep.finding import Finding

UNRELATED_GAP, UNRELATED_Z = 0.05, 3.0
"""Rise of the loss of exchanged answers, nats a token and standard errors, below which they are unrelated to their prompts."""


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
