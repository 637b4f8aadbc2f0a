"""Traits: what each strategy of a study does and takes, in one table; who proposes trials is in `studies/strategies.py`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Traits:
    """What a strategy does and takes.

    Attributes:
        searches: it compares trials; False for the one run of `train`.
        takes_prior: it begins where `recommend` points; False: it has rates of its own.
        believes: the model of the search judges its trials, and the answer says how sure it is; False: the lowest loss wins.
        tunes_fields: it can search fields besides the rate and the batch size, and another objective than the loss.
        adapts: it learns from each trial, so that fewer are asked for together.
        adds_baseline: it runs the usual default by itself when asked to.
        default_budget_runs: full runs that it may spend when the user says nothing.
    """

    searches: bool = True
    takes_prior: bool = True
    believes: bool = True
    tunes_fields: bool = True
    adapts: bool = False
    adds_baseline: bool = False
    default_budget_runs: float = 16.0


NAMED = {
    "auto": Traits(adapts=True, adds_baseline=True, default_budget_runs=3.0),
    "sweep": Traits(takes_prior=False, believes=False, tunes_fields=False),
    "random": Traits(),
    "single": Traits(searches=False, believes=False, tunes_fields=False, default_budget_runs=1.0),
}
"""`auto` is within a few per cent of the best after three (docs/figures/search.md); the others take what a sweep needs."""
OFFERED = tuple(name for name, traits in NAMED.items() if traits.searches)
"""Named strategies that `tune` offers; `single` is `train`."""
OPTUNA_SAMPLER = Traits()


def traits_of(strategy: str) -> Traits:
    """The traits of a strategy by its name; any other name is an Optuna sampler's.

    >>> traits_of("sweep").takes_prior, traits_of("tpe").default_budget_runs
    (False, 16.0)
    """
    return NAMED.get(strategy, OPTUNA_SAMPLER)
