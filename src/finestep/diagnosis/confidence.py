"""How sure a verdict is: how often a reader gave the same label to logs with a verdict of its kind, few rows lowering it.

Counted on 273 logs of 2026-11-29: the 82 newer labelled ones and 191 of 135 other repositories that one reader labelled before any verdict
was made on them (`python -m benchmarks.diagnose --labels FOLDER... --calibrate`). About half were not looked at when rules were made.
A verdict that the first reader gave counts 1, one that a sensible colleague could give counts half: the share of readers who would agree.
"""

from __future__ import annotations

AGREEMENT: dict[str, tuple[int, float]] = {
    "already_converged": (1, 0.5), "answers_cut_off": (2, 2.0), "diverged": (5, 5.0), "healthy": (134, 118.0), "hidden_nan": (4, 4.0),
    "learning_rate_too_low": (6, 3.5), "loss_not_comparable": (2, 0.5), "memorised": (10, 9.5), "no_labels": (2, 2.0),
    "nothing_trained": (1, 1.0), "overfitting": (20, 19.5), "preference_rate_too_low": (1, 1.0), "reward_not_gained": (19, 19.0),
    "several_runs": (10, 6.0), "stuck_at_chance": (1, 1.0), "stuck_at_plateau": (1, 1.0), "too_good": (7, 6.5),
    "too_little_information": (21, 16.0), "undertrained": (22, 19.0), "unexplained_rise": (1, 1.0), "unreadable_layout": (1, 1.0),
    "warmup_never_ended": (2, 2.0),
}  # fmt: skip
"""Code -> (logs with this verdict, how many readers' votes it had)."""
PRIOR, PRIOR_LOGS = 0.8, 4.0
"""Share of votes of all verdicts, and how many logs it weighs: codes that were seen on few logs stay near it."""
FEW_ROWS, OF_FEW_ROWS = 20, 0.95
"""Below so many rows confidence is multiplied by that."""


def confidence_of(code: str, num_rows: int) -> float:
    """Confidence of a verdict on a log of so many rows (training and validation).

    >>> confidence_of("healthy", 1000) > confidence_of("healthy", 10)
    True
    """
    return earned(*AGREEMENT.get(code, (0, 0.0)), num_rows=num_rows)


def earned(num_logs: int, votes: float, *, num_rows: int) -> float:
    """Confidence from counts."""
    # Codes that were seen on few logs are drawn towards the share of all verdicts.
    share = (votes + PRIOR * PRIOR_LOGS) / (num_logs + PRIOR_LOGS)
    return round(share * (OF_FEW_ROWS if num_rows < FEW_ROWS else 1.0), 2)
