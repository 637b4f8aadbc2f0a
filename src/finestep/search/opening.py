"""The first full runs of a short study: the recommendation, then a higher learning rate at a smaller batch size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from finestep.search.prior import SearchPrior
from finestep.search.settled import WITHOUT_PRIOR
from finestep.search.space import SearchSpace
from finestep.search.strategy import Proposal
from finestep.search.study_space import MANY_STEPS, WIDE, planned_steps
from finestep.study import StartingPoint
from finestep.trial import Trial

STAGE = "second run"
WHY = "few steps mostly train too little, so this run trains more than the one before"
FEW_STEPS = 200
"""Optimizer steps at the recommended batch size: below, the rate of the second run is higher too; the surfaces behind it had 75 to 150."""
STEP, STEP_OF_MORE, STEP_WITHOUT_PRIOR = (1.0, -1.0), (0.0, -1.0), (2.0, -2.0)
"""Octaves of the rate and of the batch size from one given run to the next; the first is the recommendation. A fine-tune of so few steps
mostly trains too little, and the second adds most: twice the updates, each twice as large. Where the search chose by itself, its
choice was nearly a coin toss: before anything is known of how steep the loss is, its gains hardly differ. And it began left of
the recommendation, because too high is the dearer error in general; in short studies too low was (docs/log.md).

Of 200 to 400 steps twice the updates are enough: on the shipped example twice the rate was worse with each of five seeds.

Without a recommendation the first run is the usual rate at batch 16, which is mostly far too little, so that each step is twice as wide."""
GIVEN, GIVEN_OF_MORE, GIVEN_WITHOUT_PRIOR = 3, 2, 4
"""Full runs that are given, at most."""
SURE = 2
"""So many come in any case. Any further one repeats the step, and comes only where it has paid so far: the last run is the best. Without
a recommendation it took 4 runs in the median to come within the noise of 32 recorded fine-tunes, and 5.5 to 6 of 24 with steps of one
octave (docs/log.md)."""
GOES_ON = ("running", "out_of_memory")
"""A run that memory could not hold says nothing of the rate, and the next one has half its batch."""
FARTHEST = 0.75
"""Octaves: a space whose nearest learning rate is farther off does not hold the place."""


@dataclass(frozen=True)
class Opening:
    """Which of the first full runs of a study are given.

    Args:
        num_runs: how many, at most; 0: the search decides all of them.
        step: octaves of the learning rate and of the batch size from one to the next.
        batch_steps: how many of the steps make the batch smaller; the others raise the rate alone.
    """

    num_runs: int = 0
    step: tuple[float, float] = STEP
    batch_steps: int = 1

    @property
    def is_short(self) -> bool:
        """The study has so few steps that it is noisy: what was measured of that had fewer than 200."""
        return self.num_runs > 0 and self.step != STEP_OF_MORE

    @property
    def is_without_prior(self) -> bool:
        """The study is short, and has no recommendation."""
        return self.step == STEP_WITHOUT_PRIOR


DECIDES_ALL = Opening()
"""The search decides all runs."""


def opening_of(start: StartingPoint, *, num_rows: float, num_further_fields: int = 0) -> Opening:
    """Which of the first full runs of a study are given.

    None: its steps are many, or it begins from a rate or a batch size of the user's own, or of their file, of which nothing was measured.

    Args:
        num_rows: rows that a full run trains on, all epochs together.
        num_further_fields: how many fields are tuned besides; from 200 steps on, short runs try them first.
    """
    num_steps = planned_steps(start, num_rows=num_rows)
    is_own = start.learning_rate_reach is not None or start.batch_size_reach is not None
    if is_own or num_steps >= MANY_STEPS:
        return DECIDES_ALL
    if start.learning_rate_sd < WITHOUT_PRIOR:
        if num_steps < FEW_STEPS:
            return Opening(GIVEN, STEP)
        return DECIDES_ALL if num_further_fields else Opening(GIVEN_OF_MORE, STEP_OF_MORE)
    if start.learning_rate_sd >= WIDE["learning_rate_sd"] and num_steps < FEW_STEPS:
        return Opening(GIVEN_WITHOUT_PRIOR, STEP_WITHOUT_PRIOR, batch_steps=GIVEN_WITHOUT_PRIOR)
    return DECIDES_ALL


def next_move(trials: Sequence[Trial], proposals: Sequence[Proposal], opening: Opening) -> int | None:
    """Which given run is next, from 0; None when they are over: so many were made, a run failed, or a shorter one was made.

    From the third on, each must have been better than all before it. Without a recommendation the run of the usual default is the first.
    """
    if (
        not opening.num_runs
        or any(trial.fidelity < 1.0 for trial in trials)
        or any(one.fidelity < 1.0 for one in proposals)
    ):
        return None
    own = [trial for trial in trials if not trial.is_baseline or opening.is_without_prior]
    num_begun = len(own) + len(proposals)
    goes_on = num_begun < opening.num_runs and all(trial.state in GOES_ON or trial.ranks for trial in own)
    if goes_on and num_begun >= SURE:
        known = [trial.outcome.eval_loss for trial in own if trial.outcome is not None]
        losses = [loss for loss in known if loss is not None]
        goes_on = not proposals and len(losses) == len(own) and losses[-1] == min(losses)
    return num_begun if goes_on else None


def place_of(move: int, opening: Opening, prior: SearchPrior, space: SearchSpace) -> tuple[float, float] | None:
    """(log2 rate, log2 batch size) of a given run, of those that the space holds; None where its rates end before.

    >>> space = SearchSpace.between((1e-5, 1e-2), (2, 16))
    >>> rate, batch = place_of(1, Opening(2), SearchPrior(learning_rate=1e-4, batch_size=8), space)
    >>> f"{2**rate:.1e}", 2**batch
    ('2.2e-04', 4.0)
    """
    rate_step, batch_step = move * opening.step[0], min(move, opening.batch_steps) * opening.step[1]
    rates, batches = (np.log2(np.array(values, dtype=float)) for values in (space.learning_rates, space.batch_sizes))
    gaps = np.abs(rates - np.log2(prior.learning_rate) - rate_step)
    if gaps.min() > FARTHEST:
        return None
    nearest = np.abs(batches - np.log2(prior.batch_size) - batch_step).argmin()
    return float(rates[gaps.argmin()]), float(batches[nearest])
