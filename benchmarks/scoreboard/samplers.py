"""Other optimizers on the cells that `tune` may try, told what `recommend` says: Optuna, and two Gaussian processes of BoTorch.

Each runs at full length only. BoTorch is imported when it plays; `installed` says whether it can.
"""

from __future__ import annotations

import importlib.util
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks.scoreboard.bill import Bill
from benchmarks.scoreboard.rules import Chosen, advised
from benchmarks.scoreboard.tuned import judge_of
from benchmarks.search.recorded import Place
from finestep.rules.recommendation import Recommendation
from finestep.search.prior import SearchPrior

PENALTY = 1.25
"""A diverged run counts as this many times the worst finite value."""
PRIOR_WEIGHT = 1.0
"""piBO: the prior's density is raised to this over the number of runs so far. Its paper takes a tenth of the number of runs."""


def optuna_tpe(bill: Bill, advice: Recommendation, budget: float) -> Chosen:
    """Optuna's tree-structured Parzen estimator, first run at the recommendation; its first ten runs are random by default."""
    import optuna

    return _optuna(bill, advice, optuna.samplers.TPESampler(seed=bill.seed))


def optuna_gp(bill: Bill, advice: Recommendation, budget: float) -> Chosen:
    """Optuna's Gaussian process from the second run on, first run at the recommendation."""
    import optuna

    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    return _optuna(bill, advice, optuna.samplers.GPSampler(seed=bill.seed, n_startup_trials=1))


def _optuna(bill: Bill, advice: Recommendation, sampler: Any) -> Chosen:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    cells = _cells(bill, advice)
    axes = {name: sorted({getattr(cell, name) for cell in cells}) for name in ("log_rate", "log_batch")}
    first = bill.task.nearest(*advised(advice))
    study = optuna.create_study(sampler=sampler)
    study.enqueue_trial({name: _index(values, getattr(first, name)) for name, values in axes.items()})
    values: list[float] = []
    while bill.affords():
        trial = study.ask()
        where = {name: here[trial.suggest_int(name, 0, len(here) - 1)] for name, here in axes.items()}
        values.append(bill.run(2 ** where["log_rate"], 2 ** where["log_batch"])[1])
        study.tell(trial, _finite(values)[-1])
    return bill.best(), None


def _index(values: Sequence[float], wish: float) -> int:
    return min(range(len(values)), key=lambda one: abs(values[one] - wish))


def botorch_prior(bill: Bill, advice: Recommendation, budget: float) -> Chosen:
    """piBO: expected improvement, weighted with the Gaussian prior of `recommend`, which fades with the number of runs."""
    return _botorch(bill, advice, _pibo)


def botorch_bowl(bill: Bill, advice: Recommendation, budget: float) -> Chosen:
    """Expected improvement of a Gaussian process about the bowl of `tune`, whose place and steepness are fitted under the prior."""
    return _botorch(bill, advice, _bowl)


Score = Callable[[np.ndarray, np.ndarray, np.ndarray, SearchPrior], np.ndarray]
"""From the points so far, their values (higher is better) and further points to how much a run at each promises."""


def _botorch(bill: Bill, advice: Recommendation, score: Score) -> Chosen:
    import torch

    torch.manual_seed(bill.seed)
    prior, cells = judge_of(bill.task, advice, budget=bill.budget, seed=bill.seed).prior, _cells(bill, advice)
    place, value = bill.run(*advised(advice))
    tried, values = [place], [value]
    while bill.affords() and (free := [cell for cell in cells if cell not in tried]):
        logs = -100 * np.log(np.maximum(_finite(values), 1e-3))
        promise = score(_points(tried), logs, _points(free), prior)
        place = free[int(np.argmax(promise))]
        tried.append(place)
        values.append(bill.run(place.rate, place.batch)[1])
    return bill.best(), None


def _pibo(points: np.ndarray, values: np.ndarray, free: np.ndarray, prior: SearchPrior) -> np.ndarray:
    import torch
    from botorch.acquisition import LogExpectedImprovement
    from botorch.acquisition.prior_guided import PriorGuidedAcquisitionFunction
    from botorch.models import SingleTaskGP
    from botorch.models.transforms import Normalize

    box = torch.tensor(np.array([np.vstack([points, free]).min(axis=0), np.vstack([points, free]).max(axis=0)]))
    told, seen = torch.tensor(points), torch.tensor(values)[:, None]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = _fitted(SingleTaskGP(told, seen, input_transform=Normalize(2, bounds=box)))

        class Belief(torch.nn.Module):
            def forward(self, X: torch.Tensor) -> torch.Tensor:
                return _log_prior(X, prior)

        improvement = LogExpectedImprovement(model, best_f=seen.max())
        weight = PRIOR_WEIGHT / len(points)
        guided = PriorGuidedAcquisitionFunction(improvement, Belief(), log=True, prior_exponent=weight)
        return guided(torch.tensor(free)[:, None, :]).detach().numpy()  # type: ignore[no-any-return]


def _log_prior(X: Any, prior: SearchPrior) -> Any:
    """Log density of the prior of `tune` over (log2 rate, log2 batch), but for a constant."""
    batch = X[..., 1] - math.log2(prior.batch_size)
    rate = X[..., 0] - math.log2(prior.learning_rate) - prior.slope * batch
    return -0.5 * ((batch / prior.batch_size_sd) ** 2 + (rate / prior.learning_rate_sd) ** 2)


def _bowl(points: np.ndarray, values: np.ndarray, free: np.ndarray, prior: SearchPrior) -> np.ndarray:
    import torch
    from botorch.acquisition import LogExpectedImprovement
    from botorch.models import SingleTaskGP
    from gpytorch.kernels import RBFKernel, ScaleKernel
    from gpytorch.priors import LogNormalPrior

    unit = max(float(values.std()), 1.0)
    told, seen = torch.tensor(points), torch.tensor((values - values.mean()) / unit)[:, None]
    # What the bowl leaves over is smooth over about two octaves, and small beside the differences that were seen.
    rest = ScaleKernel(
        RBFKernel(ard_num_dims=2, lengthscale_prior=LogNormalPrior(math.log(2), 0.5)),
        outputscale_prior=LogNormalPrior(math.log(0.1), 1.0),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mean = _bowl_mean(prior, unit=unit)
        model = _fitted(SingleTaskGP(told, seen, mean_module=mean, covar_module=rest, outcome_transform=None))
        improvement = LogExpectedImprovement(model, best_f=seen.max())
        return improvement(torch.tensor(free)[:, None, :]).detach().numpy()  # type: ignore[no-any-return]


def _bowl_mean(prior: SearchPrior, *, unit: float) -> Any:
    """The bowl of `SearchPrior` as a mean: its top, centre and steepness are parameters with priors of their own."""
    import torch
    from gpytorch.means import Mean
    from gpytorch.priors import NormalPrior

    begin = {
        "rate": (math.log2(prior.learning_rate), prior.learning_rate_sd),
        "batch": (math.log2(prior.batch_size), prior.batch_size_sd),
        "log_steepness": (math.log(5), 1.5),  # short fine-tunes are 1 to 60 times as steep as the prior's bowl
        "top": (0.0, 2.0),
    }

    class Bowl(Mean):  # type: ignore[misc, no-any-unimported]
        def __init__(self) -> None:
            super().__init__()
            for name, (middle, sd) in begin.items():
                self.register_parameter(name, torch.nn.Parameter(torch.tensor(middle, dtype=torch.double)))
                self.register_prior(f"{name}_prior", NormalPrior(middle, sd), name)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            batch = x[..., 1] - self.batch
            rate = x[..., 0] - self.rate - prior.slope * batch
            depth = 0.5 * (prior.bowl.rate_curvature * rate**2 + prior.bowl.batch_curvature * batch**2)
            return self.top - torch.exp(self.log_steepness) * depth / unit

    return Bowl()


def _fitted(model: Any) -> Any:
    from botorch.fit import fit_gpytorch_mll
    from gpytorch.mlls import ExactMarginalLogLikelihood

    fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
    return model


def _cells(bill: Bill, advice: Recommendation) -> list[Place]:
    """The measured cells of the batch sizes that `tune` may try."""
    batches = judge_of(bill.task, advice, budget=bill.budget).space.batch_sizes
    return sorted(cell for cell in bill.task.full if cell.batch in batches) or sorted(bill.task.full)


def _points(places: Sequence[Place]) -> np.ndarray:
    return np.array([[place.log_rate, place.log_batch] for place in places])


def _finite(values: Sequence[float]) -> np.ndarray:
    """Values with a penalty in place of what diverged."""
    finite = [value for value in values if math.isfinite(value)]
    return np.array([value if math.isfinite(value) else PENALTY * max(finite, default=1.0) for value in values])


def installed(package: str) -> bool:
    """True when a package can be imported."""
    return importlib.util.find_spec(package) is not None
