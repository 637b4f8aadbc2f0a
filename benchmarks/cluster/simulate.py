"""Workers of a cluster on a virtual clock: trials take their time, nodes are lost and come again, stores are slow.

The controller and the search are the real ones. The seconds that they need are measured, and the virtual clock waits for them.
"""

from __future__ import annotations

import heapq
import itertools
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from finestep.disk import make_folder
from finestep.executors.turns import finished
from finestep.facts import DataFacts
from finestep.protocol import Event, TrialRequest
from finestep.ready import DataCard, Machine, Ready, SharePlan
from finestep.recipe import Recipe
from finestep.trial import Cost, EvalRecord, Outcome, StepRecord

NUM_ROWS = 10_000
LOWEST = 1.5


@dataclass(frozen=True)
class Weather:
    """What a cluster is like.

    Attributes:
        full_run_s: seconds of a full run on an ordinary node.
        losses_an_hour: share of the nodes that are lost in an hour.
        away_s: until a lost node is replaced.
        straggling: spread of the speed of nodes, of its logarithm.
        transfer_s: until the files of a finished trial are home.
        checkpoint_s: between checkpoints; what lies behind the last is done again.
        steps_told: step events of a full run.
    """

    full_run_s: float = 1800.0
    losses_an_hour: float = 0.01
    away_s: float = 300.0
    straggling: float = 0.1
    transfer_s: float = 5.0
    checkpoint_s: float = 60.0
    steps_told: int = 60


@dataclass
class Account:
    """What a simulated study came to; seconds are of the virtual clock but for `thinking_s`."""

    end_s: float = 0.0
    useful_s: float = 0.0
    repeated_s: float = 0.0
    thinking_s: float = 0.0
    """Processor seconds of controller, store and search."""
    messages: int = 0
    num_lost: int = 0
    ended: list[tuple[float, float]] = field(default_factory=list)
    """(second, how far above the best possible loss its recipe truly lies, %) of each full run."""
    fills: list[float] = field(default_factory=list)
    """Seconds after the end of a trial until the controller listens again: record, search, submit."""

    def seconds_to(self, percent: float) -> float:
        """When the first full run ended whose recipe lies so near to the best; never: infinity."""
        return min((when for when, excess in self.ended if excess <= percent), default=math.inf)


class VirtualCluster:
    """An executor whose workers exist on a virtual clock alone."""

    def __init__(self, workers: int, weather: Weather, *, seed: int = 0):
        self.workers, self.weather, self.account = workers, weather, Account()
        self._draw = np.random.default_rng(seed)
        self._speeds = np.exp(self._draw.normal(0, weather.straggling, workers))
        self._free = list(range(workers))
        self._waiting: list[TrialRequest] = []
        self._order = itertools.count()
        self._excess: dict[int, float] = {}
        self._heap: list[tuple[float, int, Event | int]] = []
        self._clock = 0.0

    def start(self) -> Ready:
        facts = DataFacts(name="simulated", num_rows=NUM_ROWS, num_eval_rows=512)
        plan = SharePlan(num_workers=self.workers)
        return Ready(card=DataCard(facts=facts), machine=Machine(device="virtual"), sharing=plan)

    def submit(self, request: TrialRequest) -> None:
        self._waiting.append(request)
        self._place()

    def events(self) -> Iterator[Event]:
        """The events in the order of the virtual clock."""
        self._place()
        while self._heap:
            at, _, what = heapq.heappop(self._heap)
            self._clock = max(self._clock, at)
            if isinstance(what, int):  # a node is free again
                self._free.append(what)
                self._place()
                continue
            self.account.messages += 1
            began, cpu = time.perf_counter(), time.process_time()
            yield what
            thought = time.process_time() - cpu
            self.account.thinking_s += thought
            if what.kind == "finished":
                self.account.fills.append(time.perf_counter() - began)
                if what.trial in self._excess:
                    self.account.ended.append((self._clock, self._excess[what.trial]))
            self._clock += thought
            self.account.end_s = self._clock

    def stop(self) -> None: ...
    def pause(self) -> None: ...
    def kill(self) -> None: ...
    def close(self) -> None: ...
    def stop_trial(self, number: int) -> None: ...

    def _place(self) -> None:
        while self._waiting and self._free:
            self._plan(self._waiting.pop(0), self._free.pop(0))

    def _plan(self, request: TrialRequest, node: int) -> None:
        """Put all that will happen to a trial on the clock, losses of its node included."""
        weather, trial = self.weather, request.number
        work = weather.full_run_s * request.fidelity * self._speeds[node]
        now, left = self._clock, work
        while (lives := self._draw.exponential(3600 / weather.losses_an_hour)) < left:
            kept = lives - lives % weather.checkpoint_s
            self.account.num_lost += 1
            self.account.repeated_s += lives - kept
            now, left = now + lives + weather.away_s, left - kept
        self.account.useful_s += work
        steps = max(1, round(weather.steps_told * request.fidelity))
        self._at(now, Event(kind="started", trial=trial, data={"num_steps": steps, "from_step": 0}))
        for step in range(1, steps + 1):
            self._at(now + left * step / steps, Event(kind="step", trial=trial, data=_step(step).model_dump()))
        loss = _loss(request.recipe, request.fidelity, self._draw)
        if request.fidelity == 1.0:
            self._excess[trial] = 100 * math.log(true_loss(request.recipe) / LOWEST)
        for part in range(1, 6):
            value = loss + 0.3 * (5 - part) / 5
            record = EvalRecord(step=max(1, steps * part // 5), num_tokens=part, eval_loss=value)
            self._at(now + left * part / 5, Event(kind="evaluation", trial=trial, data=record.model_dump()))
        end = now + left + self._draw.exponential(weather.transfer_s)
        make_folder(Path(request.folder))
        outcome = Outcome(
            state="completed",
            reason="simulated",
            eval_loss=loss,
            best_step=steps,
            cost=Cost(num_steps=steps, elapsed_s=work),
        )
        self._at(end, finished(request, outcome))
        self._at(end, node)

    def _at(self, when: float, what: Event | int) -> None:
        heapq.heappush(self._heap, (when, next(self._order), what))


def true_loss(recipe: Recipe) -> float:
    """A bowl over the logarithms of rate and batch."""
    rate = math.log2(recipe.learning_rate / 3e-4) - 0.5 * math.log2(recipe.effective_batch_size / 16)
    batch = max(0.0, math.log2(recipe.effective_batch_size / 32))
    return LOWEST + 0.01 * rate**2 + 0.01 * batch**2


def _loss(recipe: Recipe, fidelity: float, draw: np.random.Generator) -> float:
    """What a run measures: higher where it is short, and different from one seed to the next."""
    return true_loss(recipe) + 0.2 * (1 - fidelity) + draw.normal(0, 0.002)


def _step(step: int) -> StepRecord:
    return StepRecord(
        step=step,
        loss=2.0,
        learning_rate=1e-4,
        grad_norm=1.0,
        clipped=False,
        num_tokens=1000,
        num_loss_tokens=500,
        elapsed_s=float(step),
    )
