"""AskTell: the search for people with their own loop; it holds the trials in memory and nothing else.

loop = AskTell(Search(SearchSpace.between((1e-5, 1e-3), (8, 64)), prior), budget_runs=4)
while proposal := loop.ask():
    loop.tell(proposal, train(proposal.learning_rate, proposal.effective_batch_size, proposal.fidelity))
print(loop.answer().sentence)
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from finestep.answer import Answer
from finestep.errors import BadInput
from finestep.recipe import Recipe
from finestep.search.observations import field_of
from finestep.search.search import Search
from finestep.search.strategy import Proposal
from finestep.trial import Outcome, Trial, TrialState


class AskTell:
    """One study in memory; `ask` again before `tell` for several workers.

    Args:
        search: who proposes; `finestep.ask_tell` makes one from a model and its data.
        budget_runs: what may be spent, in full runs; a shorter run costs its fidelity, and twice the epochs twice as much.
    """

    def __init__(self, search: Search, *, budget_runs: float):
        self.search, self.budget_runs = search, budget_runs
        self.trials: list[Trial] = []
        self._asked: list[tuple[Proposal, int]] = []

    def ask(self) -> Proposal | None:
        """The next trial; None when the search is done (or waits for running trials)."""
        spent = sum(self._cost(trial) for trial in self.trials)
        found = self.search.propose(self.trials, remaining_runs=self.budget_runs - spent)
        if not found:
            return None
        number = len(self.trials)
        self.trials.append(
            Trial(
                number=number,
                recipe=recipe_of(found[0]),
                fidelity=found[0].fidelity,
                why=found[0].why,
                is_baseline=found[0].is_baseline,
            )
        )
        self._asked.append((found[0], number))
        return found[0]

    def tell(self, proposal: Proposal, value: float | None) -> None:
        """The result of a trial: its loss (or metric); None or NaN: it diverged."""
        match = next((pair for pair in self._asked if pair[0] is proposal), None)
        if match is None:
            raise BadInput("`tell` takes a proposal that `ask` gave and that was not told yet", value=proposal)
        self._asked.remove(match)
        self.trials[match[1]] = ended(self.trials[match[1]], value, metric=self.search.metric)

    def _cost(self, trial: Trial) -> float:
        space = self.search.space
        return trial.fidelity * space.full_run_cost([field_of(trial, d.name) for d in space.extras])

    def answer(self) -> Answer:
        """What the search believes now."""
        return self.search.answer(self.trials)


def recipe_of(proposal: Proposal) -> Recipe:
    """The recipe of a proposal: its pair and its further fields, over the defaults."""
    return Recipe().with_fields(proposal.fields, place="search space")


def ended(trial: Trial, value: float | None, *, metric: str | None = None, state: TrialState = "completed") -> Trial:
    """The trial with its result; without a finite one it diverged."""
    finite = value is not None and math.isfinite(value)
    end: TrialState = state if finite else "diverged"
    metrics: Mapping[str, float] = {metric: float(value)} if finite and metric and value is not None else {}
    outcome = Outcome(state=end, eval_loss=value if finite else None, metrics=dict(metrics))
    return trial.model_copy(update={"state": end, "outcome": outcome})
