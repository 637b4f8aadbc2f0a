"""How sure a verdict is: how often the first reader gave the same label to logs with a verdict of its kind, few rows lowering it.

Counted on 315 logs of 242 repositories of 2026-11-29: the 82 newer labelled ones, and 233 that one reader labelled before any verdict was
made on them (`python -m benchmarks.diagnose --labels FOLDER... --calibrate`). About half were not looked at when rules were made.
Another label that a sensible colleague could give counts nothing here, so some reader accepts a verdict more often than it says.
"""

from __future__ import annotations

AGREEMENT: dict[str, tuple[int, int]] = {
    "already_converged": (3, 1), "answers_cut_off": (2, 2), "diverged": (5, 5), "healthy": (154, 125), "hidden_nan": (4, 4),
    "learning_rate_too_low": (6, 2), "loss_not_comparable": (2, 0), "memorised": (11, 10), "no_labels": (2, 2),
    "non_finite_loss": (1, 0), "nothing_trained": (1, 1), "overfitting": (24, 21), "preference_rate_too_low": (1, 1),
    "reward_not_gained": (19, 19), "several_runs": (15, 9), "stuck_at_chance": (1, 1), "stuck_at_plateau": (1, 1),
    "too_good": (9, 8), "too_little_information": (23, 16), "undertrained": (28, 22), "unexplained_rise": (1, 1),
    "warmup_never_ended": (2, 2),
}  # fmt: skip
"""Code -> (logs with this verdict, how many of them had its label from the first reader)."""
PRIOR, PRIOR_LOGS = 0.75, 3.0
"""Share of all verdicts, and how many logs it weighs: codes that were seen on few logs stay near it."""
FEW_ROWS, OF_FEW_ROWS = 20, 0.95
"""Below so many rows confidence is multiplied by that."""


def confidence_of(code: str, num_rows: int) -> float:
    """Confidence of a verdict on a log of so many rows (training and validation).

    >>> confidence_of("healthy", 1000) > confidence_of("healthy", 10)
    True
    """
    return earned(*AGREEMENT.get(code, (0, 0)), num_rows=num_rows)


def earned(num_logs: int, agreed: float, *, num_rows: int) -> float:
    """Confidence from counts."""
    # Codes that were seen on few logs are drawn towards the share of all verdicts.
    share = (agreed + PRIOR * PRIOR_LOGS) / (num_logs + PRIOR_LOGS)
    return round(share * (OF_FEW_ROWS if num_rows < FEW_ROWS else 1.0), 2)
