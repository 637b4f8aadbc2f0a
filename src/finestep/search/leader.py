"""Who leads a study: the best full-length trial by the study's objective, and whose weights may still be wanted."""

from __future__ import annotations

from collections.abc import Sequence

from finestep.search.forgetting import second_best
from finestep.search.observations import Objective
from finestep.search.study_space import objective_of
from finestep.study import StudySpec
from finestep.trial import Trial


def leader(spec: StudySpec, trials: Sequence[Trial]) -> Trial | None:
    """The best trial at full length that may be chosen; of equals, the smaller learning rate."""
    return leading(objective_of(spec, trials), trials)


def leading(objective: Objective, trials: Sequence[Trial]) -> Trial | None:
    """The same by an objective."""
    return min(_ranked(objective, trials), key=lambda row: row[:2], default=(0.0, 0.0, None))[2]


def worth_keeping(spec: StudySpec, trials: Sequence[Trial]) -> set[int]:
    """Numbers of the trials whose weights may still be the answer's: the leader, and with a preference for speed the best of each
    batch size; as long as every trial forgets too much, the one that would be taken."""
    ranked = sorted(_ranked(objective_of(spec, trials), trials), key=lambda row: row[:2])
    if not ranked and (fallback := second_best(trials)) is not None:
        return {fallback.number}
    best_of_batch: dict[int, int] = {}
    for _, _, trial in ranked:
        best_of_batch.setdefault(trial.recipe.effective_batch_size, trial.number)
    first = {trial.number for _, _, trial in ranked[:1]}
    return first | (set(best_of_batch.values()) if spec.search.prefer == "speed" else set())


def _ranked(objective: Objective, trials: Sequence[Trial]) -> list[tuple[float, float, Trial]]:
    return [
        (objective.rank(value), trial.recipe.learning_rate, trial)
        for trial in trials
        if trial.fidelity == 1.0 and (value := objective.value(trial)) is not None
    ]
