"""How many passes over the data, and how many optimizer steps that makes.

Validation loss is lowest near two epochs on sets of about 5k rows (evidence `practice-counts`); fewer than 1k rows
take 4,
50k and more take 1. Encoders on small labelled sets need updates, not passes: at least 1,000, at most 20 epochs
(`few-sample-bert`).
"""

from __future__ import annotations

import math

from finestep.estimate import Estimate

EPOCHS_BY_ROWS = ((1_000, 4.0), (5_000, 3.0), (50_000, 2.0))
ENCODER_EPOCHS, ENCODER_UPDATES, ENCODER_MOST_EPOCHS, ENCODER_BATCH = 3.0, 1_000, 20.0, 32


def num_epochs(num_rows: int | None, *, is_encoder: bool) -> Estimate:
    """Passes over the training rows.

    >>> num_epochs(10_000, is_encoder=False).value
    2.0
    """
    value = _encoder(num_rows) if is_encoder else _causal(num_rows)
    source = "few-sample-bert" if is_encoder else "practice-counts"
    why = (
        "loss is lowest near 2; small sets take more" if not is_encoder else "3, more where that is under 1,000 updates"
    )
    return Estimate(
        value=value,
        low=max(1.0, value / 2) if value > 1 else 0.5,
        high=value * 2,
        unit="epochs",
        source=source,
        why=why,
    )


def _causal(num_rows: int | None) -> float:
    if num_rows is None:
        return 2.0
    return next((epochs for most, epochs in EPOCHS_BY_ROWS if num_rows < most), 1.0)


def _encoder(num_rows: int | None) -> float:
    if num_rows is None:
        return ENCODER_EPOCHS
    needed = math.ceil(ENCODER_UPDATES * ENCODER_BATCH / num_rows)
    return float(min(max(ENCODER_EPOCHS, needed), ENCODER_MOST_EPOCHS))


def num_steps(num_rows: int, *, epochs: float, batch: int) -> int:
    """Optimizer steps of the whole run, the last batch of an epoch included."""
    return max(1, math.ceil(num_rows * epochs / batch))
