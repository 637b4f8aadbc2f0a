"""Strategies by name: from what a user asks for, and the size of the data, to who proposes trials and who judges them."""

from __future__ import annotations

import math
from collections.abc import Callable

from finestep.errors import BadInput, did_you_mean
from finestep.ready import DataCard
from finestep.recipe import Recipe
from finestep.search.opening import DECIDES_ALL, opening_of
from finestep.search.random_search import RandomSearch
from finestep.search.search import Search
from finestep.search.single import Single
from finestep.search.space import SearchSpace
from finestep.search.strategy import Strategy
from finestep.search.study_space import no_prior, objective_of, search_prior, search_space
from finestep.search.sweep import Sweep, own_rates, sweep_batches
from finestep.search.traits import NAMED, OFFERED
from finestep.store.optuna_sampler import OptunaSearch, check_sampler, is_sampler, sampler_names
from finestep.studies.with_space import within_framework
from finestep.study import Budget, CommandSpec, Goal, StudySpec
from finestep.trainers.command_fields import BATCH_FIELDS, LENGTH_FIELDS, fields_of

ASSUMED_ROWS = 10_000
MAXIMISED = ("accuracy", "macro_f1", "exact_match")
MINIMISED = ("eval_loss", "perplexity")


def check_strategy(name: str) -> None:
    """Raise BadInput for a strategy that does not exist."""
    if name in NAMED:
        return
    if not is_sampler(name):
        known = (*OFFERED, *(sampler for sampler in sampler_names() if sampler not in OFFERED))
        raise BadInput(
            f"unknown strategy{did_you_mean(name, known)}", value=name, next_step="known: " + ", ".join(known)
        )
    check_sampler(name)


def objective_and_goal(text: str | None) -> tuple[str, Goal]:
    """`accuracy`, `min:error_rate` or `max:bleu` as a name and a direction.

    >>> objective_and_goal(None), objective_and_goal("macro_f1"), objective_and_goal("min:wer")
    (('eval_loss', 'minimize'), ('macro_f1', 'maximize'), ('wer', 'minimize'))
    """
    if not text:
        return "eval_loss", "minimize"
    head, colon, tail = text.partition(":")
    if colon and head in ("min", "max"):
        return tail, "minimize" if head == "min" else "maximize"
    if text in MINIMISED:
        return text, "minimize"
    if text in MAXIMISED:
        return text, "maximize"
    hint = did_you_mean(text, (*MAXIMISED, *MINIMISED))
    raise BadInput(
        f"the direction of this objective is not known{hint}", value=text, next_step="say min:NAME or max:NAME"
    )


def make_strategy(spec: StudySpec, card: DataCard, *, budget: Budget | None = None) -> Strategy:
    """Who proposes the trials of a study, once the size of its data is known."""
    make = MAKERS.get(spec.search.strategy, _optuna)
    return make(spec, card, budget)


def _single(spec: StudySpec, card: DataCard, budget: Budget | None) -> Strategy:
    return Single(spec.recipe)


def _sweep(spec: StudySpec, card: DataCard, budget: Budget | None) -> Strategy:
    batch = spec.recipe.effective_batch_size
    batches = sweep_batches(card.facts.num_rows or 0, spec.recipe.num_epochs, baseline=batch)
    rates = own_rates(spec.search.start.learning_rate) if spec.search.start is not None else ()
    return Sweep(spec.recipe.method, batch=batch, batches=batches, scaling=spec.search.scaling, rates=rates)


def _random(spec: StudySpec, card: DataCard, budget: Budget | None) -> Strategy:
    return RandomSearch(make_judge(spec, card, budget=budget).space, seed=spec.recipe.seed)


def _optuna(spec: StudySpec, card: DataCard, budget: Budget | None) -> Strategy:
    space = make_judge(spec, card, budget=budget).space
    return OptunaSearch(spec.search.strategy, space, objective_of(spec, ()), seed=spec.recipe.seed)


def make_judge(spec: StudySpec, card: DataCard, budget: Budget | None = None) -> Search:
    """The structured view of a study: it proposes for `auto`, and says what any study has found out."""
    num_rows, num_eval_rows = card.facts.num_rows or 0, card.facts.num_eval_rows or 0
    start, rows = spec.search.start or no_prior(spec.recipe), num_rows * spec.recipe.num_epochs
    space = search_space(spec, start, num_rows=num_rows or ASSUMED_ROWS)
    return Search.of_study(
        spec,
        _within_trainer(space, spec, card),
        search_prior(start),
        num_eval_rows=num_eval_rows,
        budget_runs=budget.full_runs if budget else math.inf,
        opening=opening_of(start, num_rows=rows, method=spec.recipe.method, num_further_fields=len(space.extras))
        if num_rows
        else DECIDES_ALL,
    )


def _within_trainer(space: SearchSpace, spec: StudySpec, card: DataCard) -> SearchSpace:
    """What the trainer of a study can be told."""
    if spec.trainer is not None:
        return _within_command(space, spec.trainer, spec.recipe)
    if spec.framework is not None:
        return within_framework(space, spec.framework, spec.recipe, fixed_share=card.fixed_share)
    return space


def _within_command(space: SearchSpace, trainer: CommandSpec, recipe: Recipe) -> SearchSpace:
    """What the command can be told: without a length only full runs, without a batch size only its own."""
    names = fields_of(trainer.command)
    changes: dict[str, object] = {}
    if not names & LENGTH_FIELDS:
        changes["fidelities"] = (1.0,)
    if not names & BATCH_FIELDS:
        changes["batch_sizes"] = (recipe.effective_batch_size,)
    return space.model_copy(update=changes)


MAKERS: dict[str, Callable[[StudySpec, DataCard, Budget | None], Strategy]] = {
    "auto": make_judge,
    "sweep": _sweep,
    "random": _random,
    "single": _single,
}
"""By the name of the strategy; `search/traits.py` says what each one does and takes."""
