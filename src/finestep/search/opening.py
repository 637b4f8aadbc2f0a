"""The second full run of a short study: twice the learning rate, at half the batch size."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from finestep.search.prior import SearchPrior
from finestep.search.space import SearchSpace
from finestep.search.strategy import Proposal
from finestep.study import StartingPoint
from finestep.trial import Trial

STAGE = "second run"
WHY = "few steps mostly train too little, so more and larger ones than recommended"
FEW_STEPS = 200
"""Optimizer steps at the recommended batch size below which a study is short; the surfaces behind the step had 37 to 150. From here on
an eighth of a run has steps enough to tell where to go (`study_space.lengths`)."""
RATE_STEP, BATCH_STEP = 1.0, -1.0
"""Octaves from the recommendation to the second full run. A fine-tune of so few steps mostly trains too little, and this move adds
most: twice the updates, each twice as large. Where the search chose by itself, its choice was nearly a coin toss: before
anything is known of how steep the loss is, its gains hardly differ (docs/log.md)."""
FARTHEST = 0.75
"""Octaves: a space whose nearest learning rate is farther off does not hold the place."""


def is_short(start: StartingPoint | None, *, num_rows: float) -> bool:
    """Whether a study that begins from a recommendation has few steps.

    Args:
        start: None, or one with a reach, is no recommendation: the user's own rate or batch size is searched around.
        num_rows: rows that a full run trains on, all epochs together.
    """
    if start is None or start.learning_rate_reach is not None or start.batch_size_reach is not None:
        return False
    return num_rows / max(start.batch_size, 1) < FEW_STEPS


def is_second(trials: Sequence[Trial], proposals: Sequence[Proposal]) -> bool:
    """True when one full run was begun that has not failed, and nothing shorter: its turn is next."""
    if any(trial.fidelity < 1.0 for trial in trials) or any(one.fidelity < 1.0 for one in proposals):
        return False
    own = [trial for trial in trials if not trial.is_baseline]
    return len(own) + len(proposals) == 1 and all(trial.state == "running" or trial.ranks for trial in own)


def second_place(prior: SearchPrior, space: SearchSpace) -> tuple[float, float] | None:
    """(log2 rate, log2 batch size) of the second full run, of those that the space holds; None where its rates end before.

    >>> space = SearchSpace.between((1e-5, 1e-2), (2, 16))
    >>> rate, batch = second_place(SearchPrior(learning_rate=1e-4, batch_size=8), space)
    >>> f"{2**rate:.1e}", 2**batch
    ('2.2e-04', 4.0)
    """
    rates, batches = (np.log2(np.array(values, dtype=float)) for values in (space.learning_rates, space.batch_sizes))
    gaps = np.abs(rates - np.log2(prior.learning_rate) - RATE_STEP)
    if gaps.min() > FARTHEST:
        return None
    nearest = np.abs(batches - np.log2(prior.batch_size) - BATCH_STEP).argmin()
    return float(rates[gaps.argmin()]), float(batches[nearest])
