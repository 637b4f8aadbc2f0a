"""Worker processes on this machine: the first is started once and says how many serve the study; the others start when needed.

A worker that dies is reported as an event, never as an exception; starting another one is the caller's decision.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TypedDict

from finestep.errors import FinestepError, WorkerFailed
from finestep.executors.process import WorkerProcess
from finestep.executors.turns import IDLE_S
from finestep.protocol import Event, SessionRequest, TrialRequest
from finestep.ready import DataCard, Ready, SharePlan

WORKER = "finestep.worker"


@dataclass(eq=False)
class _Member:
    """A worker and the trials that it has."""

    number: int
    process: WorkerProcess
    open: list[int] = field(default_factory=list)
    is_ending: bool = False
    """It interrupts trials unasked: why comes next, and then its end."""
    was_asked_to_end: bool = False
    cause: str | None = None
    """What the worker said before it was lost."""


class LocalExecutor:
    """Resident workers; each trial goes to the one that has least to do.

    Args:
        session: what a worker loads.
        folder: where requests and logs are kept.
        starts_ahead: start a second worker at once, which loads its libraries and waits; the first may say that it pays.
        devices: GPUs of each worker, by its number, as CUDA_VISIBLE_DEVICES names them; empty: the workers share what there is.
        module: what is started as a worker.
        hires: further workers are started here, as many as the first one says; else it sees to them itself.
    """

    def __init__(
        self,
        session: SessionRequest,
        *,
        folder: Path,
        starts_ahead: bool = False,
        devices: Sequence[str] = (),
        module: str = WORKER,
        hires: bool = True,
    ):
        self._session, self._folder, self._starts_ahead = session, folder, starts_ahead
        self._devices, self._module, self._hires = devices, module, hires
        self._crew: list[_Member] = []
        self._heard: SimpleQueue[tuple[_Member, Event | None]] = SimpleQueue()
        self._most_workers = 1
        self._is_alone = False
        self._is_stopping = False
        self._reserve: _Member | None = None

    def start(self) -> Ready | None:
        """Start the first worker; its answer, or None when it is running already.

        Raises:
            FinestepError: what the worker has to complain about, or that it died at start.
        """
        if any(member.process.is_alive() for member in self._crew):
            return None
        self._crew = [self._member(1)]
        self._reserve = self._member(2) if self._starts_ahead and not self._is_alone else None
        if self._is_stopping:
            self._stop_crew()
        ready = self._crew[0].process.await_ready()
        ready = ready.model_copy(update={"sharing": self._shared(ready.sharing)})
        self._most_workers = ready.sharing.num_workers if self._hires else 1
        if self._most_workers == 1:
            self._drop_reserve()
        self._listen(self._crew[0])
        return ready

    def _shared(self, sharing: SharePlan) -> SharePlan:
        """The plan with as many workers as there will be here: one for each GPU, and one alone after a death."""
        if self._is_alone and self._hires:
            return sharing.model_copy(update={"num_workers": 1})
        if len(self._devices) > 1:
            why = f"one for each of {len(self._devices)} places with {_gpus_of(self._devices[0])}"
            return sharing.model_copy(update={"num_workers": len(self._devices), "workers_why": why})
        return sharing

    def submit(self, request: TrialRequest) -> None:
        """Hand over a trial; a worker decides which of its trials it trains together."""
        member = min(self._crew, key=lambda member: len(member.open))
        if member.open and len(self._crew) < self._most_workers:
            member = self._hire()
        member.open.append(request.number)
        member.process.send(request.model_dump_json())
        if self._is_stopping:
            member.process.stop()

    def events(self) -> Iterator[Event]:
        """What happens, until every submitted trial has ended with `finished` or `interrupted`; or `died`, once, as the last.

        An `error` that a user can act on is the last instead: all trials have been interrupted then.

        When one worker dies, the others write their checkpoints and end, and from then on there is only one: what killed it
        may have been a lack of memory.
        """
        death: Event | None = None
        refusal: Event | None = None
        while any(member.open or member.is_ending for member in self._crew):
            try:
                member, event = self._heard.get(timeout=IDLE_S)
            except Empty:
                yield Event(kind="idle")
                continue
            if member not in self._crew:
                continue
            if event is None:
                self._crew.remove(member)
                if member.was_asked_to_end and death is None:
                    # It ended before it had read what was submitted last.
                    for number in member.open:
                        yield Event(kind="interrupted", trial=number, data={"step": 0})
                    member.open.clear()
                if member.open:
                    death = death or member.process.death(member.cause)
                    self._stop_crew()
                continue
            if event.kind == "error" and event.data.get("error") == WorkerFailed.__name__:
                member.cause = str(event.data.get("text"))
                continue
            if event.kind == "error":
                refusal = refusal or event
                member.open.clear()
                self._stop_crew()
                continue
            if event.kind in {"finished", "interrupted"} and event.trial in member.open:
                member.open.remove(event.trial)
            if event.kind == "interrupted" and not self._is_stopping and death is None:
                member.is_ending = True
            yield event
        if refusal or death:
            self.close()
            self._is_alone = not self._devices  # GPUs share no memory
        if refusal:
            yield refusal
        elif death:
            yield death

    def stop(self) -> None:
        """Ask for checkpoints and an end; running trials answer `interrupted`. Safe in a signal handler."""
        self._is_stopping = True
        self._stop_crew()

    def pause(self) -> None:
        """Like `stop`, but the next `start` begins again."""
        for member in self._crew:
            member.was_asked_to_end = True
        self._stop_crew()

    def stop_trial(self, number: int) -> None:
        """End one trial with what it has shown; it answers `finished`."""
        for member in self._crew:
            if number in member.open:
                member.process.send(json.dumps({"kind": "stop_trial", "trial": number}))

    def _stop_crew(self) -> None:
        for member in [*self._crew, *([self._reserve] if self._reserve else [])]:
            member.process.stop()

    def kill(self) -> None:
        """End the workers now."""
        for member in list(self._crew):
            member.process.kill()
        self._drop_reserve()

    def close(self) -> None:
        """End the workers in good order, and wait for them."""
        self._drop_reserve()
        crew, self._crew = self._crew, []
        for member in crew:
            member.process.end_input()
        for member in crew:
            member.process.close()

    def _hire(self) -> _Member:
        """Start another worker; it finds its first trial waiting when it is ready."""
        taken = {member.number for member in self._crew}
        member, self._reserve = self._reserve, None
        member = member or self._member(next(number for number in count(2) if number not in taken))
        self._crew.append(member)
        self._listen(member, awaits_ready=True)
        return member

    def _drop_reserve(self) -> None:
        """End a worker that was started ahead and never needed; it holds nothing."""
        reserve, self._reserve = self._reserve, None
        if reserve is not None:
            reserve.process.kill()
            reserve.process.close()

    def _member(self, number: int) -> _Member:
        session = self._session.model_copy(update={"worker": number})
        own = {"CUDA_VISIBLE_DEVICES": self._devices[number - 1]} if self._devices else None
        return _Member(number, WorkerProcess(session, folder=self._folder, module=self._module, environment=own))

    def _listen(self, member: _Member, *, awaits_ready: bool = False) -> None:
        """Bring the events of a worker here, from a thread of its own; None is the last."""

        def read() -> None:
            try:
                if awaits_ready:
                    member.process.await_ready()
                while (event := member.process.next_event()) is not None:
                    self._heard.put((member, event))
            except (FinestepError, ValueError, OSError) as error:
                member.cause = str(error)
                member.process.kill()
            self._heard.put((member, None))

        threading.Thread(target=read, daemon=True, name="worker events").start()


def _gpus_of(names: str) -> str:
    count = len(names.split(","))
    return "a GPU" if count == 1 else f"{count} GPUs"


def inspect_data(session: SessionRequest, *, folder: Path) -> DataCard:
    """The data card, made by a worker that loads no model."""
    worker = WorkerProcess(session.model_copy(update={"purpose": "inspect"}), folder=folder)
    try:
        return worker.await_ready().card
    finally:
        worker.close()


class TorchReport(TypedDict, total=False):
    """What torch says about a machine; only `error` when it cannot be loaded."""

    torch: str
    cuda: bool
    cuda_version: str | None
    devices: list[str]
    mps: bool
    threads: int
    error: list[str]


def doctor_report(timeout_s: float = 60.0) -> TorchReport:
    """What torch says about this machine, asked in a process of its own; {"error": ...} when it cannot be loaded."""
    code = (
        "import json, torch; cuda = torch.cuda.is_available(); print(json.dumps({'torch': torch.__version__, 'cuda': cuda, "
        "'cuda_version': torch.version.cuda, 'devices': [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] "
        "if cuda else [], 'mps': torch.backends.mps.is_available(), 'threads': torch.get_num_threads()}))"
    )
    try:
        out = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=timeout_s, check=False
        )
        found: TorchReport = json.loads(out.stdout) if out.returncode == 0 else {}
        return found or {"error": out.stderr.strip().splitlines()[-1:]}
    except (subprocess.TimeoutExpired, ValueError, OSError) as error:
        return {"error": [str(error)]}
