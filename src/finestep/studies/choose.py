"""Which trial a study takes, and the recipe that stands for it."""

from __future__ import annotations

from collections.abc import Sequence

from finestep.answer import Answer
from finestep.recipe import Recipe
from finestep.search.forgetting import second_best
from finestep.search.leader import leader
from finestep.search.strategy import Proposal, apply_proposal
from finestep.study import StudySpec
from finestep.trial import Trial


def chosen_trial(spec: StudySpec, trials: Sequence[Trial], answer: Answer | None) -> Trial | None:
    """The answer's trial; without an answer, the leader by the study's objective.

    When every trial ended over the limit of forgetting, the best of those that passed through a state within it.
    """
    if answer is None:
        return leader(spec, trials) or second_best(trials)
    chosen = next((trial for trial in trials if trial.number == answer.trial), None)
    return second_best(trials) if chosen is None and answer.learning_rate is None else chosen


def baseline_trial(trials: Sequence[Trial]) -> Trial | None:
    """The trial of the conservative default, if it was run to its end."""
    whole = (trial for trial in trials if trial.is_baseline and trial.ranks and not trial.is_stopped_by_hand)
    return next(whole, None)


def final_recipe(trial: Trial) -> Recipe:
    """The recipe of a finished trial, with the micro-batch that memory allowed."""
    micro = trial.outcome.cost.micro_batch_size if trial.outcome else None
    if not micro:
        return trial.recipe
    return trial.recipe.changed(micro_batch_size=min(micro, trial.recipe.effective_batch_size))


def predicted_recipe(spec: StudySpec, answer: Answer) -> Recipe:
    """The recipe of an answer that no full-length trial stands for yet."""
    assert answer.learning_rate is not None
    proposal = Proposal(
        learning_rate=answer.learning_rate,
        effective_batch_size=answer.effective_batch_size or spec.recipe.effective_batch_size,
        stage="answer",
        changes=answer.changes,
    )
    return apply_proposal(spec.recipe, proposal)
