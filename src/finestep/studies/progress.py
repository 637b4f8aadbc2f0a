"""How far trials under way have come and how long the rest takes, as it is told to people; the search's own budget is in `spent`."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from finestep.ready import Ready
from finestep.store.study_files import StudyFiles
from finestep.studies.spent import planned_runs, study_spent
from finestep.study import StudySpec
from finestep.trial import StepRecord, Trial

PACE_STEPS = 20
LEAST_LEFT = 0.001
"""Full runs: with less than that left nothing is trained any more."""


@dataclass(frozen=True)
class Made:
    """What a trial has made so far.

    Attributes:
        step: its last step; 0 before the first.
        num_tokens: training tokens up to there.
        loss: of its last step; None before the first.
        step_s: seconds of a step, by its last steps; None before there are two.
    """

    step: int = 0
    num_tokens: int = 0
    loss: float | None = None
    step_s: float | None = None


def made_so_far(steps: Sequence[StepRecord]) -> Made:
    """How far a trial is, by its records."""
    if not steps:
        return Made()
    first, last = steps[-PACE_STEPS:][0], steps[-1]
    has_pace = last.step > first.step and last.elapsed_s > first.elapsed_s
    return Made(
        step=last.step,
        num_tokens=sum(record.num_tokens for record in steps),
        loss=last.loss,
        step_s=(last.elapsed_s - first.elapsed_s) / (last.step - first.step) if has_pace else None,
    )


@dataclass(frozen=True)
class Progress:
    """The trials of a study with what those under way have made; a trial that is not in `made` has made nothing.

    Attributes:
        ready: what the trainer found; None before that: then no number of steps is known.
    """

    spec: StudySpec
    trials: Sequence[Trial]
    ready: Ready | None
    made: Mapping[int, Made]

    def planned_steps(self, trial: Trial) -> int | None:
        """Optimizer steps of the whole trial; None where they are not known from its rows."""
        rows = self.ready.card.facts.num_rows if self.ready else None
        if not rows or trial.recipe.num_train_tokens is not None:
            return None
        seen = max(1, round(rows * trial.recipe.num_epochs * trial.fidelity))
        return math.ceil(seen / trial.recipe.effective_batch_size)

    def share(self, trial: Trial) -> float:
        """Share of a trial under way that it has made; 0 where neither its steps nor its tokens are known."""
        made, tokens = self.made.get(trial.number, Made()), trial.recipe.num_train_tokens
        if tokens is not None:
            return min(made.num_tokens / (tokens * trial.fidelity), 1.0)
        planned = self.planned_steps(trial)
        return min(made.step / planned, 1.0) if planned else 0.0

    def spent(self) -> float:
        """Cost so far in full runs: trials that have ended, and of those under way what they have made."""
        fixed = self.ready.card.fixed_share if self.ready else 0.0
        epochs = self.spec.recipe.num_epochs
        to_come = sum(
            (1 - self.share(trial)) * planned_runs(trial, num_epochs=epochs, fixed_share=fixed)
            for trial in self._running
        )
        return max(study_spent(self.spec, self.trials, self.ready) - to_come, 0.0)

    def trial_left_s(self, trial: Trial) -> float | None:
        """Seconds until a trial under way has made its steps; None where its steps or its pace are not known."""
        made, planned = self.made.get(trial.number, Made()), self.planned_steps(trial)
        if planned is None or made.step_s is None:
            return None
        return max(planned - made.step, 0) * made.step_s * max(len(self._running) / self._workers, 1.0)

    def left_s(self, budget: float | None) -> float | None:
        """Seconds until the whole budget is spent, which a search may end before; None before its pace is known, and after that."""
        full = self._full_run_s()
        left = 0.0 if budget is None else budget - self.spent()
        return left * full / self._workers if full is not None and left > LEAST_LEFT else None

    @property
    def _running(self) -> list[Trial]:
        return [trial for trial in self.trials if trial.state == "running"]

    @property
    def _workers(self) -> int:
        return self.ready.sharing.num_workers if self.ready else 1

    def _full_run_s(self) -> float | None:
        """Seconds of a full run, by the trials that have ended, or before that by the pace of those under way."""
        paces = [
            trial.outcome.cost.elapsed_s / trial.fidelity
            for trial in self.trials
            if trial.outcome and trial.state == "completed" and trial.outcome.cost.elapsed_s
        ]
        for trial in self._running if not paces else ():
            pace, planned = self.made.get(trial.number, Made()).step_s, self.planned_steps(trial)
            paces += [pace * planned / trial.fidelity] if pace and planned else []
        return statistics.median(paces) if paces else None


def progress_of(files: StudyFiles, trials: Sequence[Trial]) -> Progress:
    """How far the trials are, by the records of those under way."""
    made = {trial.number: made_so_far(files.steps(trial.number)) for trial in trials if trial.state == "running"}
    return Progress(files.spec, trials, files.known_ready(), made)


def left_words(seconds: float) -> str:
    """What is left of a budget: an estimate, of training alone; the end of a study takes its own time."""
    return f"at most about {time_words(seconds)} of training left"


def time_words(seconds: float) -> str:
    """A time that is left, in one figure.

    >>> time_words(40), time_words(700), time_words(9000)
    ('40 s', '12 min', '2.5 h')
    """
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
