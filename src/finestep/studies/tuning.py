"""The tuning loop: ask the strategy, run the trial, keep everything, judge, until the search is done or the budget spent.

It yields plain events for whoever shows them. Kill it at any line: the same call goes on where it was.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from finestep.errors import WorkerLost
from finestep.executor import Executor
from finestep.executors.process import error_from
from finestep.protocol import Event, TrialOptions, TrialRequest
from finestep.ready import DataCard, Ready, SharePlan
from finestep.search.strategy import Strategy, apply_proposal
from finestep.search.sweep import best_trial
from finestep.search.traits import traits_of
from finestep.store.study_store import StudyStore
from finestep.studies.ended import Failures, with_projection, without_weights
from finestep.studies.event import TuneEvent
from finestep.studies.spent import runs_left
from finestep.studies.steering import Steering
from finestep.study import Budget
from finestep.trial import Outcome, Trial

MAX_DEATHS_WITHOUT_PROGRESS = 3
PAUSED_LOOK_S = 0.3
MOST_LANES = 1024


def best_alone(trials: Sequence[Trial]) -> set[int]:
    """The number of the best trial, if there is one."""
    best = best_trial(trials)
    return set() if best is None else {best.number}


def room_words(sharing: SharePlan) -> str:
    """What changed for the trials to come.

    >>> room_words(SharePlan(num_workers=1, workers_why="1 node of the cluster"))
    'from now on 1 worker trains, 1 trial at a time: 1 node of the cluster'
    """
    workers = f"{sharing.num_workers} worker{' trains' if sharing.num_workers == 1 else 's train'}"
    trials = f"{sharing.at_once} trial{'' if sharing.at_once == 1 else 's'} at a time"
    return f"from now on {workers}, {trials}: {sharing.workers_why}"


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
        make_strategy: from the data card (what the trainer found) to the strategy.
        should_stop: becomes true when the user wants an end.
        options: how trials run, besides their recipe.
        keeps: numbers of the ended trials whose weights stay on disk.
    """

    store: StudyStore
    executor: Executor
    make_strategy: Callable[[DataCard], Strategy]
    budget: Budget
    should_stop: Callable[[], bool] = lambda: False
    options: TrialOptions = field(default_factory=TrialOptions)
    keeps: Callable[[Sequence[Trial]], set[int]] = best_alone
    ready: Ready | None = None
    """What the trainer found; None before it said so."""
    _running: dict[int, _Running] = field(default_factory=dict)
    _deaths: int = 0
    _last_death: str = ""
    _failures: Failures = field(default_factory=Failures)
    _most_lanes: int | None = None
    _pausing: bool = False
    """The user wants a pause: what runs writes its checkpoints, and the workers end."""

    def __post_init__(self) -> None:
        self.steering, asked = Steering(self.store), self.should_stop
        self.should_stop = lambda: asked() or self.steering.stops
        self.budget = self.steering.budget(self.budget)

    def run(self) -> Iterator[TuneEvent]:
        """Tune to the end; the last event is `done` or `interrupted`.

        Raises:
            FinestepError: what a trial came upon that a user can act on; it stays open, so that the same call takes it up.
        """
        self.store.repair()
        yield from self._take_up_outcomes()
        yield from self._steered(at_start=True)
        if self._is_finished():
            yield self._ready_event(is_finished=True)
            yield TuneEvent("done")
            return
        if self.steering.paused:
            yield from self._paused()
        if not self.should_stop():
            yield from self._started()
        if self.should_stop():
            yield TuneEvent("interrupted")
            return
        yield self._ready_event(is_finished=False)
        self._fill(self.make_strategy(self._card))
        while self._running or self._pausing:
            died = False
            for event in self.executor.events():
                died = died or event.kind == "died"
                yield from self._handle(event)
                steered = list(self._steered())
                yield from steered
                if event.kind in ("finished", "ready") or steered:
                    self._fill(self.make_strategy(self._card))
            if self._pausing and not self.should_stop():
                self.executor.close()
                yield from self._paused()
                yield from self._started() if not self.should_stop() else ()
                self._fill(self.make_strategy(self._card))
            elif died:
                yield from self._restart_dead_trials()
                self._fill(self.make_strategy(self._card))
            elif self.should_stop():
                break
        if self._failures.are_hopeless:
            text = f"{self._failures.number} trials, and all failed for the same reason: the study ends here"
            yield TuneEvent("note", data={"text": text})
        yield TuneEvent("interrupted" if self.should_stop() else "done")

    def remaining_runs(self) -> float:
        """Budget that is left, in full runs; zero when a further trial would not end in time."""
        return runs_left(
            self.store.spec, self.store.trials(), self.budget, ready=self.ready, num_under_way=len(self._running)
        )

    def _steered(self, *, at_start: bool = False) -> Iterator[TuneEvent]:
        """What the user asks for through command files, carried out."""
        was_paused, was_stopping = self.steering.paused, self.steering.stops
        for said in self.steering.carry_out(stop_trial=self.executor.stop_trial, at_start=at_start):
            self.budget = self.steering.budget(self.budget)
            yield TuneEvent("note", data={"text": said, "steering": True})
        if self.steering.stops and not was_stopping:
            self.executor.stop()
        elif self.steering.paused and not was_paused and not at_start:
            self._pausing = True
            self.executor.pause()

    def _paused(self) -> Iterator[TuneEvent]:
        """Wait until the user lets the study go on, or ends it; nothing is held meanwhile but the study's lock."""
        yield TuneEvent(
            "note", data={"text": f"paused; go on with: finestep resume {self.store.folder}", "steering": True}
        )
        while self.steering.paused and not self.should_stop():
            time.sleep(PAUSED_LOOK_S)
            yield from self._steered(at_start=True)
        self._pausing = False

    def _is_finished(self) -> bool:
        """True when the records alone show that nothing is left: no trial is open, and the strategy wants no more.

        A worker need not be started, which loads torch, model and data, to hear that.
        """
        trials, known = self.store.trials(), self.store.known_ready()
        if not trials or known is None or any(trial.state == "running" for trial in trials):
            return False
        self.ready = known
        strategy = self.make_strategy(self._card)
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
            if ready is not None and self.ready is None:  # one worker that goes on after a death says less than all did
                self.store.keep_ready(ready)
            self.ready = ready or self.ready
            return

    @property
    def _card(self) -> DataCard:
        return self.ready.card if self.ready is not None else DataCard()

    @property
    def _sharing(self) -> SharePlan:
        return self.ready.sharing if self.ready is not None else SharePlan()

    def _ready_event(self, *, is_finished: bool) -> TuneEvent:
        trials = tuple(self.store.trials())
        return TuneEvent("ready", ready=self.ready, trials=trials, is_finished=is_finished)

    def _take_up_outcomes(self) -> Iterator[TuneEvent]:
        """Trials that ended while nobody listened."""
        for trial in self.store.trials():
            outcome = self.store.written_outcome(trial.number) if trial.state == "running" else None
            if outcome is not None:
                yield TuneEvent("trial_finished", trial=self._finish(trial.number, outcome))

    def _fill(self, strategy: Strategy) -> None:
        """Give the worker as many trials as it trains together: orphans first, then what the strategy wants."""
        if self.should_stop() or self.steering.paused or self._pausing or self._failures.are_hopeless:
            return
        lanes = self._lanes()
        for trial in self.store.trials():
            if trial.state == "running" and trial.number not in self._running and len(self._running) < lanes:
                self._submit(trial)
        if len(self._running) < lanes:
            for trial in self._next(strategy, lanes - len(self._running)):
                self._submit(trial)

    def _lanes(self) -> int:
        """Trials that are under way at the same time."""
        return min(self._sharing.at_once, self._most_lanes or MOST_LANES)

    def _submit(self, trial: Trial) -> None:
        self._running.setdefault(trial.number, _Running(trial))
        self.executor.submit(self._request(trial))
        if trial.number in self.steering.stopping:
            self.executor.stop_trial(trial.number)

    def _next(self, strategy: Strategy, most: int) -> list[Trial]:
        proposals = strategy.propose(self.store.trials(), remaining_runs=self.remaining_runs(), max_proposals=most)
        return [
            self.store.add(
                apply_proposal(self.store.spec.recipe, proposal),
                fidelity=proposal.fidelity,
                stage=proposal.stage,
                why=proposal.why,
                is_baseline=proposal.is_baseline,
            )
            for proposal in proposals
        ]

    def _restart_dead_trials(self) -> Iterator[TuneEvent]:
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
        for running in list(self._running.values()):
            self._submit(running.trial)

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
            checkpoint_every_s=self.options.checkpoint_every_s,
            checkpoint_every_steps=self.options.checkpoint_every_steps,
            on_trouble=self.options.on_trouble,
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
        if event.kind == "ready" and self.ready is not None:
            # Only the room has changed; the data and what they are trained on were told once.
            sharing = Ready.model_validate(event.data).sharing
            if sharing != self._sharing:
                self.ready = self.ready.model_copy(update={"sharing": sharing})
                yield TuneEvent("note", data={"text": room_words(sharing)})
            return
        if event.kind == "note" and event.trial is None:
            yield TuneEvent("note", data=event.data)
            return
        running = None if event.trial is None else self._running.get(event.trial)
        if running is None:
            return
        trial = running.trial
        match event.kind:
            case "started":
                yield TuneEvent("trial_started", trial=trial, data=event.data)
            case "step":
                record = self.store.read_step(event.data)
                running.reached = max(running.reached, record.step)
                yield TuneEvent("step", trial=trial, record=record)
            case "evaluation":
                yield TuneEvent("evaluation", trial=trial, record=self.store.keep_evaluation(trial.number, event.data))
            case "finished":
                done = self._finish(trial.number, Outcome.model_validate(event.data))
                yield TuneEvent("trial_finished", trial=done)
                if done.state == "out_of_memory" and traits_of(self.store.spec.search.strategy).adapts:
                    text = f"memory is too small for batch {done.recipe.effective_batch_size}: it and larger ones are left out"
                    yield TuneEvent("note", data={"text": text})
            case "interrupted":
                del self._running[trial.number]
            case "note":
                yield TuneEvent("note", trial=trial, data=event.data)

    def _finish(self, number: int, outcome: Outcome) -> Trial:
        """Record the end of a trial, and keep only the tuned models on disk that may be wanted."""
        self._running.pop(number, None)
        done = self.store.finish(number, with_projection(self.store, number, outcome))
        self.steering.forget(number)
        self._failures.note(done.outcome or outcome)
        without_weights(self.store, self.keeps)
        return done
