"""Ask and tell with what finestep knows: the recommendation's centre and widths, and the lengths that the data allow."""

from __future__ import annotations

from finestep.facts import DataFacts
from finestep.flows.recommend import recommend
from finestep.recipe import Method, Recipe
from finestep.rules.compose import Ask
from finestep.search.ask_tell import AskTell
from finestep.search.opening import opening_of
from finestep.search.search import Search
from finestep.search.starting_point import start_of
from finestep.search.study_space import no_prior, search_prior, search_space
from finestep.study import EXTERNAL, DataSpec, ModelSpec, StudySpec


def ask_tell(
    model: str | None = None,
    *,
    params: str | None = None,
    method: Method = "lora",
    num_rows: int,
    num_epochs: float = 1.0,
    budget_runs: float = 3.0,
    seed: int = 0,
) -> AskTell:
    """The search for a training loop of one's own.

    loop = finestep.ask_tell("Qwen/Qwen3-0.6B", num_rows=10_000)
    while proposal := loop.ask():
        loop.tell(proposal, train(proposal.learning_rate, proposal.effective_batch_size, proposal.fidelity))
    print(loop.answer().sentence)

    Args:
        model: folder or Hub name; with neither model nor `params` the search knows nothing of either.
        params: size of a model that is not at hand, e.g. "7B".
        num_rows: training rows of the data.
        num_epochs: passes over them in a full run; a proposal's `fidelity` is a share of that.
        budget_runs: what may be spent, in full runs; three, as `finestep tune` takes by default.
    """
    recipe = Recipe(method=method, num_epochs=num_epochs, seed=seed)
    start = no_prior(recipe)
    if model is not None or params is not None:
        facts = DataFacts(name=EXTERNAL, num_rows=num_rows)
        start = start_of(recommend(model, facts, params=params, ask=Ask(method=method, num_epochs=num_epochs)))
    spec = StudySpec(
        name="ask-tell", model=ModelSpec(path=model or EXTERNAL), data=DataSpec(path=EXTERNAL), recipe=recipe
    )
    space = search_space(spec, start, num_rows=num_rows)
    opening = opening_of(start, num_rows=num_rows * num_epochs, method=method)
    return AskTell(Search(space, search_prior(start), seed=seed, opening=opening), budget_runs=budget_runs)
