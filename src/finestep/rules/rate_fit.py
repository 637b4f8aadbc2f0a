"""Fitting the law of the best rate: a linear mixed model by Gaussian conditioning; it fits whatever it is given.

Every coefficient has a weak Gaussian prior. What cases share (their source, model, family and variant, and their source's own slopes in
steps and batch) are effects with a spread of their own, so that the many cells of one sweep count as one data set. The
spreads are those with the highest marginal likelihood under a log-normal prior. Whole sources are left out when the law is judged
(benchmarks/recommend).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from finestep.rules.rate_law import RateLaw
from finestep.rules.rate_setting import CALM_VARIANTS, RateSetting, features, slopes

COEFFICIENTS: dict[str, tuple[float, float]] = {
    "lora": (-3.6, 0.6),
    "full": (-4.5, 0.6),
    "encoder": (-4.5, 0.6),
    "encoder lora": (1.0, 0.4),
    "rank": (0.1, 0.1),
    "alpha": (-0.5, 0.2),
    "lora size above 1B": (-0.1, 0.15),
    "lora size below 1B": (0.0, 0.15),
    "size below 0.1B": (-0.5, 0.3),
    "full size": (-0.3, 0.2),
    "encoder size": (-0.6, 0.1),
    "lora steps": (0.0, 0.07),
    "full steps": (0.0, 0.1),
    "encoder steps": (-0.1, 0.15),
    "lora batch": (0.35, 0.07),
    "full batch": (0.3, 0.15),
    "encoder batch": (0.3, 0.15),
    "labels": (0.15, 0.1),
    "bold variant": (-0.3, 0.3),
    "constant rate": (-0.3, 0.1),
}
"""Prior mean and standard deviation of each coefficient. Where sources disagree about the sign (steps of LoRA) the prior is
narrow about zero: chosen by leaving sources out (docs/log.md). A linear decay has half of its peak on average: hence the prior of a
constant rate."""
SPREADS: dict[str, float] = {
    "source lora": 0.24,
    "source full": 0.22,
    "source encoder": 0.24,
    "family": 0.12,
    "model": 0.1,
    "set": 0.12,
    "variant": 0.4,
    "calm variant": 0.2,
    "residual": 0.08,
    "slope": 0.1,
}
"""Prior medians of the spreads, dex: near the held-out errors (sources), the sweep (families)."""
SPREAD_LOG_SD = 0.4
FIXED = {"new variant": 0.3, "new calm": 0.15}
"""How far a variant's own ratio may lie from what its kind has in common (calm: 1) before anything of it was measured, dex."""
_STEPS = (1.5, 1.2)
_ROUNDS = 6
_LEAST_GAIN = 1e-3


@dataclass(frozen=True, slots=True)
class Measurement:
    """One measured best rate, or (with `over`) its ratio to that of another setting of the same data, in log10."""

    name: str
    setting: RateSetting
    log_rate: float
    sd: float
    cluster: str
    model: str
    over: RateSetting | None = None


def fit_rate_law(cases: Sequence[Measurement], *, spreads: dict[str, float] | None = None) -> RateLaw:
    """The law that these cases imply; leave a source's cases out to judge it on them.

    Args:
        spreads: as known from elsewhere; None = estimated from these cases.
    """
    kept = spreads or estimated_spreads(cases)
    problem = _Problem.of(cases, kept)
    mean, covariance = problem.posterior()
    names = [name for name in problem.columns if isinstance(name, str)]
    at = [problem.columns[name] for name in names]
    rows = tuple(tuple(float(x) for x in covariance[i, at]) for i in at)
    return RateLaw(tuple(names), tuple(float(mean[i]) for i in at), rows, {**kept, **FIXED})


def estimated_spreads(cases: Sequence[Measurement]) -> dict[str, float]:
    """Coordinate ascent in the logarithm of each spread."""
    best = dict(SPREADS)
    value = _evidence(cases, best)
    for step in _STEPS:
        for _ in range(_ROUNDS):
            before = value
            for name in SPREADS:
                for factor in (step, 1.0 / step):
                    tried = best | {name: best[name] * factor}
                    found = _evidence(cases, tried)
                    if found > value + _LEAST_GAIN:
                        best, value = tried, found
            if value == before:
                break
    return best


def _evidence(cases: Sequence[Measurement], spreads: dict[str, float]) -> float:
    penalty = sum((math.log(spreads[n] / SPREADS[n]) / SPREAD_LOG_SD) ** 2 / 2 for n in SPREADS)
    return _Problem.of(cases, spreads).log_likelihood() - penalty


Column = str | tuple[str, ...]


@dataclass(frozen=True)
class _Problem:
    """Design [n, columns], prior of each column, targets and their noise variance. Columns that a prediction can use have a name."""

    columns: dict[Column, int]
    design: np.ndarray
    prior_mean: np.ndarray
    prior_variance: np.ndarray
    target: np.ndarray
    noise: np.ndarray

    @classmethod
    def of(cls, cases: Sequence[Measurement], spreads: dict[str, float]) -> _Problem:
        prior: dict[Column, tuple[float, float]] = {name: wanted for name, wanted in COEFFICIENTS.items()}  # noqa: C416
        every = [_row(case) for case in cases]
        for row in every:
            for column, (_, spread) in row.items():
                prior.setdefault(column, (0.0, {**spreads, **FIXED}[spread] if spread else 0.0))
        columns = {column: index for index, column in enumerate(prior)}
        design = np.zeros((len(cases), len(columns)))
        for index, row in enumerate(every):
            for column, (value, _) in row.items():
                design[index, columns[column]] = value
        mean, sd = np.array(list(prior.values())).T
        noise = np.array([spreads["residual"] ** 2 + case.sd**2 for case in cases])
        return cls(columns, design, mean, sd**2, np.array([case.log_rate for case in cases]), noise)

    def _root(self) -> np.ndarray:
        covariance = (self.design * self.prior_variance) @ self.design.T + np.diag(self.noise)
        return np.linalg.cholesky(covariance)

    def log_likelihood(self) -> float:
        root = self._root()
        white = np.linalg.solve(root, self.target - self.design @ self.prior_mean)
        return float(-0.5 * white @ white - np.log(np.diag(root)).sum())

    def posterior(self) -> tuple[np.ndarray, np.ndarray]:
        root = self._root()
        white = np.linalg.solve(root, self.target - self.design @ self.prior_mean)
        gain = np.linalg.solve(root, self.design * self.prior_variance)
        return self.prior_mean + gain.T @ white, np.diag(self.prior_variance) - gain.T @ gain


def _row(case: Measurement) -> dict[Column, tuple[float, str]]:
    """Column -> (value, name of its spread, empty for coefficients)."""
    out: dict[Column, tuple[float, str]] = {name: (value, "") for name, value in features(case.setting).items()}
    if case.over is not None:
        for name, value in features(case.over).items():
            out[name] = (out.get(name, (0.0, ""))[0] - value, "")
        return out
    s, where = case.setting, case.cluster
    steps, batch = slopes(s)
    out["source", s.group, where] = (1.0, f"source {s.kind}")
    out["set", where, case.model, s.group] = (1.0, "set")
    out["model", case.model] = (1.0, "model")
    out["steps", where] = (steps, "slope")
    out["batch", where] = (batch, "slope")
    if s.kind != "encoder" and s.family:
        out[f"family {s.family}"] = (1.0, "family")
    if s.variant != "lora":
        calm = s.variant in CALM_VARIANTS
        out[f"variant {s.variant}"] = (1.0, "new calm" if calm else "new variant")
        out["variant", s.variant, where, case.model] = (1.0, "calm variant" if calm else "variant")
    return out
