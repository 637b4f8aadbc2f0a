"""The first full runs of a short study: the recommendation, a higher learning rate at a smaller batch size, and what follows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from finestep.recipe import Method
from finestep.search.prior import SearchPrior
from finestep.search.settled import WITHOUT_PRIOR
from finestep.search.space import SearchSpace
from finestep.search.strategy import Proposal
from finestep.search.study_space import FEW_STEPS, MANY_STEPS, WIDE, planned_steps
from finestep.study import StartingPoint
from finestep.trial import Trial

STAGE, STAGE_BACK = "second run", "step back"
WHY = {
    STAGE: "few steps mostly train too little, so this run trains more than the one before",
    STAGE_BACK: "more at a higher rate was worse, so this run makes more and smaller steps",
}
"""What is said of a given run, by its stage."""
STEP, STEP_OF_MORE = (1.0, -1.0), (0.0, -1.0)
"""Octaves of the rate and of the batch size from one given run to the next; the first is the recommendation. A fine-tune of so few steps
mostly trains too little, and the second adds most: twice the updates, each twice as large. Where the search chose by itself, its
choice was nearly a coin toss: before anything is known of how steep the loss is, its gains hardly differ. And it began left of
the recommendation, because too high is the dearer error in general; in short studies too low was (docs/log.md).

Of 200 to 400 steps twice the updates are enough: on the shipped example twice the rate was worse with each of five seeds."""
STEP_ON_OF_MORE = (-1.0, -3.0)
"""Octaves from the recommendation to the third run of 200 to 400 steps, where the second paid: more steps again, and smaller ones. It was
better than the second on each of three recorded fine-tunes, and on the shipped example with five seeds: .25 in the mean, in place of .35
(docs/log.md)."""
STEP_WITHOUT_PRIOR, STEP_OF_FULL_WITHOUT_PRIOR = (2.0, -2.0), (3.0, -3.0)
"""Without a recommendation the first run is the usual rate at batch 16, which is mostly far too little, so that each step is twice as wide.
The usual rate of full fine-tuning was farther from the best than that of LoRA, so that its step is wider still (docs/log.md)."""
STEP_BACK = (-1.0, -2.0)
"""Octaves from the recommendation to the third run of a study of fewer than 200 steps whose second was worse: the rate was too high, and a
smaller batch is mostly better still. Half the rate with four times the updates moves the weights about as far as lies between the first two
runs, in smaller steps. On 30 recorded fine-tunes by loss the choice after three runs was 3.7 % above the best in the mean, and 4.5 % where
the search chose the third by itself (docs/log.md)."""
GIVEN, GIVEN_WITHOUT_PRIOR = 3, 4
"""Full runs that are given, at most."""
SURE = 2
"""So many come in any case. Any further one repeats the step, and comes only where it has paid so far: the last run is the best. Without
a recommendation it took 3 runs in the median to come within the noise of 34 recorded fine-tunes, and 5.5 to 6 of 24 with steps of one
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
        is_without_prior: the study is short, and has no recommendation.
    """

    num_runs: int = 0
    step: tuple[float, float] = STEP
    batch_steps: int = 1
    is_without_prior: bool = False

    @property
    def is_short(self) -> bool:
        """The study has so few steps that it is noisy: what was measured of that had fewer than 200."""
        return self.num_runs > 0 and self.step != STEP_OF_MORE


DECIDES_ALL = Opening()
"""The search decides all runs."""


def opening_of(
    start: StartingPoint, *, num_rows: float, method: Method = "lora", num_further_fields: int = 0
) -> Opening:
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
        return DECIDES_ALL if num_further_fields else Opening(GIVEN, STEP_OF_MORE)
    if start.learning_rate_sd >= WIDE["learning_rate_sd"] and num_steps < FEW_STEPS:
        step = STEP_OF_FULL_WITHOUT_PRIOR if method == "full" else STEP_WITHOUT_PRIOR
        return Opening(GIVEN_WITHOUT_PRIOR, step, batch_steps=GIVEN_WITHOUT_PRIOR, is_without_prior=True)
    return DECIDES_ALL


def next_octaves(
    trials: Sequence[Trial], proposals: Sequence[Proposal], opening: Opening
) -> tuple[float, float] | None:
    """Octaves of the rate and of the batch size from the recommendation to the next given run.

    None when they are over: so many were made, a run failed, or a shorter one was made.

    From the third on, each must have been better than all before it; only after a second that was worse a third goes back. Without a
    recommendation the run of the usual default is the first.
    """
    if (
        not opening.num_runs
        or any(trial.fidelity < 1.0 for trial in trials)
        or any(one.fidelity < 1.0 for one in proposals)
    ):
        return None
    own = [trial for trial in trials if not trial.is_baseline or opening.is_without_prior]
    num_begun = len(own) + len(proposals)
    if num_begun >= opening.num_runs or (proposals and num_begun >= SURE):
        return None
    if num_begun == SURE and opening.step == STEP and own[0].ranks and _is_worse(own[1], own[0]):
        return STEP_BACK
    if not all(trial.state in GOES_ON or trial.ranks for trial in own):
        return None
    if num_begun >= SURE and any(_loss(trial) is None or _is_worse(own[-1], trial) for trial in own):
        return None
    if num_begun == SURE and opening.step == STEP_OF_MORE:
        return STEP_ON_OF_MORE
    return num_begun * opening.step[0], min(num_begun, opening.batch_steps) * opening.step[1]


def _is_worse(trial: Trial, other: Trial) -> bool:
    """A run that diverged, or ended with a higher loss than another that ended."""
    loss, least = _loss(trial), _loss(other)
    return trial.state == "diverged" or (loss is not None and least is not None and loss > least)


def _loss(trial: Trial) -> float | None:
    return None if trial.outcome is None else trial.outcome.eval_loss


def stage_of(octaves: tuple[float, float]) -> str:
    """The stage of a given run, by where it lies from the recommendation."""
    if octaves == STEP_BACK:
        return STAGE_BACK
    return STAGE if any(octaves) else "full runs"


def place_of(octaves: tuple[float, float], prior: SearchPrior, space: SearchSpace) -> tuple[float, float] | None:
    """(log2 rate, log2 batch size) of a given run, of those that the space holds; None where its rates end before.

    >>> space = SearchSpace.between((1e-5, 1e-2), (2, 16))
    >>> rate, batch = place_of((1.0, -1.0), SearchPrior(learning_rate=1e-4, batch_size=8), space)
    >>> f"{2**rate:.1e}", 2**batch
    ('2.2e-04', 4.0)
    """
    rates, batches = (np.log2(np.array(values, dtype=float)) for values in (space.learning_rates, space.batch_sizes))
    gaps = np.abs(rates - np.log2(prior.learning_rate) - octaves[0])
    if gaps.min() > FARTHEST:
        return None
    nearest = np.abs(batches - np.log2(prior.batch_size) - octaves[1]).argmin()
    return float(rates[gaps.argmin()]), float(batches[nearest])
