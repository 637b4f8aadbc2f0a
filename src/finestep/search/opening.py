"""The first full runs of a short study: the recommendation, and more steps from there, by how many rows there are and what paid so far."""

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

Octaves = tuple[float, float]
"""Of the learning rate and of the batch size, from the recommendation."""
STAGE, STAGE_MORE, STAGE_BACK, STAGE_MEANWHILE = "second run", "more steps", "step back", "meanwhile"
WHY = {
    STAGE: "few steps mostly train too little, so this run trains more than the one before",
    STAGE_MORE: "few steps mostly train too little, so this run makes more of them",
    STAGE_BACK: "more at a higher rate was worse, so this run makes more and smaller steps",
    STAGE_MEANWHILE: "a run at a higher rate is not over yet; meanwhile this one makes more and smaller steps",
}
"""What is said of a given run, by its stage."""
PATH: tuple[Octaves, ...] = ((0.0, 0.0), (1.0, -1.0), (2.0, -1.0))
"""The given runs of fewer than 200 steps where the recommended batch size is below 8, that is below about 800 rows: as long as each is
better than all before it. So few rows mostly train too little, and the second adds most: twice the updates, each twice as large. Where
the search chose by itself, its choice was nearly a coin toss: before anything is known of how steep the loss is, its gains hardly
differ. And it began left of the recommendation, because too high is the dearer error in general; in short studies too low was
(docs/log.md)."""
STEP_BACK: Octaves = (-1.0, -2.0)
"""The third run there, where the second was worse: the rate was too high, and a smaller batch is mostly better still. Half the rate
with four times the updates moves the weights about as far as lies between the first two runs, in smaller steps (docs/log.md)."""
PATH_OF_MORE: tuple[Octaves, ...] = ((0.0, 0.0), (-1.0, -2.0), (-1.0, -3.0))
"""The given runs from a recommended batch size of 8 on: half the rate with four times the updates, and twice the updates again. On
eight recorded fine-tunes of 125 to 250 steps the choice was 4.2 % above the best after two runs, and 17.5 % after twice the rate or
half the batch alone (docs/log.md)."""
SMALL_BATCH = 8
"""Below, a study of few steps has the first path, from here on the second."""
PATH_WITHOUT_PRIOR: tuple[Octaves, ...] = tuple((2.0 * step, -2.0 * step) for step in range(4))
PATH_OF_FULL_WITHOUT_PRIOR: tuple[Octaves, ...] = tuple((3.0 * step, -3.0 * step) for step in range(3))
"""Without a recommendation the first run is the usual rate at batch 16, which is mostly far too little, so that each step is wide. The
usual rate of full fine-tuning was farther from the best than that of LoRA, so that its step is wider still. It took 3 runs in the
median to come within the noise of 35 recorded fine-tunes, and 5.5 to 6 of 24 with steps of one octave (docs/log.md)."""
SURE = 2
"""So many runs come in any case; any further one only where each was better than all before it."""
GOES_ON = ("running", "out_of_memory")
"""A run that memory could not hold says nothing of the rate, and the next one has a smaller batch."""
FARTHEST = 0.75
"""Octaves: a space whose nearest learning rate is farther off does not hold the place."""


@dataclass(frozen=True)
class Opening:
    """Which of the first full runs of a study are given.

    Args:
        path: where they lie, at most so many; empty: the search decides all of them.
        back: where the third lies instead when the second was worse; None: the search decides.
        stage: of those after the first (`WHY`).
        is_without_prior: the study is short, and has no recommendation.
    """

    path: tuple[Octaves, ...] = ()
    back: Octaves | None = None
    stage: str = STAGE
    is_without_prior: bool = False

    @property
    def is_short(self) -> bool:
        """The study has so few steps that it is noisy, as all were that had given runs."""
        return bool(self.path)


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
    if is_own or num_steps >= (FEW_STEPS if num_further_fields else MANY_STEPS):
        return DECIDES_ALL
    if start.learning_rate_sd < WITHOUT_PRIOR:
        if start.batch_size < SMALL_BATCH and num_steps < FEW_STEPS:
            return Opening(PATH, back=STEP_BACK)
        return Opening(PATH_OF_MORE, stage=STAGE_MORE)
    if start.learning_rate_sd >= WIDE["learning_rate_sd"] and num_steps < FEW_STEPS:
        path = PATH_OF_FULL_WITHOUT_PRIOR if method == "full" else PATH_WITHOUT_PRIOR
        return Opening(path, is_without_prior=True)
    return DECIDES_ALL


def next_octaves(trials: Sequence[Trial], proposals: Sequence[Proposal], opening: Opening) -> Octaves | None:
    """Where the next given run lies.

    None when they are over: so many were made, a run failed or was worse, or a shorter one was made. Without a recommendation the run
    of the usual default is the first. While a given run is not over yet, a free device takes the next one, as if it will pay; where
    another is given for the case that it does not, that one.
    """
    if any(trial.fidelity < 1.0 for trial in trials) or any(one.fidelity < 1.0 for one in proposals):
        return None
    own = [trial for trial in trials if not trial.is_baseline or opening.is_without_prior]
    num_begun = len(own) + len(proposals)
    if num_begun >= len(opening.path) or (proposals and num_begun >= SURE):
        return None
    if num_begun == SURE and own[0].ranks and _is_worse(own[1], own[0]):
        is_higher = own[1].recipe.learning_rate > own[0].recipe.learning_rate
        return opening.back if is_higher else None
    if not all(trial.state in GOES_ON or trial.ranks for trial in own):
        return None
    ended = [trial for trial in own if trial.state != "running"]
    if num_begun >= SURE and (not ended or any(_loss(trial) is None or _is_worse(ended[-1], trial) for trial in ended)):
        return None
    if num_begun >= SURE and len(ended) < len(own) and opening.back is not None:
        return opening.back if num_begun == SURE else None
    return opening.path[num_begun]


def _is_worse(trial: Trial, other: Trial) -> bool:
    """A run that diverged or forgot too much, or ended with a higher loss than another that ended."""
    loss, least = _loss(trial), _loss(other)
    is_lost = trial.state == "diverged" or (trial.outcome is not None and trial.outcome.forgets_too_much)
    return is_lost or (loss is not None and least is not None and loss > least)


def _loss(trial: Trial) -> float | None:
    return None if trial.outcome is None else trial.outcome.eval_loss


def stage_of(octaves: Octaves, trials: Sequence[Trial], opening: Opening) -> str:
    """The stage of a given run, by where it lies, and by what is over."""
    if not any(octaves):
        return "full runs"
    if octaves in opening.path:
        return opening.stage
    return STAGE_MEANWHILE if any(trial.state == "running" for trial in trials) else STAGE_BACK


def given_places(opening: Opening, prior: SearchPrior, space: SearchSpace) -> list[tuple[float, float]]:
    """(log2 rate, log2 batch size) of all runs that may be given."""
    wanted = opening.path if opening.back is None else (*opening.path, opening.back)
    return [place for octaves in wanted if (place := place_of(octaves, prior, space)) is not None]


def place_of(octaves: Octaves, prior: SearchPrior, space: SearchSpace) -> tuple[float, float] | None:
    """(log2 rate, log2 batch size) of a given run, of those that the space holds.

    None where its rates end before, or where a lower rate would not come with a smaller batch: because of several devices, or at one row
    already. That run would only train less.

    >>> space = SearchSpace.between((1e-5, 1e-2), (2, 16))
    >>> rate, batch = place_of((1.0, -1.0), SearchPrior(learning_rate=1e-4, batch_size=8), space)
    >>> f"{2**rate:.1e}", 2**batch
    ('2.2e-04', 4.0)
    """
    rates, batches = (np.log2(np.array(values, dtype=float)) for values in (space.learning_rates, space.batch_sizes))
    gaps = np.abs(rates - np.log2(prior.learning_rate) - octaves[0])
    if gaps.min() > FARTHEST:
        return None
    batch = float(batches[np.abs(batches - np.log2(prior.batch_size) - octaves[1]).argmin()])
    if octaves[0] < 0 and np.log2(prior.batch_size) - batch < FARTHEST:
        return None
    return float(rates[gaps.argmin()]), batch
