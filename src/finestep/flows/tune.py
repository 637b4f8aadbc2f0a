"""The tuning loop: ask the strategy, run the trial, keep everything, judge, until the search is done or the budget spent.

It yields plain events for whoever shows them. Kill it at any line: the same call goes on where it was.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from finestep.protocol import Event, TrialRequest
from finestep.recipe import Recipe
from finestep.search.strategy import Proposal, Strategy
from finestep.search.sweep import best_trial
from finestep.store.study_store import StudyStore
from finestep.study import Budget
from finestep.trial import EvalRecord, Outcome, StepRecord, Trial

MAX_DEATHS_WITHOUT_PROGRESS = 3


class Executor(Protocol):
    """Where trials run: `executors.local` and its twin `executors.replay`."""

    def start(self) -> dict[str, Any]: ...
    def run(self, requests: Sequence[TrialRequest]) -> Iterator[Event]: ...
    def stop(self) -> None: ...
    def kill(self) -> None: ...
    def close(self) -> None: ...


@dataclass(frozen=True)
class TuneEvent:
    """Something that happened, for a terminal or a log."""

    kind: Literal["ready", "trial_started", "step", "evaluation", "note", "trial_finished", "interrupted", "done"]
    trial: Trial | None = None
    record: StepRecord | EvalRecord | None = None
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Tuning:
    """One run of the tuning loop over a study.

    Args:
        make_strategy: from the data card (what the worker found) to the strategy.
        should_stop: becomes true when the user wants an end.
        options: checkpoint intervals for the trials.
    """

    store: StudyStore
    executor: Executor
    make_strategy: Callable[[Mapping[str, Any]], Strategy]
    budget: Budget
    should_stop: Callable[[], bool] = lambda: False
    options: Mapping[str, Any] = field(default_factory=dict)
    card: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)

    def run(self) -> Iterator[TuneEvent]:
        """Tune to the end; the last event is `done` or `interrupted`."""
        self.store.mend()
        yield from self._take_up_outcomes()
        yield self._start()
        strategy = self.make_strategy(self.card)
        while not self.should_stop():
            trial = self._orphan() or self._next(strategy)
            if trial is None:
                yield TuneEvent("done")
                return
            yield from self._run_trial(trial)
        yield TuneEvent("interrupted")

    def remaining_runs(self) -> float:
        """Budget that is left, in full runs; zero when a further trial would not end in time."""
        if self.budget.time_s is not None and self._time_spent_s() + self._trial_time_s() > self.budget.time_s:
            return 0.0
        return max(self.budget.full_runs - runs_spent(self.store.trials()), 0.0)

    def _start(self) -> TuneEvent:
        ready = self.executor.start()
        self.card = ready.get("card", self.card)
        self.facts = ready.get("facts", self.facts)
        return TuneEvent("ready", data={"card": self.card, "facts": self.facts, "trials": self.store.trials()})

    def _take_up_outcomes(self) -> Iterator[TuneEvent]:
        """Trials that ended while nobody listened."""
        for trial in self.store.trials():
            outcome = self.store.written_outcome(trial.number) if trial.state == "running" else None
            if outcome is not None:
                yield TuneEvent("trial_finished", trial=self._finish(trial.number, outcome))

    def _orphan(self) -> Trial | None:
        return next((trial for trial in self.store.trials() if trial.state == "running"), None)

    def _next(self, strategy: Strategy) -> Trial | None:
        trials = self.store.trials()
        proposals = strategy.propose(trials, remaining_runs=self.remaining_runs(), max_proposals=1)
        if not proposals:
            return None
        proposal = proposals[0]
        recipe = apply_proposal(self.store.spec.recipe, proposal)
        return self.store.add(recipe, fidelity=proposal.fidelity, stage=proposal.stage, why=proposal.why)

    def _run_trial(self, trial: Trial) -> Iterator[TuneEvent]:
        """Run one trial to its end, over the death of its worker if need be."""
        deaths, furthest = 0, 0
        while not self.should_stop():
            reached = 0
            ended = False
            for event in self.executor.run([self._request(trial)]):
                reached = max(reached, int(event.data.get("step", 0)) if event.kind == "step" else 0)
                ended = ended or event.kind == "finished"
                yield from self._handle(trial, event)
            if ended or self.should_stop():
                return
            deaths = 0 if reached > furthest else deaths + 1
            furthest = max(furthest, reached)
            outcome = self.store.written_outcome(trial.number)
            if outcome is None and deaths >= MAX_DEATHS_WITHOUT_PROGRESS:
                outcome = Outcome(state="failed", reason=f"the worker died {deaths} times at step {furthest} or before")
            if outcome is not None:
                yield TuneEvent("trial_finished", trial=self._finish(trial.number, outcome))
                return
            self.executor.start()

    def _request(self, trial: Trial) -> TrialRequest:
        return TrialRequest(
            number=trial.number,
            recipe=trial.recipe,
            fidelity=trial.fidelity,
            folder=str(self.store.trial_folder(trial.number)),
            **self.options,
        )

    def _handle(self, trial: Trial, event: Event) -> Iterator[TuneEvent]:
        match event.kind:
            case "started":
                yield TuneEvent("trial_started", trial=trial, data=event.data)
            case "step":
                yield TuneEvent("step", trial=trial, record=self.store.hear_step(event.data))
            case "evaluation":
                yield TuneEvent("evaluation", trial=trial, record=self.store.hear_evaluation(trial.number, event.data))
            case "finished":
                done = self._finish(trial.number, Outcome.model_validate(event.data))
                yield TuneEvent("trial_finished", trial=done)
            case "note":
                yield TuneEvent("note", trial=trial, data=event.data)
            case "died" if not self.should_stop():
                yield TuneEvent(
                    "note", trial=trial, data={"text": f"the worker died ({event.data['reason']}); starting another"}
                )

    def _finish(self, number: int, outcome: Outcome) -> Trial:
        """Record the end of a trial, and keep only the best tuned model on disk."""
        done = self.store.finish(number, outcome)
        trials = self.store.trials()
        best = best_trial(trials)
        for trial in trials:
            if best is not None and trial.number != best.number and trial.state != "running":
                shutil.rmtree(self.store.trial_folder(trial.number) / "model", ignore_errors=True)
        return done

    def _time_spent_s(self) -> float:
        return sum(trial.outcome.elapsed_s for trial in self.store.trials() if trial.outcome)

    def _trial_time_s(self) -> float:
        times = [
            trial.outcome.elapsed_s / trial.fidelity for trial in self.store.trials() if trial.ranks and trial.outcome
        ]
        return sorted(times)[len(times) // 2] if times else 0.0


def apply_proposal(start: Recipe, proposal: Proposal) -> Recipe:
    """The starting recipe with what the strategy wants."""
    changes: dict[str, Any] = {
        "learning_rate": proposal.learning_rate,
        "effective_batch_size": proposal.effective_batch_size,
    }
    if start.micro_batch_size is not None:
        changes["micro_batch_size"] = min(start.micro_batch_size, proposal.effective_batch_size)
    for name, value in proposal.changes.items():
        group, dot, inner = name.partition(".")
        if dot:
            changes.setdefault(group, {})[inner] = value
        else:
            changes[name] = value
    return start.changed(**changes)


def runs_spent(trials: Sequence[Trial]) -> float:
    """Cost so far in full runs: tokens trained over those of a full run; an unfinished trial counts as planned."""
    whole = [
        trial.outcome.num_train_tokens / trial.fidelity
        for trial in trials
        if trial.outcome and trial.state == "completed" and trial.outcome.num_train_tokens
    ]
    full = max(whole, default=0.0)
    spent = 0.0
    for trial in trials:
        exact = full and trial.outcome and trial.outcome.num_train_tokens
        spent += (
            min(trial.outcome.num_train_tokens / full, trial.fidelity) if exact and trial.outcome else trial.fidelity
        )
    return spent
