"""What the trials of a study have cost: in full runs, and by the clock."""

from __future__ import annotations

from collections.abc import Sequence

from finestep.ready import Ready, SharePlan
from finestep.search.traits import traits_of
from finestep.study import Budget, StudySpec
from finestep.trial import Trial


def time_spent_s(trials: Sequence[Trial], sharing: SharePlan) -> float:
    """Seconds by the clock that the trials took together, as if no process had ever waited for another."""
    return sum(trial.outcome.cost.elapsed_s for trial in trials if trial.outcome) / sharing.num_workers


def study_spent(spec: StudySpec, trials: Sequence[Trial], ready: Ready | None) -> float:
    """Cost of a study so far, in its own full runs; everything that states or compares a budget counts so.

    Args:
        ready: what the trainer found at its start; None before that.
    """
    fixed_share = ready.card.fixed_share if ready else 0.0
    if spec.trainer is None and spec.framework is None and traits_of(spec.search.strategy).adapts:
        trials = [trial for trial in trials if not _never_trained(trial)]
    return runs_spent(trials, num_epochs=spec.recipe.num_epochs, fixed_share=fixed_share)


def _never_trained(trial: Trial) -> bool:
    """True when memory ran out before the first step was done.

    It costs nothing where the search learns from it: its batch size and larger ones are left out, so that there are few of them. A
    strategy that does not learn could go on like that for ever, and another trainer does not say how far it came: both are charged.
    """
    outcome = trial.outcome
    return trial.state == "out_of_memory" and outcome is not None and outcome.cost.num_train_tokens == 0


def runs_spent(trials: Sequence[Trial], *, num_epochs: float | None = None, fixed_share: float = 0.0) -> float:
    """Cost so far in full runs: tokens trained over those of a full run; an unfinished trial counts as planned.

    Args:
        num_epochs: of a full run, for studies that also tune the number of epochs.
        fixed_share: of a full run's time, what another trainer needs for a run of any length: it starts anew for each.
    """

    def planned(trial: Trial) -> float:
        return planned_runs(trial, num_epochs=num_epochs, fixed_share=fixed_share)

    whole = [
        trial.outcome.cost.num_train_tokens / planned(trial)
        for trial in trials
        if trial.outcome and trial.state == "completed" and trial.outcome.cost.num_train_tokens and not fixed_share
    ]
    full = max(whole, default=0.0)
    spent = 0.0
    for trial in trials:
        exact = full and trial.outcome and trial.outcome.cost.num_train_tokens
        spent += (
            min(trial.outcome.cost.num_train_tokens / full, planned(trial))
            if exact and trial.outcome
            else planned(trial)
        )
    return spent


def planned_runs(trial: Trial, *, num_epochs: float | None, fixed_share: float) -> float:
    """What a trial costs in full runs when it comes to its end; the arguments are those of `runs_spent`."""
    length = trial.fidelity * (trial.recipe.num_epochs / num_epochs if num_epochs else 1.0)
    return fixed_share + (1 - fixed_share) * length


def runs_left(
    spec: StudySpec, trials: Sequence[Trial], budget: Budget, *, ready: Ready | None, num_under_way: int
) -> float:
    """Budget that is left, in full runs; zero when a further trial would not end in time."""
    sharing = ready.sharing if ready is not None else SharePlan()
    further = _trial_time_s(trials) * max((num_under_way + 1) / sharing.num_workers, 1.0)
    if budget.time_s is not None and time_spent_s(trials, sharing) + further > budget.time_s:
        return 0.0
    return max(budget.full_runs - study_spent(spec, trials, ready), 0.0)


def _trial_time_s(trials: Sequence[Trial]) -> float:
    """Median time of a full run, by the trials that rank."""
    times = [trial.outcome.cost.elapsed_s / trial.fidelity for trial in trials if trial.ranks and trial.outcome]
    return sorted(times)[len(times) // 2] if times else 0.0
