"""The tuning loop: ask the strategy, run the trial, keep everything, judge, until the search is done or the budget spent.

It yields plain events for whoever shows them. Kill it at any line: the same call goes on where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from finestep.disk import remove
from finestep.errors import WorkerLost
from finestep.executors.process import error_from
from finestep.protocol import Event, TrialRequest
from finestep.recipe import Recipe
from finestep.search.strategy import Proposal, Strategy
from finestep.search.sweep import best_trial
from finestep.store.study_store import StudyStore
from finestep.study import Budget
from finestep.trial import EvalRecord, Outcome, StepRecord, Trial

MAX_DEATHS_WITHOUT_PROGRESS = 3
ENOUGH_FAILURES = 2
"""When the first so many trials fail for the same reason, another learning rate will not help."""


class Executor(Protocol):
    """Where trials run: `executors.local` and its twin `executors.replay`."""

    def start(self) -> dict[str, Any]: ...
    def submit(self, request: TrialRequest) -> None: ...
    def events(self) -> Iterator[Event]: ...
    def stop(self) -> None: ...
    def kill(self) -> None: ...
    def close(self) -> None: ...


def best_alone(trials: Sequence[Trial]) -> set[int]:
    """The number of the best trial, if there is one."""
    best = best_trial(trials)
    return set() if best is None else {best.number}


@dataclass(frozen=True)
class TuneEvent:
    """Something that happened, for a terminal or a log."""

    kind: Literal[
        "ready", "trial_started", "step", "evaluation", "note", "trial_finished", "saved", "interrupted", "done"
    ]
    trial: Trial | None = None
    record: StepRecord | EvalRecord | None = None
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class _Running:
    """A trial that the worker has, and how far it came before and since its last start."""

    trial: Trial
    reached: int = 0
    furthest: int = 0

    def has_progressed(self) -> bool:
        """True when it made steps since its last start that it had never made before; asked once a start."""
        progressed = self.reached > self.furthest
        self.furthest, self.reached = max(self.furthest, self.reached), 0
        return progressed


@dataclass
class Tuning:
    """One run of the tuning loop over a study.

    Args:
        make_strategy: from the data card (what the worker found) to the strategy.
        should_stop: becomes true when the user wants an end.
        options: checkpoint intervals for the trials.
        keeps: numbers of the ended trials whose weights stay on disk.
    """

    store: StudyStore
    executor: Executor
    make_strategy: Callable[[Mapping[str, Any]], Strategy]
    budget: Budget
    should_stop: Callable[[], bool] = lambda: False
    options: Mapping[str, Any] = field(default_factory=dict)
    keeps: Callable[[Sequence[Trial]], set[int]] = best_alone
    card: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    pack: Mapping[str, Any] = field(default_factory=dict)
    _running: dict[int, _Running] = field(default_factory=dict)
    _deaths: int = 0
    _last_death: str = ""
    _failures: list[str] | None = field(default_factory=list)
    """Reasons of the trials that failed since the start; None once one ended otherwise."""
    _most_lanes: int | None = None

    def run(self) -> Iterator[TuneEvent]:
        """Tune to the end; the last event is `done` or `interrupted`.

        Raises:
            FinestepError: what a trial came upon that a user can act on; it stays open, so that the same call takes it up.
        """
        self.store.mend()
        yield from self._take_up_outcomes()
        if self._is_finished():
            yield self._ready(is_finished=True)
            yield TuneEvent("done")
            return
        yield from self._started()
        if self.should_stop():
            yield TuneEvent("interrupted")
            return
        yield self._ready(is_finished=False)
        strategy = self.make_strategy(self.card)
        self._fill(strategy)
        while self._running:
            died = False
            for event in self.executor.events():
                died = died or event.kind == "died"
                yield from self._handle(event)
                if event.kind == "finished":
                    self._fill(strategy)
            if died:
                yield from self._raise_the_dead()
                self._fill(strategy)
        if self._is_hopeless():
            text = f"{len(self._failures or [])} trials, and all failed for the same reason: the study ends here"
            yield TuneEvent("note", data={"text": text})
        yield TuneEvent("interrupted" if self.should_stop() else "done")

    def remaining_runs(self) -> float:
        """Budget that is left, in full runs; zero when a further trial would not end in time."""
        under_way = self._trial_time_s() * max((len(self._running) + 1) / num_workers(self.pack), 1.0)
        if self.budget.time_s is not None and self._time_spent_s() + under_way > self.budget.time_s:
            return 0.0
        return max(
            self.budget.full_runs
            - runs_spent(
                self.store.trials(),
                num_epochs=self.store.spec.recipe.num_epochs,
                fixed_share=self.pack.get("fixed_share", 0.0),
            ),
            0.0,
        )

    def _is_finished(self) -> bool:
        """True when the records alone show that nothing is left: no trial is open, and the strategy wants no more.

        A worker need not be started, which loads torch, model and data, to hear that.
        """
        trials, known = self.store.trials(), self.store.known_ready()
        if not trials or not known or any(trial.state == "running" for trial in trials):
            return False
        self._learn(known)
        strategy = self.make_strategy(self.card)
        return not strategy.propose(trials, remaining_runs=self.remaining_runs(), max_proposals=self._lanes())

    def _started(self) -> Iterator[TuneEvent]:
        """Start the worker; one that is killed while it loads is started again, until it was killed too often.

        Raises:
            WorkerLost: it was killed again and again.
        """
        for deaths in range(1, MAX_DEATHS_WITHOUT_PROGRESS + 1):
            try:
                ready = self.executor.start()
            except WorkerLost as lost:
                if self.should_stop():
                    return
                if deaths == MAX_DEATHS_WITHOUT_PROGRESS:
                    raise
                yield TuneEvent("note", data={"text": f"{lost.what}; starting another"})
                continue
            if ready and not self.facts:  # one worker that goes on after a death says less than all of them did
                self.store.keep_ready(ready)
            self._learn(ready)
            return

    def _learn(self, ready: Mapping[str, Any]) -> None:
        self.card = ready.get("card", self.card)
        self.facts = ready.get("facts", self.facts)
        self.pack = ready.get("pack", self.pack)

    def _ready(self, *, is_finished: bool) -> TuneEvent:
        known = {"card": self.card, "facts": self.facts, "pack": self.pack}
        return TuneEvent("ready", data={**known, "trials": self.store.trials(), "is_finished": is_finished})

    def _take_up_outcomes(self) -> Iterator[TuneEvent]:
        """Trials that ended while nobody listened."""
        for trial in self.store.trials():
            outcome = self.store.written_outcome(trial.number) if trial.state == "running" else None
            if outcome is not None:
                yield TuneEvent("trial_finished", trial=self._finish(trial.number, outcome))

    def _fill(self, strategy: Strategy) -> None:
        """Give the worker as many trials as it trains together: orphans first, then what the strategy wants."""
        if self.should_stop() or self._is_hopeless():
            return
        lanes = self._lanes()
        for trial in self.store.trials():
            if trial.state == "running" and trial.number not in self._running and len(self._running) < lanes:
                self._submit(trial)
        if len(self._running) < lanes:
            for trial in self._next(strategy, lanes - len(self._running)):
                self._submit(trial)

    def _is_hopeless(self) -> bool:
        """True when all trials since the start failed in the same way, by an exception and not by a signal."""
        failures = self._failures or []
        return len(failures) >= ENOUGH_FAILURES and len(set(failures)) == 1

    def _lanes(self) -> int:
        """Trials that are under way at the same time."""
        return min(int(self.pack.get("at_once", 1)), self._most_lanes or 64)

    def _submit(self, trial: Trial) -> None:
        self._running.setdefault(trial.number, _Running(trial))
        self.executor.submit(self._request(trial))

    def _next(self, strategy: Strategy, most: int) -> list[Trial]:
        proposals = strategy.propose(self.store.trials(), remaining_runs=self.remaining_runs(), max_proposals=most)
        return [
            self.store.add(
                apply_proposal(self.store.spec.recipe, proposal),
                fidelity=proposal.fidelity,
                stage=proposal.stage,
                why=proposal.why,
            )
            for proposal in proposals
        ]

    def _raise_the_dead(self) -> Iterator[TuneEvent]:
        """After the death of a worker: another one goes on with its trials.

        When it dies again and again without progress, trials run one at a time, so that only the culprit fails.
        """
        if self.should_stop():
            self._running.clear()
            return
        progressed = [running.has_progressed() for running in self._running.values()]
        self._deaths = 0 if any(progressed) else self._deaths + 1
        for number in list(self._running):
            outcome = self.store.written_outcome(number)
            if outcome is not None:
                yield TuneEvent("trial_finished", trial=self._finish(number, outcome))
        if self._deaths >= MAX_DEATHS_WITHOUT_PROGRESS and self._running:
            yield from self._isolate()
        yield from self._started()
        if self.should_stop():
            self._running.clear()
            return
        for running in self._running.values():
            self.executor.submit(self._request(running.trial))

    def _isolate(self) -> Iterator[TuneEvent]:
        """Keep one trial under way, or fail the one that is alone."""
        first, *others = self._running
        if others:
            self._most_lanes = 1
            for number in others:
                del self._running[number]
            yield TuneEvent("note", data={"text": "the worker dies without progress: one trial at a time from now on"})
        else:
            step = self._running[first].furthest
            reason = f"the worker died {self._deaths} times at step {step} or before: {self._last_death}"
            yield TuneEvent("trial_finished", trial=self._finish(first, Outcome(state="failed", reason=reason)))
        self._deaths = 0

    def _request(self, trial: Trial) -> TrialRequest:
        return TrialRequest(
            number=trial.number,
            recipe=trial.recipe,
            fidelity=trial.fidelity,
            folder=str(self.store.trial_folder(trial.number)),
            **self.options,
        )

    def _handle(self, event: Event) -> Iterator[TuneEvent]:
        if event.kind == "error":
            self._running.clear()
            raise error_from(event.data)
        if event.kind == "died":
            self._last_death = str(event.data["reason"])
            if not self.should_stop():
                yield TuneEvent("note", data={"text": f"the worker died ({event.data['reason']}); starting another"})
            return
        running = self._running.get(event.trial)  # type: ignore[arg-type]
        if running is None:
            return
        trial = running.trial
        match event.kind:
            case "started":
                yield TuneEvent("trial_started", trial=trial, data=event.data)
            case "step":
                record = self.store.hear_step(event.data)
                running.reached = max(running.reached, record.step)
                yield TuneEvent("step", trial=trial, record=record)
            case "evaluation":
                yield TuneEvent("evaluation", trial=trial, record=self.store.hear_evaluation(trial.number, event.data))
            case "finished":
                yield TuneEvent("trial_finished", trial=self._finish(trial.number, Outcome.model_validate(event.data)))
            case "interrupted":
                del self._running[trial.number]
            case "note":
                yield TuneEvent("note", trial=trial, data=event.data)

    def _finish(self, number: int, outcome: Outcome) -> Trial:
        """Record the end of a trial, and keep only the tuned models on disk that may be wanted."""
        self._running.pop(number, None)
        done = self.store.finish(number, outcome)
        outcome = done.outcome or outcome
        if outcome.state in ("completed", "stopped") or (outcome.state == "failed" and outcome.log is None):
            self._failures = None
        elif self._failures is not None and outcome.state == "failed":
            self._failures.append(outcome.reason)
        trials = self.store.trials()
        kept = self.keeps(trials)
        for trial in trials:
            if trial.number not in kept and trial.state != "running":
                remove(self.store.trial_folder(trial.number) / "model")
        return done

    def _time_spent_s(self) -> float:
        return time_spent_s(self.store.trials(), self.pack)

    def _trial_time_s(self) -> float:
        times = [
            trial.outcome.elapsed_s / trial.fidelity for trial in self.store.trials() if trial.ranks and trial.outcome
        ]
        return sorted(times)[len(times) // 2] if times else 0.0


def apply_proposal(start: Recipe, proposal: Proposal) -> Recipe:
    """The starting recipe with what the strategy wants."""
    wanted = proposal.fields
    if start.micro_batch_size is not None:
        wanted["micro_batch_size"] = min(start.micro_batch_size, proposal.effective_batch_size)
    return start.with_fields(wanted)


def num_workers(pack: Mapping[str, Any]) -> int:
    """Processes that train at the same time, from what the first one said about sharing the device."""
    return int(pack.get("num_workers", 1))


def time_spent_s(trials: Sequence[Trial], pack: Mapping[str, Any]) -> float:
    """Seconds by the clock that the trials took together, as if no process had ever waited for another."""
    return sum(trial.outcome.elapsed_s for trial in trials if trial.outcome) / num_workers(pack)


def runs_spent(trials: Sequence[Trial], *, num_epochs: float | None = None, fixed_share: float = 0.0) -> float:
    """Cost so far in full runs: tokens trained over those of a full run; an unfinished trial counts as planned.

    Args:
        num_epochs: of a full run, for studies that also tune the number of epochs.
        fixed_share: of a full run's time, what another trainer needs for a run of any length: it starts anew for each.
    """

    def planned(trial: Trial) -> float:
        length = trial.fidelity * (trial.recipe.num_epochs / num_epochs if num_epochs else 1.0)
        return fixed_share + (1 - fixed_share) * length

    whole = [
        trial.outcome.num_train_tokens / planned(trial)
        for trial in trials
        if trial.outcome and trial.state == "completed" and trial.outcome.num_train_tokens and not fixed_share
    ]
    full = max(whole, default=0.0)
    spent = 0.0
    for trial in trials:
        exact = full and trial.outcome and trial.outcome.num_train_tokens
        spent += (
            min(trial.outcome.num_train_tokens / full, planned(trial)) if exact and trial.outcome else planned(trial)
        )
    return spent
