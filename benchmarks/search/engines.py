"""The engines that need nothing but finestep: random, the classic sweep, the search, and its bounds."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from benchmarks.search.simulate import Wish
from benchmarks.search.surfaces import Cell, Task, stable_hash
from finestep.answer import Answer
from finestep.recipe import Recipe
from finestep.search.hopeless import is_hopeless
from finestep.search.observations import Objective
from finestep.search.prior import Bowl, Drift, SearchPrior
from finestep.search.space import Dimension, SearchSpace
from finestep.search.strategy import Proposal
from finestep.search.structured import StructuredSearch
from finestep.search.unit import Reading
from finestep.trial import Outcome, Trial

PRIORS = ("good", "off4", "off16", "none")
FROM_OTHER_DATA: dict[str, dict[str, Any]] = {
    "grid": {"bowl": Bowl(rate_curvature=0.48, batch_curvature=0.48), "drift": Drift(batch_exponent=0.45)},
    "finetuning": {},
    "adapter": {"bowl": Bowl(rate_curvature=0.74, batch_curvature=0.60)},
    "pool": {"bowl": Bowl(rate_curvature=3.0, batch_curvature=3.0), "noise": 1.0, "raggedness": 1.0},
}
"""Shape of the prior by what is judged, always from other data: LoRA sweep for pre-training grids and the reverse.

The best batch of pre-training grows with length^0.38 to 0.65 (Power Lines, critical batch sizes, DeepSeek); fine-tunes are
judged with the defaults of `SearchPrior`, as `tune` is.

Pools are judged by error rate, whose relative basin is sharper: accuracy of Gemma-1B on MATH (Lee) falls by a tenth of
the correct answers at a factor of 3; binomial noise of an error of 12 % on 10,000 rows is 2.7 % of it.
"""


@dataclass(frozen=True)
class Centre:
    """Where the prior says that the optimum is, and how sure it is (log2 units)."""

    point: tuple[float, ...]
    sd: tuple[float, ...]
    known: bool


def prior_centre(task: Task, kind: str, seed: int) -> Centre:
    """The best measured point, moved: good: within 1.4x; off4: within 4x; off16: the rate by 16x; none: the box.

    Of further axes (epochs, warmup, dropout of a pool) nobody knows more than the middle of the box.
    """
    rng = np.random.default_rng([seed, stable_hash(task.name)])
    moves = {
        "good": rng.uniform(-0.5, 0.5, 2),
        "off4": rng.uniform(-2, 2, 2),
        "off16": np.array([4.0 * rng.choice([-1, 1]), rng.uniform(-2, 2)]),
    }
    if kind == "none":
        point = [sum(bound) / 2 for bound in task.bounds]
        sd = [max((high - low) / 3, 0.5) for low, high in task.bounds]
        return Centre(tuple(point), tuple(sd), known=False)
    middle = [sum(bound) / 2 for bound in task.bounds]
    point = [*task.best_cell.point[:2], *middle[2:]]
    for axis in range(2):
        point[axis] += float(moves[kind][axis])
    return Centre(tuple(point), (1.2, 1.2), known=True)


class Random:
    """Uniform over the box (over the measured cells of a pool)."""

    def __init__(self, task: Task, centre: Centre, seed: int):
        self._task, self._rng = task, np.random.default_rng(seed)

    def ask(self, idle: int) -> Wish:
        cell = self._task.full[int(self._rng.integers(len(self._task.full)))]
        return Wish(cell.point)

    def report(self, wish: Wish, cost: float, value: float | None) -> bool:
        return True

    def tell(self, wish: Wish, cell: Cell, value: float | None) -> None:
        pass


class Oracle(Random):
    """Knows the answer and has to show it: one full run of the best measured cell, the bound of every engine."""

    def ask(self, idle: int) -> Wish:
        return Wish(self._task.best_cell.point)


class Sweep(Random):
    """The classic procedure: learning rates by a factor of 2 about the centre, then batches with the square-root rule,
    then learning rates by a factor of 1.4 about the best; then random points."""

    def __init__(self, task: Task, centre: Centre, seed: int):
        super().__init__(task, centre, seed)
        self._start = centre.point
        self._queue: list[tuple[float, ...]] = []
        self._stage = 0
        self._best = (math.inf, centre.point)

    def ask(self, idle: int) -> Wish:
        while not self._queue and self._stage < 3:
            base = self._start if self._stage == 0 else self._best[1]
            moves = (
                [(0, 0), (-1, 0), (1, 0), (-2, 0), (2, 0)],
                [(0.5, 1), (-0.5, -1), (1, 2), (-1, -2)],
                [(-0.5, 0), (0.5, 0), (0.25, 0.5), (-0.25, -0.5)],
            )[self._stage]
            self._queue = [(base[0] + a, base[1] + b, *base[2:]) for a, b in moves]
            self._stage += 1
        return Wish(self._queue.pop(0)) if self._queue else super().ask(idle)

    def tell(self, wish: Wish, cell: Cell, value: float | None) -> None:
        regret = self._task.regret(value)
        if regret < self._best[0]:
            self._best = (regret, cell.point)


class Finestep:
    """The search of finestep, told what it would be told in `tune`."""

    def __init__(self, task: Task, centre: Centre, seed: int, *, full_only: bool = False, exponents: float = 1.0):
        self._task = task
        self._search = search_for(task, centre, seed, full_only=full_only, exponents=exponents)
        self._trials: list[Trial] = []
        self._curves: list[tuple[float, float]] = []
        self._planned: list[Proposal] = []

    def ask(self, idle: int) -> Wish | None:
        if not self._planned:
            search, trials, _ = self._view(self._trials)
            self._planned = search.propose(trials, remaining_runs=math.inf, max_proposals=idle)
        if not self._planned:
            return None
        proposal = self._planned.pop(0)
        number = len(self._trials)
        point = self._point(proposal.learning_rate, proposal.effective_batch_size, proposal.changes)
        recipe = recipe_at(point, self._task)
        self._trials.append(Trial(number=number, recipe=recipe, fidelity=proposal.fidelity))
        return Wish(point, proposal.fidelity, number)

    def _view(self, trials: list[Trial]) -> tuple[StructuredSearch, list[Trial], float]:
        """What `tune` gives to the search: losses in the study's own unit, and that unit."""
        objective, prior = self._search.objective, self._search.prior
        reading = Reading.of(trials, objective, prior)
        search = replace(self._search, prior=reading.prior(prior), objective=Objective())
        return search, reading.losses(trials), reading.unit

    def answer(self) -> Answer:
        """What the search says of the trials that have ended; its regret in per cent of the loss."""
        search, trials, unit = self._view(self.ended)
        said = search.answer(trials)
        regret = None if said.expected_regret is None else unit * said.expected_regret
        return said.model_copy(update={"expected_regret": regret})

    @property
    def ended(self) -> list[Trial]:
        """The trials that are over."""
        return [trial for trial in self._trials if trial.state != "running"]

    def _point(self, rate: float, batch: int, changes: Mapping[str, object]) -> tuple[float, ...]:
        values = {"lr": math.log2(rate), "batch": math.log2(batch)}
        for axis, (name, transform) in EXTRA_AXES.items():
            if name in changes:
                values[axis] = transform(float(changes[name]))  # type: ignore[arg-type]
        middle = {axis: sum(bound) / 2 for axis, bound in zip(self._task.axes, self._task.bounds, strict=True)}
        return tuple(values.get(axis, middle[axis]) for axis in self._task.axes)

    def report(self, wish: Wish, cost: float, value: float | None) -> bool:
        """Stop a run of a pool that is hopeless: see `finestep.search.hopeless`."""
        if self._task.kind != "pool" or value is None:
            return True
        error = 1 - value
        earlier = [seen for when, seen in self._curves if when <= cost]
        self._curves.append((cost, error))
        return not is_hopeless(error, earlier)

    def _note_missing(self, wish: Wish, cell: Cell) -> None:
        """Where a grid has no run at the wished place, note a trial that could not be run: it is not wished again."""
        if self._task.kind != "pool" and max(abs(a - b) for a, b in zip(wish.point, cell.point, strict=True)) > 0.05:
            fidelity = wish.fidelity or 1.0
            recipe = recipe_at(wish.point, self._task)
            self._trials.append(Trial(number=len(self._trials), recipe=recipe, fidelity=fidelity, state="failed"))

    def tell(self, wish: Wish, cell: Cell, value: float | None) -> None:
        self._planned = []
        self._note_missing(wish, cell)
        self._trials[int(wish.token)] = finished_trial(self._trials[int(wish.token)], cell, value, self._task)  # type: ignore[call-overload]


class Told(Finestep):
    """The search at full length only, told every shorter run of the box for nothing: the bound of what short runs can give."""

    def __init__(self, task: Task, centre: Centre, seed: int, *, exponents: float = 1.0):
        super().__init__(task, centre, seed, full_only=True, exponents=exponents)
        shorter = ((length, cell) for length in task.fidelities[:-1] for cell in task.cells[length])
        inside = [(length, cell) for length, cell in shorter if cell.is_inside(task.bounds)]
        for number, (length, cell) in enumerate(inside):
            trial = Trial(number=number, recipe=recipe_at(cell.point, task), fidelity=length)
            self._trials.append(finished_trial(trial, cell, cell.value, task))


EXTRA_AXES: dict[str, tuple[str, Callable[[float], float]]] = {
    "rank": ("lora.rank", math.log2),
    "epochs": ("num_epochs", math.log2),
    "warmup": ("schedule.warmup_ratio", float),
    "dropout": ("lora.dropout", float),
}
"""Axis of a task -> field of the recipe that plays its part, and from its value to the axis."""


def search_for(
    task: Task, centre: Centre, seed: int, *, full_only: bool = False, exponents: float = 1.0
) -> StructuredSearch:
    """The search with the task's values and a prior whose shape comes from other data; it never stops by itself.

    `exponents` multiplies the prior's exponents of the motion with length, to see what wrong ones cost.
    """
    known = dict(zip(task.axes, zip(centre.point, centre.sd, strict=False), strict=False))
    batch, batch_sd = known.get("batch", (5.0, 0.5))
    prior = SearchPrior(
        learning_rate=2 ** known["lr"][0],
        learning_rate_sd=known["lr"][1],
        batch_size=2**batch,
        batch_size_sd=batch_sd,
        **FROM_OTHER_DATA["finetuning" if task.is_finetuning else task.kind],
    )
    motion = {name: exponents * getattr(prior.drift, name) for name in ("rate_exponent", "batch_exponent")}
    return StructuredSearch(
        space_of(task, full_only=full_only),
        prior.model_copy(update={"drift": prior.drift.model_copy(update=motion)}),
        objective=Objective(metric="accuracy", goal="maximize") if task.maximize else Objective(),
        seed=seed,
        stop_below=0.0,
    )


def space_of(task: Task, *, full_only: bool = False) -> SearchSpace:
    fidelities = (1.0,) if full_only else task.fidelities
    if task.kind == "pool":
        low, high = dict(zip(task.axes, task.bounds, strict=True))["lr"]
        return SearchSpace.between((2**low, 2**high), (16, 64), fidelities=fidelities, extras=_extras(task))
    return SearchSpace(
        learning_rates=tuple(2**x for x in _axis(task, "lr")),
        batch_sizes=tuple(sorted({max(1, round(2**v)) for v in _axis(task, "batch") or [5.0]})),
        fidelities=fidelities,
        extras=_extras(task),
    )


def _axis(task: Task, name: str) -> list[float]:
    """Measured values of an axis inside the box, which is that of the full-length cells for every engine."""
    if name not in task.axes:
        return []
    place = task.axes.index(name)
    low, high = task.bounds[place]
    values = {cell.point[place] for cells in task.cells.values() for cell in cells}
    return sorted(value for value in values if low <= value <= high)


def _extras(task: Task) -> tuple[Dimension, ...]:
    """Rank for adapters; epochs, warmup and dropout for pools, with how much each usually matters."""
    found = []
    if "rank" in task.axes:
        ranks = tuple(round(2**x) for x in _axis(task, "rank"))
        found.append(Dimension(name="lora.rank", values=ranks, default=ranks[-1], scale="log", effect=0.5))
    if "epochs" in task.axes:
        epochs = tuple(round(2**x) for x in _axis(task, "epochs"))
        found.append(Dimension(name="num_epochs", values=epochs, default=3, scale="log", effect=4.0, costs=True))
    if "warmup" in task.axes:
        found.append(Dimension(name="schedule.warmup_ratio", values=(0.1, 0.3, 0.5), default=0.1, effect=0.5))
    return tuple(dimension for dimension in found if len(dimension.values) > 1)


def recipe_at(point: Sequence[float], task: Task) -> Recipe:
    values = dict(zip(task.axes, point, strict=True))
    changes: dict[str, object] = {
        "learning_rate": 2 ** values["lr"],
        "effective_batch_size": max(1, round(2 ** values.get("batch", 5.0))),
    }
    if "rank" in values:
        changes["lora.rank"] = round(2 ** values["rank"])
    if "epochs" in values:
        changes["num_epochs"] = 2 ** values["epochs"]
    if "warmup" in values:
        changes["schedule.warmup_ratio"] = values["warmup"]
    return Recipe().with_fields(changes)


def finished_trial(trial: Trial, cell: Cell, value: float | None, task: Task) -> Trial:
    state = "completed" if value is not None else "diverged"
    metrics = {"accuracy": value} if task.maximize and value is not None else {}
    loss = None if value is None else (1 - value if task.maximize else value)
    outcome = Outcome(state=state, eval_loss=loss, metrics=metrics)
    return trial.model_copy(update={"recipe": recipe_at(cell.point, task), "state": state, "outcome": outcome})
