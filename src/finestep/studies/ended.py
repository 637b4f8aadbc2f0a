"""What the end of a trial means for its study: what is kept of it, and whether another trial would help."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from finestep.disk import remove
from finestep.search.by_hand import projected
from finestep.store.study_store import StudyStore
from finestep.study_layout import MODEL
from finestep.trial import Outcome, Trial

ENOUGH_FAILURES = 2
"""When the first so many trials fail for the same reason, another learning rate will not help."""


@dataclass
class Failures:
    """Why trials failed since the start of the loop, as long as none ended otherwise."""

    _reasons: list[str] = field(default_factory=list)
    _is_over: bool = False

    def note(self, outcome: Outcome) -> None:
        """A trial has ended."""
        if outcome.state in ("completed", "stopped") or (outcome.state == "failed" and outcome.log is None):
            self._is_over = True
        elif outcome.state == "failed":
            self._reasons.append(outcome.reason)

    @property
    def number(self) -> int:
        """Trials that failed."""
        return len(self._reasons)

    @property
    def are_hopeless(self) -> bool:
        """True when all trials since the start failed in the same way, by an exception and not by a signal."""
        return not self._is_over and self.number >= ENOUGH_FAILURES and len(set(self._reasons)) == 1


def with_projection(store: StudyStore, number: int, outcome: Outcome) -> Outcome:
    """The outcome of a trial that was stopped by hand, with what its end would have been; others as they are."""
    if not outcome.by_hand:
        return outcome
    trials = store.trials()
    stopped = next(trial for trial in trials if trial.number == number)
    logs = {trial.number: store.evaluations(trial.number) for trial in trials}
    return outcome.model_copy(update={"projected": projected(stopped, trials, logs)})


def without_weights(store: StudyStore, keeps: Callable[[Sequence[Trial]], set[int]]) -> None:
    """Take the tuned models of ended trials off the disk, but for those that may be wanted."""
    trials = store.trials()
    kept = keeps(trials)
    for trial in trials:
        if trial.number not in kept and trial.state != "running":
            remove(store.trial_folder(trial.number) / MODEL)
