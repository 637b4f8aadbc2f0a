"""A simulated clock: several workers play recorded runs for one engine; the cost of everything they do is counted.

Cost is in full runs. A shorter length is an own run from scratch with its own schedule; an engine that climbs
from length to length pays for each. An exact repeat of a measured cell is
free (whoever tunes a recorded grid would look it up).
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass, field
from typing import Protocol

from benchmarks.search.surfaces import Cell, Task

MAX_REPEATS = 60


@dataclass(frozen=True)
class Wish:
    """What an engine wants to run: a point of the box, and one length, or (None) all lengths from short to full."""

    point: tuple[float, ...]
    fidelity: float | None = 1.0
    token: object = None


class Engine(Protocol):
    """What is judged. `report` is called at each step of a run and may stop it; `tell` when the run has ended."""

    def ask(self, idle: int) -> Wish | None:
        """What to run next; `idle` workers are waiting, this one included."""
        ...

    def report(self, wish: Wish, cost: float, value: float | None) -> bool:
        """True to go on."""
        ...

    def tell(self, wish: Wish, cell: Cell, value: float | None) -> None: ...


@dataclass(frozen=True)
class Step:
    """One thing that takes time: its cost, its value, and whether its value counts as a full result."""

    cost: float
    value: float | None
    counts: bool
    key: tuple[int, float] | None = None
    """The measured cell; a repeat is free once it has finished, not while it runs."""


@dataclass
class Job:
    wish: Wish
    cell: Cell
    steps: list[Step]
    spent: float = 0.0
    next: int = 0


@dataclass(frozen=True)
class Mark:
    """The best regret so far, when it was reached and what had been spent by then."""

    wall: float
    cost: float
    regret: float


@dataclass
class Clock:
    """Plays one engine on one task until the budget is gone."""

    task: Task
    engine: Engine
    workers: int
    budget: float
    stop_when_found: bool = True
    """End at the strictest target; otherwise the engine or the budget ends it."""
    marks: list[Mark] = field(default_factory=list)
    _taken: list[Cell] = field(default_factory=list)
    _measured: set[tuple[int, float]] = field(default_factory=set)
    _spent: float = 0.0
    _best: float = math.inf
    _repeats: int = 0

    def run(self) -> list[Mark]:
        """The falling sequence of best regrets."""
        events: list[tuple[float, int, Job]] = []
        order = 0
        now = 0.0
        idle = self.workers
        stop_at = min(self.task.targets) if self.stop_when_found else -1.0
        while self._best > stop_at:
            while idle and self._spent + self._running(events, now) < self.budget and self._repeats <= MAX_REPEATS:
                wish = self.engine.ask(idle)
                if wish is None:
                    break
                job = self._job(wish)
                if job is None:
                    return self.marks
                order += 1
                idle -= 1
                heapq.heappush(events, (now + job.steps[0].cost, order, job))
            if not events:
                break
            now, _, job = heapq.heappop(events)
            if self._step(job, now, events):
                order += 1
                heapq.heappush(events, (now + job.steps[job.next].cost, order, job))
            else:
                idle += 1
        return self.marks

    def _running(self, events: list[tuple[float, int, Job]], now: float) -> float:
        return sum(max(0.0, job.steps[job.next].cost - (end - now)) for end, _, job in events)

    def _step(self, job: Job, now: float, events: list[tuple[float, int, Job]]) -> bool:
        """Finish the job's current step; True when it goes on."""
        step = job.steps[job.next]
        job.next += 1
        job.spent += step.cost
        self._spent += step.cost
        if step.key is not None:
            self._measured.add(step.key)
        if step.counts and self.task.regret(step.value) < self._best:
            self._best = self.task.regret(step.value)
            self.marks.append(Mark(now, self._spent + self._running(events, now), self._best))
        more = self.engine.report(job.wish, job.spent, step.value) and job.next < len(job.steps)
        if not more:
            self._repeats = self._repeats + 1 if job.spent == 0 else 0
            best = [s.value for s in job.steps[: job.next] if s.value is not None]
            value = (max(best) if best else None) if job.cell.curve else step.value
            self.engine.tell(job.wish, job.cell, value)
        return more

    def _job(self, wish: Wish) -> Job | None:
        if self.task.kind == "pool":
            return self._pool_job(wish)
        lengths = self.task.fidelities if wish.fidelity is None else (self._length(wish.fidelity),)
        cells = [self.task.nearest(wish.point, fidelity=length) for length in lengths]
        steps = [self._grid_step(cell, length) for cell, length in zip(cells, lengths, strict=True) if cell]
        last = cells[-1]
        return Job(wish, last, steps) if last and steps else None

    def _length(self, fidelity: float) -> float:
        return min(self.task.fidelities, key=lambda length: abs(math.log(length / fidelity)))

    def _grid_step(self, cell: Cell, length: float) -> Step:
        seen = (id(cell), length) in self._measured
        return Step(0.0 if seen else cell.cost, cell.value, length == 1.0, (id(cell), length))

    def _pool_job(self, wish: Wish) -> Job | None:
        cell = self.task.nearest(wish.point, fidelity=1.0, taken=self._taken)
        if cell is None:
            return None
        self._taken.append(cell)
        before, steps = 0.0, []
        for cost, value in cell.curve:
            steps.append(Step(cost - before, value, True))
            before = cost
        return Job(wish, cell, steps)


def cost_to(marks: list[Mark], target: float) -> Mark | None:
    """The first mark at or below a target; None when it was not reached."""
    return next((mark for mark in marks if mark.regret <= target), None)
