"""Strategies by name: from what a user asks for, and the size of the data, to who proposes trials and who judges them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from finestep.errors import BadInput, did_you_mean
from finestep.flows.with_space import within_framework
from finestep.recipe import Recipe
from finestep.search.automatic import Automatic
from finestep.search.random_search import RandomSearch
from finestep.search.single import Single
from finestep.search.space import SearchSpace
from finestep.search.strategy import Strategy
from finestep.search.study_space import no_prior, objective_of, search_prior, search_space
from finestep.search.sweep import Sweep, own_rates, sweep_batches
from finestep.store.optuna_sampler import OptunaSearch, check_sampler, is_sampler, sampler_names
from finestep.study import Budget, CommandSpec, StudySpec
from finestep.trainers.command_fields import BATCH_FIELDS, LENGTH_FIELDS, fields_of

ASSUMED_ROWS = 10_000
STRATEGIES = ("auto", "sweep", "random")
DEFAULT_BUDGET_RUNS = {"auto": 6.0, "single": 1.0}
"""`auto` stops by itself before, in most cases; the others take what a sweep needs."""
SWEEP_RUNS = 16.0
MAXIMISED = ("accuracy", "macro_f1", "exact_match")
MINIMISED = ("eval_loss", "perplexity")


def check_strategy(name: str) -> None:
    """Raise BadInput for a strategy that does not exist."""
    if name in STRATEGIES or name == "single":
        return
    if not is_sampler(name):
        known = (*STRATEGIES, *(sampler for sampler in sampler_names() if sampler not in STRATEGIES))
        raise BadInput(
            f"unknown strategy{did_you_mean(name, known)}", value=name, next_step="known: " + ", ".join(known)
        )
    check_sampler(name)


def default_budget_runs(strategy: str) -> float:
    """Most full runs that a strategy may use when the user says nothing."""
    return DEFAULT_BUDGET_RUNS.get(strategy, SWEEP_RUNS)


def objective_and_goal(text: str | None) -> tuple[str, str]:
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


def make_strategy(spec: StudySpec, card: Mapping[str, Any], *, budget: Budget | None = None) -> Strategy:
    """The strategy of a study, once the size of its data is known."""
    if spec.strategy == "single":
        return Single(spec.recipe)
    facts = card.get("facts", {})
    num_rows = int(facts.get("num_rows") or 0)
    if spec.strategy == "sweep":
        batch = spec.recipe.effective_batch_size
        batches = sweep_batches(num_rows, spec.recipe.num_epochs, baseline=batch)
        rates = own_rates(spec.start.learning_rate) if spec.start is not None else ()
        return Sweep(spec.recipe.method, batch=batch, batches=batches, scaling=spec.scaling, rates=rates)
    judge = make_judge(spec, card, budget=budget)
    if spec.strategy == "random":
        return RandomSearch(judge.space, seed=spec.recipe.seed)
    if spec.strategy != "auto":
        return OptunaSearch(spec.strategy, judge.space, objective_of(spec, ()), seed=spec.recipe.seed)
    return judge


def make_judge(spec: StudySpec, card: Mapping[str, Any], *, budget: Budget | None = None) -> Automatic:
    """The structured view of a study: it proposes for `auto`, and says what any study has found out."""
    facts = card.get("facts", {})
    num_rows, num_eval_rows = int(facts.get("num_rows") or 0), int(facts.get("num_eval_rows") or 0)
    start = spec.start or no_prior(spec.recipe)
    space = search_space(spec, start, num_rows=num_rows or ASSUMED_ROWS)
    return Automatic(
        spec,
        _within_trainer(space, spec, card),
        search_prior(start),
        num_eval_rows=num_eval_rows,
        budget_runs=budget.full_runs if budget else math.inf,
    )


def _within_trainer(space: SearchSpace, spec: StudySpec, card: Mapping[str, Any]) -> SearchSpace:
    """What the trainer of a study can be told."""
    if spec.trainer is not None:
        return _within_command(space, spec.trainer, spec.recipe)
    if spec.framework is not None:
        return within_framework(space, spec.framework, spec.recipe, fixed_share=card.get("fixed_share", 0.0))
    return space


def _within_command(space: SearchSpace, trainer: CommandSpec, recipe: Recipe) -> SearchSpace:
    """What the command can be told: without a length only full runs, without a batch size only its own."""
    names = fields_of(trainer.command)
    changes: dict[str, Any] = {}
    if not names & LENGTH_FIELDS:
        changes["fidelities"] = (1.0,)
    if not names & BATCH_FIELDS:
        changes["batch_sizes"] = (recipe.effective_batch_size,)
    return space.model_copy(update=changes)
