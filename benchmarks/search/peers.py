"""The engines of other libraries, each optional: Optuna 5, SMAC, BoTorch, Syne Tune. None is told what it cannot be told.

A name that ends in `+start` runs the prior's centre first (the way in which these engines can take such knowledge).
`_winsor` engines see values cut at 1.25 x the best so far, which is most of the gain over raw Gaussian processes.
"""

from __future__ import annotations

import importlib.util
import logging
import math
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.search.engines import Centre
from benchmarks.search.simulate import Wish
from benchmarks.search.surfaces import Cell, Task

PENALTY = 1.25
"""A diverged run without a value counts as this many times the worst finite one, for every peer."""


def _clipped(task: Task, centre: Centre) -> tuple[float, ...]:
    return tuple(min(max(value, low), high) for value, (low, high) in zip(centre.point, task.bounds, strict=True))


class _Told:
    """What the peers share: values to minimise, a finite penalty for failures, and the winsorised view."""

    def __init__(self, task: Task, winsor: bool):
        self.task, self.winsor = task, winsor
        self.points: list[tuple[float, ...]] = []
        self.values: list[float] = []

    def add(self, point: tuple[float, ...], value: float | None) -> float:
        loss = None if value is None else (1 - value if self.task.maximize else value)
        worst = max(self.values, default=1.0)
        self.points.append(point)
        self.values.append(loss if loss is not None and math.isfinite(loss) else PENALTY * worst)
        return self.shown()[-1]

    def shown(self) -> list[float]:
        if not self.winsor:
            return self.values
        top = PENALTY * min(self.values)
        return [min(value, top) for value in self.values]


class OptunaEngine:
    """Any Optuna sampler and pruner over log2 axes."""

    def __init__(self, task: Task, centre: Centre, seed: int, *, kind: str, pruner: str = "", winsor: bool = False):
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        self.task, self.centre = task, centre
        self.told = _Told(task, winsor)
        self.study = optuna.create_study(sampler=_sampler(kind, seed, task, centre), pruner=_pruner(pruner))
        self.ladder = bool(pruner) and task.kind != "pool"
        self.prunes = bool(pruner)
        if centre.known:
            self.study.enqueue_trial(dict(zip(task.axes, _clipped(task, centre), strict=True)))
        self._steps: dict[int, int] = {}

    def ask(self, idle: int) -> Wish:
        trial = self.study.ask()
        point = tuple(
            trial.suggest_float(axis, low, high)
            for axis, (low, high) in zip(self.task.axes, self.task.bounds, strict=True)
        )
        return Wish(point, None if self.ladder else 1.0, trial)

    def report(self, wish: Wish, cost: float, value: float | None) -> bool:
        if not self.prunes:
            return True
        trial: Any = wish.token
        step = self._steps[trial.number] = self._steps.get(trial.number, 0) + 1
        loss = value if not self.task.maximize or value is None else 1 - value
        trial.report(loss if loss is not None else 1e3, step)
        return not trial.should_prune()

    def tell(self, wish: Wish, cell: Cell, value: float | None) -> None:
        trial: Any = wish.token
        self.study.tell(trial, self.told.add(wish.point, value))


def _sampler(kind: str, seed: int, task: Task, centre: Centre) -> Any:
    import optuna

    if kind == "tpe":
        return optuna.samplers.TPESampler(seed=seed)
    if kind == "gp":
        return optuna.samplers.GPSampler(seed=seed)
    if kind == "gp5":
        return optuna.samplers.GPSampler(seed=seed, n_startup_trials=5)
    if kind == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    x0 = dict(zip(task.axes, _clipped(task, centre), strict=True)) if centre.known else None
    return optuna.samplers.CmaEsSampler(seed=seed, x0=x0)


def _pruner(kind: str) -> Any:
    import optuna

    if kind == "hyperband":
        return optuna.pruners.HyperbandPruner(min_resource=1, max_resource="auto", reduction_factor=3)
    if kind == "halving":
        return optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=3)
    return optuna.pruners.NopPruner()


class BotorchEngine:
    """BoTorch: SingleTaskGP with log expected improvement after five Sobol points."""

    def __init__(self, task: Task, centre: Centre, seed: int, *, winsor: bool = False):
        import torch
        from scipy.stats import qmc

        torch.manual_seed(seed)
        self.rng = np.random.default_rng(seed)
        self.task, self.told = task, _Told(task, winsor)
        self.low = np.array([low for low, _ in task.bounds])
        self.span = np.array([high - low for low, high in task.bounds])
        start = self.low + self.span * qmc.Sobol(len(self.low), seed=seed).random(8)[:5]
        self.queue = [tuple(point) for point in start]
        if centre.known:
            self.queue[0] = _clipped(task, centre)
        self.pending: list[tuple[float, ...]] = []

    def ask(self, idle: int) -> Wish:
        point = self.queue.pop(0) if self.queue else self._best_point() if len(self.told.points) > 1 else self._any()
        self.pending.append(point)
        return Wish(point, 1.0, point)

    def _any(self) -> tuple[float, ...]:
        """A random point: lanes that ask before anything has been measured."""
        return tuple(self.low + self.span * self.rng.random(len(self.low)))

    def _best_point(self) -> tuple[float, ...]:
        import torch
        from botorch.acquisition import qLogExpectedImprovement
        from botorch.fit import fit_gpytorch_mll
        from botorch.models import SingleTaskGP
        from botorch.optim import optimize_acqf
        from gpytorch.mlls import ExactMarginalLogLikelihood

        warnings.filterwarnings("ignore")
        scaled = torch.tensor((np.array(self.told.points) - self.low) / self.span)
        values = -torch.tensor(self.told.shown(), dtype=torch.double)[:, None]
        values = (values - values.mean()) / values.std().clamp_min(1e-9)
        model = SingleTaskGP(scaled, values)
        fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
        busy = torch.tensor((np.array(self.pending) - self.low) / self.span) if self.pending else None
        improvement = qLogExpectedImprovement(model, best_f=values.max(), X_pending=busy)
        box = torch.stack([torch.zeros(len(self.low)), torch.ones(len(self.low))]).double()
        found, _ = optimize_acqf(improvement, bounds=box, q=1, num_restarts=4, raw_samples=64)
        return tuple(self.low + self.span * found[0].detach().numpy())

    def report(self, wish: Wish, cost: float, value: float | None) -> bool:
        return True

    def tell(self, wish: Wish, cell: Cell, value: float | None) -> None:
        self.pending.remove(wish.token)  # type: ignore[arg-type]
        self.told.add(wish.point, value)


class SmacEngine:
    """SMAC 2 hyperparameter-optimisation facade (random forest) by ask and tell."""

    def __init__(self, task: Task, centre: Centre, seed: int):
        from ConfigSpace import Configuration, ConfigurationSpace
        from smac import HyperparameterOptimizationFacade, Scenario

        logging.disable(logging.WARNING)
        self.task, self.told = task, _Told(task, winsor=False)
        space = ConfigurationSpace(dict(zip(task.axes, task.bounds, strict=True)), seed=seed)
        scenario = Scenario(space, deterministic=True, n_trials=500, seed=seed, output_directory=_scratch())
        first = []
        if centre.known:
            first = [Configuration(space, values=dict(zip(task.axes, _clipped(task, centre), strict=True)))]
        design = HyperparameterOptimizationFacade.get_initial_design(scenario, n_configs=6, additional_configs=first)
        self.smac = HyperparameterOptimizationFacade(
            scenario, lambda config, seed: 0.0, initial_design=design, overwrite=True, logging_level=False
        )

    def ask(self, idle: int) -> Wish:
        info = self.smac.ask()
        return Wish(tuple(float(info.config[axis]) for axis in self.task.axes), 1.0, info)

    def report(self, wish: Wish, cost: float, value: float | None) -> bool:
        return True

    def tell(self, wish: Wish, cell: Cell, value: float | None) -> None:
        from smac.runhistory.dataclasses import TrialValue

        self.smac.tell(wish.token, TrialValue(cost=self.told.add(wish.point, value)))


class SyneTuneEngine:
    """Syne Tune's asynchronous successive halving, with random search (ASHA) or a density model (BOHB).

    A rung of a grid is one of its lengths; a rung of a pool is an evaluation of the recorded curve.
    """

    def __init__(self, task: Task, centre: Centre, seed: int, *, kind: str):
        from syne_tune.config_space import uniform
        from syne_tune.optimizer import baselines

        logging.disable(logging.WARNING)
        self.task, self.told = task, _Told(task, winsor=False)
        self.ladder = task.kind != "pool" and len(task.fidelities) > 1
        levels = len(task.fidelities) if task.kind != "pool" else max(len(cell.curve) for cell in task.full)
        space = {axis: uniform(low, high) for axis, (low, high) in zip(task.axes, task.bounds, strict=True)}
        first = [dict(zip(task.axes, _clipped(task, centre), strict=True))] if centre.known else None
        self.scheduler = getattr(baselines, kind)(
            space,
            metric="loss",
            time_attr="rung",
            max_t=max(levels, 2),
            random_seed=seed,
            points_to_evaluate=first,
        )
        self._rungs: dict[int, int] = {}

    def ask(self, idle: int) -> Wish:
        from datetime import datetime

        from syne_tune.backend.trial_status import Trial

        config = self.scheduler.suggest().config
        trial = Trial(trial_id=len(self._rungs), config=config, creation_time=datetime.fromtimestamp(0))
        self._rungs[trial.trial_id] = 0
        self.scheduler.on_trial_add(trial)
        return Wish(tuple(float(config[axis]) for axis in self.task.axes), None if self.ladder else 1.0, trial)

    def report(self, wish: Wish, cost: float, value: float | None) -> bool:
        trial: Any = wish.token
        self._rungs[trial.trial_id] += 1
        result = {"loss": self.told.add(wish.point, value), "rung": self._rungs[trial.trial_id]}
        return bool(self.scheduler.on_trial_result(trial, result) == "CONTINUE")

    def tell(self, wish: Wish, cell: Cell, value: float | None) -> None:
        trial: Any = wish.token
        self.scheduler.on_trial_remove(trial)


def _scratch() -> Any:
    import tempfile
    from pathlib import Path

    return Path(tempfile.mkdtemp(prefix="smac-"))


Make = Callable[..., Any]
PEERS: dict[str, tuple[str, Make]] = {
    "tpe": ("optuna", lambda *a: OptunaEngine(*a, kind="tpe")),
    "gp": ("optuna", lambda *a: OptunaEngine(*a, kind="gp")),
    "gp_winsor": ("optuna", lambda *a: OptunaEngine(*a, kind="gp5", winsor=True)),
    "cmaes": ("cmaes", lambda *a: OptunaEngine(*a, kind="cmaes")),
    "hyperband": ("optuna", lambda *a: OptunaEngine(*a, kind="tpe", pruner="hyperband")),
    "halving": ("optuna", lambda *a: OptunaEngine(*a, kind="random", pruner="halving")),
    "smac": ("smac", lambda *a: SmacEngine(*a)),
    "asha": ("syne_tune", lambda *a: SyneTuneEngine(*a, kind="ASHA")),
    "bohb": ("syne_tune", lambda *a: SyneTuneEngine(*a, kind="BOHB")),
    "botorch": ("botorch", lambda *a: BotorchEngine(*a)),
    "botorch_winsor": ("botorch", lambda *a: BotorchEngine(*a, winsor=True)),
}
"""Name -> (package it needs, how to make it for a task, a centre and a seed)."""


def make_peer(name: str, task: Task, centre: Centre, seed: int) -> Any:
    """A peer for one run; it knows the prior's centre only when its name ends in `+start`."""
    kind, _, start = name.partition("+")
    return PEERS[kind][1](task, replace(centre, known=centre.known and start == "start"), seed)


def is_peer(name: str) -> bool:
    """True for a known peer, with or without `+start`."""
    return name.removesuffix("+start") in PEERS


def installed(name: str) -> bool:
    """True when the package of a peer can be imported."""
    try:
        return importlib.util.find_spec(PEERS[name.removesuffix("+start")][0]) is not None  # type: ignore[attr-defined]
    except (ImportError, ValueError):
        return False
