"""Trials that forgot more than the study allows: what to say about them, and which one to take when there is no other."""

from __future__ import annotations

from collections.abc import Sequence

from finestep.trial import Trial


def over_limit(trials: Sequence[Trial]) -> list[Trial]:
    """Trials that ended further from the base than the study allows, the nearest first."""
    over = [trial for trial in trials if trial.outcome is not None and trial.outcome.forgets_too_much]
    return sorted(over, key=_distance)


def forgetting_sentence(trials: Sequence[Trial], limit: float) -> str:
    """What to say when trials ended over the limit and none that may be chosen; empty when that is not so.

    The limit is in nats a token.
    """
    over = over_limit(trials)
    if not over or any(trial.is_choosable for trial in trials):
        return ""
    nearest = over[0]
    return (
        f"no trial ended within {limit:g} nats a token of the base; trial {nearest.number} came closest with "
        f"{_distance(nearest):.3g} at learning rate {nearest.recipe.learning_rate:.2g}: allow more, or lower the learning rates"
    )


def second_best(trials: Sequence[Trial]) -> Trial | None:
    """The full-length trial to take when none ended within the limit: of those that passed through a state within it, whose
    weights were kept, the one with the lowest loss there."""
    kept = [trial for trial in over_limit(trials) if trial.ranks and trial.fidelity == 1.0]
    return min(kept, key=lambda trial: (_loss(trial), trial.recipe.learning_rate), default=None)


def _distance(trial: Trial) -> float:
    assert trial.outcome is not None
    return trial.outcome.forgetting.kl_at_end if trial.outcome.forgetting.kl_at_end is not None else float("inf")


def _loss(trial: Trial) -> float:
    assert trial.outcome is not None
    assert trial.outcome.eval_loss is not None
    return trial.outcome.eval_loss
