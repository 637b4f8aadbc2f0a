"""The trials of a study on a cluster: who waits, what comes home with an event, and how often workers died with one of them.

A trial whose worker is lost goes on elsewhere from the newest checkpoint that came home. A trial with which workers die again and
again is given a node of its own, and fails when that does not help.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from finestep.cluster.cargo import Cargo, newest, packed, unpack_checkpoint, unpack_model
from finestep.cluster.places import Actor, Place, Reference
from finestep.disk import append_line, json_text, make_folder, remove
from finestep.errors import WorkerFailed
from finestep.executors.spoken import Line
from finestep.executors.turns import finished
from finestep.protocol import Event, TrialRequest
from finestep.ready import Ready
from finestep.study_layout import CHECKPOINTS, EVALUATIONS, NOTES, STEPS
from finestep.trial import Outcome, recipe_hash

RECORDS = {"evaluation": EVALUATIONS, "note": NOTES}
ALONE_AFTER, MOST_DEATHS = 2, 3


@dataclass(eq=False)
class Member:
    """An actor on a node.

    Attributes:
        stage: what it was asked last: describe, start or poll.
        pending: the answer that is awaited.
        heard: the last event that was taken up.
        since: when the first of the calls failed that could not reach it.
        damaged: how often files of the same event arrived damaged.
    """

    place: Place
    actor: Actor
    stage: str
    pending: Reference
    ready: Ready | None = None
    open: dict[int, TrialRequest] = field(default_factory=dict)
    heard: int = 0
    since: float | None = None
    damaged: int = 0

    @property
    def room(self) -> int:
        """Trials that it may take besides those that it has."""
        return (self.ready.sharing.at_once if self.ready is not None and self.stage == "poll" else 0) - len(self.open)


@dataclass
class _Record:
    """How often workers died with a trial, without new steps in between."""

    deaths: int = 0
    furthest: int = 0


@dataclass
class _Steps:
    """Steps of a trial that have arrived and are not written yet."""

    file: Path
    events: list[Event] = field(default_factory=list)


class Trials:
    """Those that were submitted and have not ended.

    Args:
        line: where events are told.
        get: fetches a part of a large file.
    """

    def __init__(self, line: Line, *, get: Callable[[object], bytes]):
        self._line, self._get = line, get
        self.waiting: list[TrialRequest] = []
        self.is_stopping = False
        self.tells_every_step = True
        """False: of the steps that have come together the study hears the newest of each trial; all are written down."""
        self._stopped: set[int] = set()
        self._records: dict[int, _Record] = {}
        self._steps: dict[int, _Steps] = {}

    def submit(self, request: TrialRequest) -> None:
        """Take a trial; it starts where there is room, or waits."""
        self._records.setdefault(request.number, _Record())
        self.again(request)

    def again(self, request: TrialRequest) -> None:
        """Let a trial wait for another worker, or give it back when the end was asked for."""
        if self.is_stopping:
            self._line.send("interrupted", {"step": 0}, trial=request.number)
        else:
            self.waiting.append(request)

    def stop(self) -> None:
        """Give back what waits."""
        self.is_stopping = True
        waiting, self.waiting = self.waiting, []
        for request in waiting:
            self.again(request)

    def stop_trial(self, number: int, members: Sequence[Member]) -> None:
        """End a trial with what it has shown; one that waits goes to a node first."""
        self._stopped.add(number)
        for member in members:
            if number in member.open:
                member.actor.stop_trial.remote(number)

    def hand_out(self, members: Sequence[Member]) -> None:
        """Send those that wait to where there is most room, with the checkpoint that they go on from."""
        for request in list(self.waiting):
            fit = [one for one in members if one.room > 0 and self._may_go(request, one)]
            if not fit:
                continue
            member = max(fit, key=lambda one: one.room)
            self.waiting.remove(request)
            member.open[request.number] = request
            folder = Path(request.folder)
            checkpoint = newest(folder)
            files = packed(folder, [f"{CHECKPOINTS}/{checkpoint.name}"]) if checkpoint is not None else {}
            member.actor.submit.remote(request.model_dump_json(), files)
            if request.number in self._stopped:
                member.actor.stop_trial.remote(request.number)

    def _may_go(self, request: TrialRequest, member: Member) -> bool:
        """A trial that may be the death of its worker gets one for itself."""
        is_suspect = [self._records[number].deaths >= ALONE_AFTER for number in (request.number, *member.open)]
        return not any(is_suspect) or not member.open

    # ---- what a worker tells

    def take_up(self, member: Member, event: Event, files: Cargo) -> None:
        """An event of a trial: first its files come home, then it is told.

        Raises:
            CargoDamaged: the files are not what was sent.
        """
        request = None if event.trial is None else member.open.get(event.trial)
        if request is None:
            return
        folder, number = Path(request.folder), request.number
        if event.kind == "step":
            self._steps.setdefault(number, _Steps(folder / STEPS)).events.append(event)
            self._count(number, event)
            return
        self.write_steps(number)
        match event.kind:
            case "evaluation" | "note":
                make_folder(folder)
                append_line(folder / RECORDS[event.kind], json_text(event.data))
            case "checkpoint":
                unpack_checkpoint(folder, files, get=self._get)
                if (size := event.data.get("stays_bytes")) is not None:
                    large = f"its checkpoints ({cast('int', size) / 1e9:.1f} GB) stay on {member.place.name}"
                    self.note(number, f"{large}: without that node it begins anew")
            case "finished":
                event = self._finished(request, event, files, member)
                del member.open[number]
            case "interrupted":
                del member.open[number]
                if not self.is_stopping:
                    self.again(request)
                    return
        self._line.send(event.kind, event.data, trial=number)

    def write_steps(self, *numbers: int) -> None:
        """Write down and tell the steps that have arrived, of these trials or of all."""
        for number in numbers or tuple(self._steps):
            steps = self._steps.pop(number, None)
            if steps is not None:
                make_folder(steps.file.parent)
                append_line(steps.file, "\n".join(json_text(event.data) for event in steps.events))
                for event in steps.events if self.tells_every_step else steps.events[-1:]:
                    self._line.send(event.kind, event.data, trial=number)

    def lost(self, member: Member, why: str) -> None:
        """A node or its actor is gone; nobody blames its trials."""
        self.write_steps()
        for request in list(member.open.values()):
            self.note(request.number, f"{member.place.name} was lost ({why}); the trial goes on elsewhere")
            self.again(request)
        member.open.clear()

    def worker_died(self, member: Member, why: str) -> None:
        """A worker process died on a node that lives; the node has started another already."""
        self.write_steps()
        for request in list(member.open.values()):
            record = self._records[request.number]
            record.deaths += 1
            del member.open[request.number]
            if record.deaths >= MOST_DEATHS:
                reason = f"the worker died {record.deaths} times at step {record.furthest} or before: {why}"
                self._fail(request, reason)
                continue
            text = f"the worker on {member.place.name} died ({why}); the trial goes on from its last checkpoint"
            self.note(request.number, text)
            self.again(request)

    def note(self, number: int, text: str) -> None:
        """Tell a user something about a trial."""
        self._line.send("note", {"text": text}, trial=number)

    def _finished(self, request: TrialRequest, event: Event, files: Cargo, member: Member) -> Event:
        """The end of a trial, with its model and its outcome on this disk before it is told."""
        folder = Path(request.folder)
        unpack_model(folder, files, get=self._get)
        outcome = Outcome.model_validate(event.data)
        if outcome.recipe_hash != recipe_hash(request.recipe, request.fidelity):
            raise WorkerFailed(f"{member.place.name} answered for trial {request.number} with another recipe's outcome")
        if outcome.log is not None:
            outcome = outcome.model_copy(update={"log": f"{member.place.name}:{outcome.log}"})
        told = finished(request, outcome)
        remove(folder / CHECKPOINTS)
        return told

    def _fail(self, request: TrialRequest, reason: str) -> None:
        make_folder(Path(request.folder))
        told = finished(request, Outcome(state="failed", reason=reason))
        self._line.send(told.kind, told.data, trial=request.number)

    def _count(self, number: int, event: Event) -> None:
        """Steps that were never made before are progress."""
        step, record = event.data.get("step"), self._records[number]
        if isinstance(step, int) and step > record.furthest:
            record.furthest, record.deaths = step, 0
