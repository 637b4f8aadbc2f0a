"""A strategy that asks one of Optuna's own samplers, by name; the sampler sees the study's trials and keeps no state of ours."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from finestep.errors import BadInput, MissingDependency, did_you_mean
from finestep.search.forgetting import over_limit
from finestep.search.observations import Objective, field_of
from finestep.search.space import SearchSpace
from finestep.search.strategy import Proposal
from finestep.trial import Trial

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial


EXTRA_PACKAGES = {"CmaEsSampler": "cmaes", "GPSampler": "torch"}
RATE, BATCH = "learning_rate", "effective_batch_size"


def sampler_names() -> list[str]:
    """Names that `--strategy` takes: `tpe`, `gp`, `cmaes` and so on, of samplers that need no further arguments."""
    return sorted(_short(name) for name in _classes())


@dataclass(frozen=True)
class OptunaSearch:
    """Full-length runs where an Optuna sampler wants them.

    Args:
        sampler: short name (`tpe`) or class name (`TPESampler`).
    """

    sampler: str
    space: SearchSpace
    objective: Objective
    seed: int = 0

    def __post_init__(self) -> None:
        check_sampler(self.sampler)

    def propose(self, trials: Sequence[Trial], *, remaining_runs: float, max_proposals: int = 1) -> list[Proposal]:
        """The next points, while a full run can be paid; the sampler's chance comes from the seed and the number of trials."""
        count = min(max_proposals, int(remaining_runs + 1e-9))
        if count < 1:
            return []
        study = self._study(trials)
        return [self._ask(study) for _ in range(count)]

    def _study(self, trials: Sequence[Trial]) -> Study:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        made = _make(self.sampler, self.seed + 1009 * len(trials))
        study = optuna.create_study(sampler=made, direction=self.objective.goal)
        distributions, last = self._distributions(), self._behind_all(trials)
        for trial in trials:
            study.add_trial(self._frozen(trial, distributions, last))
        return study

    def _behind_all(self, trials: Sequence[Trial]) -> Callable[[float], float]:
        """From KL at the end to a value behind every trial that may be chosen, the further behind the more was forgotten."""
        values = [value for trial in trials if (value := self.objective.value(trial)) is not None] or [0.0]
        sign = 1.0 if self.objective.goal == "minimize" else -1.0
        worst = max(sign * value for value in values)
        unit = max(worst - min(sign * value for value in values), 0.01 * abs(worst), 1e-3)
        nearest = min(
            (trial.outcome.forgetting.kl_at_end or 0.0 for trial in over_limit(trials) if trial.outcome), default=0.0
        )
        return lambda kl: sign * (worst + unit * (1 + math.log(max(kl, 1e-9) / max(nearest, 1e-9))))

    def _ask(self, study: Study) -> Proposal:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            asked = study.ask(self._distributions()).params
        return Proposal(
            learning_rate=float(f"{asked[RATE]:.3g}"),
            effective_batch_size=int(asked[BATCH]),
            stage=_short(_class_of(self.sampler)),
            why=f"Optuna's {_class_of(self.sampler)} wants it",
            changes={d.name: asked[d.name] for d in self.space.extras},
        )

    def _distributions(self) -> dict[str, BaseDistribution]:
        from optuna.distributions import CategoricalDistribution, FloatDistribution

        rates = self.space.learning_rates
        table: dict[str, BaseDistribution] = {
            RATE: FloatDistribution(rates[0], rates[-1], log=True),
            BATCH: CategoricalDistribution(self.space.batch_sizes),
        }
        return table | {d.name: CategoricalDistribution(d.values) for d in self.space.extras}  # type: ignore[arg-type]

    def _frozen(
        self, trial: Trial, distributions: dict[str, BaseDistribution], behind_all: Callable[[float], float]
    ) -> FrozenTrial:
        """A trial as Optuna sees it; a value outside the space is left out, a failed trial has none, and one that forgot too much
        is behind all others."""
        import optuna

        params = {RATE: trial.recipe.learning_rate, BATCH: trial.recipe.effective_batch_size}
        params |= {d.name: field_of(trial, d.name) for d in self.space.extras}  # type: ignore[misc]
        inside = {name: value for name, value in params.items() if _holds(distributions[name], value)}
        value = self.objective.value(trial)
        if (
            trial.outcome is not None
            and trial.outcome.forgets_too_much
            and trial.outcome.forgetting.kl_at_end is not None
        ):
            value = behind_all(trial.outcome.forgetting.kl_at_end)
        states = optuna.trial.TrialState
        state = states.RUNNING if trial.state == "running" else states.FAIL if value is None else states.COMPLETE
        return optuna.trial.create_trial(
            state=state,
            value=value if state == states.COMPLETE else None,
            params=inside,
            distributions={name: distributions[name] for name in inside},
        )


def _holds(distribution: BaseDistribution, value: object) -> bool:
    """True when the distribution could have given the value."""
    try:
        return bool(distribution._contains(distribution.to_internal_repr(value)))
    except (TypeError, ValueError):
        return False


def check_sampler(name: str) -> None:
    """Raise for a sampler that does not exist, needs arguments, or needs a package that is not there."""
    import importlib.util

    found = _class_of(name)
    package = EXTRA_PACKAGES.get(found)
    if package is not None and importlib.util.find_spec(package) is None:
        raise MissingDependency(package, needed_for=f"Optuna's {found}", extra="train")


def is_sampler(name: str) -> bool:
    """True when Optuna has a sampler of this name that needs no further arguments."""
    return any(name.lower() in (found.lower(), _short(found)) for found in _classes())


def _class_of(name: str) -> str:
    for found in _classes():
        if name.lower() in (found.lower(), _short(found)):
            return found
    known = sampler_names()
    raise BadInput(f"unknown strategy{did_you_mean(name, known)}", value=name, next_step="known: " + ", ".join(known))


def _classes() -> list[str]:
    import optuna

    return [
        name
        for name in optuna.samplers.__all__
        if name.endswith("Sampler") and name != "BaseSampler" and _needs_nothing(getattr(optuna.samplers, name))
    ]


def _needs_nothing(kind: type) -> bool:
    parameters = list(inspect.signature(kind).parameters.values())
    return all(p.default is not p.empty or p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters)


def _short(name: str) -> str:
    return name.removesuffix("Sampler").lower()


def _make(name: str, seed: int) -> BaseSampler:
    import optuna

    kind = getattr(optuna.samplers, _class_of(name))
    # Trials that run count as bad ones for a sampler that can pretend so: many workers are not sent to the same place.
    wanted = {"seed": seed % 2**31, "constant_liar": True}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made: BaseSampler = kind(
            **{name: wanted[name] for name in wanted if name in inspect.signature(kind).parameters}
        )
    return made
