"""FinestepSampler and HopelessPruner: the search inside an Optuna study that somebody else runs.

    space = SearchSpace.between((1e-5, 1e-3), (8, 64), fidelities=(1.0,))
    study = optuna.create_study(sampler=FinestepSampler(space), pruner=HopelessPruner())

    def objective(trial):
        learning_rate = trial.suggest_float("learning_rate", 1e-5, 1e-3, log=True)
        batch_size = trial.suggest_categorical("batch_size", [8, 16, 32, 64])

The sampler keeps no state: each proposal is recomputed from the study's trials, so resuming and many workers are free.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from finestep.errors import BadInput
from finestep.search.ask_tell import ended, recipe_of
from finestep.search.hopeless import MARGIN, is_hopeless
from finestep.search.observations import Objective
from finestep.search.prior import SearchPrior
from finestep.search.search import Search, of_the_loss
from finestep.search.space import SearchSpace
from finestep.search.strategy import Proposal
from finestep.trial import Trial

PROPOSAL = "finestep:proposal"
"""System attribute that holds the proposal of a trial."""
DEFAULT_NAMES = {"learning_rate": "learning_rate", "effective_batch_size": "batch_size", "fidelity": "fidelity"}

LIKELY_NAMES = {
    **dict.fromkeys(("lr", "learning_rate", "learningrate", "rate", "step_size", "eta", "peak_lr", "max_lr", "base_lr"), "learning_rate"),
    **dict.fromkeys(
        ("batch", "bs", "batch_size", "batchsize", "effective_batch_size", "train_batch_size", "per_device_train_batch_size",
         "global_batch_size", "micro_batch_size"),
        "effective_batch_size",
    ),
}  # fmt: skip
"""Other names for what the search looks for; sampled at random under such a name, it would learn nothing."""


class FinestepSampler(BaseSampler):
    """Optuna sampler for a learning rate and a batch size (and a fidelity, when the space has several).

    Args:
        space: what may be proposed; a further field is suggested under its dotted name.
        prior: where the optimum is believed to be; None = the middle of the space.
        names: which Optuna parameter plays `learning_rate`, `effective_batch_size`, `fidelity`.
        seed: of the search and of parameters that it does not know, which are sampled at random.
        ceiling: best conceivable value of a study that maximises.
    """

    def __init__(
        self,
        space: SearchSpace,
        prior: SearchPrior | None = None,
        *,
        names: Mapping[str, str] = DEFAULT_NAMES,
        seed: int = 0,
        ceiling: float = 1.0,
    ):
        self.space, self.names, self.seed, self.ceiling = space, {**DEFAULT_NAMES, **names}, seed, ceiling
        self.prior = prior or middle_of(space)
        self._others = RandomSampler(seed=seed)

    def reseed_rng(self) -> None:
        """Only parameters that the search does not know are random."""
        self._others.reseed_rng()

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Empty: each parameter is asked for by name, so that no trial has to come first."""
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, object]:
        return {}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> object:
        """The proposal's value for a parameter, moved to the nearest that the distribution allows."""
        if param_name not in self.names.values() and (meant := LIKELY_NAMES.get(param_name.lower().replace("-", "_"))):
            raise BadInput(
                f"the search calls this `{self.names[meant]}`",
                value=param_name,
                next_step=f"say so: FinestepSampler(..., names={{{meant!r}: {param_name!r}}})",
            )
        values = self._values(self._proposal(study, trial))
        if param_name not in values:
            return self._others.sample_independent(study, trial, param_name, param_distribution)
        return _allowed(values[param_name], param_distribution, param_name)

    def _proposal(self, study: Study, trial: FrozenTrial) -> Proposal | None:
        stored = study._storage.get_trial_system_attrs(trial._trial_id).get(PROPOSAL)
        if stored is not None:
            return Proposal.model_validate_json(stored) if stored else None
        others = [t for t in study.get_trials(deepcopy=False) if t.number != trial.number]
        search = Search(self.space, self.prior, self._objective(study), self.seed, stop_below=0.0)
        trials = [found for found in (self._trial(t) for t in others) if found is not None]
        proposals = search.propose(trials, remaining_runs=math.inf)
        text = proposals[0].model_dump_json() if proposals else ""
        study._storage.set_trial_system_attr(trial._trial_id, PROPOSAL, text)
        return proposals[0] if proposals else None

    def _objective(self, study: Study) -> Callable[[Sequence[Trial]], Objective]:
        if study.direction == StudyDirection.MAXIMIZE:
            return lambda _: Objective(metric="value", goal="maximize", ceiling=self.ceiling)
        return of_the_loss

    def _values(self, proposal: Proposal | None) -> dict[str, object]:
        if proposal is None:
            return {}
        pair = {
            self.names["learning_rate"]: proposal.learning_rate,
            self.names["effective_batch_size"]: proposal.effective_batch_size,
        }
        if len(self.space.fidelities) > 1:
            pair[self.names["fidelity"]] = proposal.fidelity
        return {**proposal.changes, **pair}

    def _trial(self, frozen: FrozenTrial) -> Trial | None:
        """An Optuna trial as one of ours; None when it has no learning rate or batch size yet."""
        stored = frozen.system_attrs.get(PROPOSAL)
        asked = self._values(Proposal.model_validate_json(stored)) if stored else {}
        values = {**asked, **frozen.params}
        rate, batch = (values.get(self.names[key]) for key in ("learning_rate", "effective_batch_size"))
        if rate is None or batch is None:
            return None
        fidelity = float(values.get(self.names["fidelity"], 1.0))
        changes = {d.name: values[d.name] for d in self.space.extras if d.name in values}
        proposal = Proposal(
            learning_rate=float(rate),
            effective_batch_size=int(batch),
            fidelity=fidelity,
            stage="optuna",
            changes=changes,
        )
        trial = Trial(number=frozen.number, recipe=recipe_of(proposal), fidelity=fidelity)
        return trial if not frozen.state.is_finished() else ended(trial, _value(frozen), metric="value")


def middle_of(space: SearchSpace) -> SearchPrior:
    """A prior that knows nothing but the space: its middle, and a third of its width as spread."""
    rates, batches = space.learning_rates, space.batch_sizes
    return SearchPrior(
        learning_rate=math.sqrt(rates[0] * rates[-1]),
        learning_rate_sd=max(0.5, math.log2(rates[-1] / rates[0]) / 3),
        batch_size=math.sqrt(batches[0] * batches[-1]),
        batch_size_sd=max(0.5, math.log2(batches[-1] / batches[0]) / 3),
    )


def _value(frozen: FrozenTrial) -> float | None:
    """The value that teaches: of a pruned trial its last report; of a failed trial none."""
    if frozen.state == TrialState.COMPLETE:
        return frozen.value
    if frozen.state == TrialState.PRUNED and frozen.intermediate_values:
        return frozen.intermediate_values[max(frozen.intermediate_values)]
    return None


def _allowed(value: object, distribution: BaseDistribution, name: str) -> object:
    if isinstance(distribution, CategoricalDistribution):
        if value in distribution.choices:
            return value
        numbers = [choice for choice in distribution.choices if isinstance(choice, int | float)]
        if not numbers or not isinstance(value, int | float):
            raise BadInput("a choice must hold the values of the search space", value=distribution.choices, place=name)
        return min(numbers, key=lambda choice: abs(choice - value))
    number = float(value) if isinstance(value, int | float) else math.nan
    if isinstance(distribution, IntDistribution):
        low, step = distribution.low, distribution.step
        return int(low + round((min(max(number, low), distribution.high) - low) / step) * step)
    if isinstance(distribution, FloatDistribution):
        return min(max(number, distribution.low), distribution.high)
    return value


class HopelessPruner(BasePruner):
    """Prunes a trial only when it is not finite or far beyond the best that others had by the same step.

    It never races good trials on truncated curves: their order early on says little about the end.
    """

    def __init__(self, *, margin: float = MARGIN, ceiling: float = 1.0):
        self.margin, self.ceiling = margin, ceiling

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        step = trial.last_step
        if step is None:
            return False
        earlier = [
            self._loss(study, value)
            for other in study.get_trials(deepcopy=False)
            if other.number != trial.number
            for when, value in other.intermediate_values.items()
            if when <= step
        ]
        return is_hopeless(self._loss(study, trial.intermediate_values[step]), earlier, margin=self.margin)

    def _loss(self, study: Study, value: float) -> float:
        return self.ceiling - value if study.direction == StudyDirection.MAXIMIZE else value
