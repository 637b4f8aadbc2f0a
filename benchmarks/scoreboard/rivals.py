"""The lines of the scoreboard: what a user would do instead of `tune`, `tune` itself, and bounds that know the answer."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from benchmarks.scoreboard import rules, samplers
from benchmarks.scoreboard.bill import Bill
from benchmarks.scoreboard.tuned import Stated, follow, judge_of, tune
from benchmarks.search.recorded import Place, Recorded
from finestep.rules.recommendation import Recommendation

BUDGETS = (1, 2, 3, 4, 6)
Advice = Recommendation
Play = Callable[[Bill, Advice, float], tuple[Place, Stated | None]]
"""From a bill, the advice and the budget to (the chosen recipe, what the rival states of it, if it states something)."""


@dataclass(frozen=True)
class Rival:
    """One line of the scoreboard, at each budget that it can be played with."""

    name: str
    play: Play
    budgets: tuple[int, ...] = BUDGETS
    """The most that it may spend, in full runs."""
    package: str | None = None
    """What must be installed for it, besides finestep."""
    is_bound: bool = False
    """It knows every result and pays nothing."""

    def at(self, budget: float) -> int | None:
        """The largest of its budgets that is no greater; None where even the smallest is."""
        return max((one for one in self.budgets if one <= budget), default=None)


def known_best(
    bill: Bill, advice: Advice, budget: float, *, batches: Callable[[Recorded, Advice], set[int]]
) -> tuple[Place, None]:
    """A bound, not a rival: who knows the mean of all seeds takes the best recipe of these batch sizes."""
    task, allowed = bill.task, batches(bill.task, advice)
    inside = [place for place in task.full if place.batch in allowed]
    return min(sorted(inside or task.full), key=task.mean), None


def best_of_tune(bill: Bill, advice: Advice, budget: float) -> tuple[Place, None]:
    """A bound, not a rival: the runs of `tune`, and who knows the mean of all seeds chooses among them."""
    own = Bill(bill.task, bill.seed, budget)
    follow(own, judge_of(bill.task, advice, budget=budget, with_baseline=True, seed=bill.seed))
    return min(sorted(own.seen), key=bill.task.mean), None


def advised_batch(task: Recorded, advice: Advice) -> set[int]:
    """The measured batch size nearest to the recommended one."""
    return {task.nearest(*rules.advised(advice)).batch}


def searched_batches(task: Recorded, advice: Advice) -> set[int]:
    """The batch sizes that `tune` may try."""
    return set(judge_of(task, advice, budget=1).space.batch_sizes)


OURS = Rival("tune", tune)
RIVALS = (
    OURS,
    Rival("tune, no baseline", partial(tune, with_baseline=False), (4, 6)),
    Rival("usual default, then its multiples, batch 16", rules.usual_grid),
    Rival("halving race about the usual default, batch 16", rules.usual_race, (2, 3, 4, 6)),
    Rival("classic sweep", rules.classic_sweep),
    Rival("recommend, then its multiples", rules.advised_grid),
    Rival("halving race about recommend", rules.advised_race, (2, 3, 4, 6)),
    Rival("four short runs, then full ones", rules.short_then_full, (2, 3)),
    Rival("Optuna TPE from recommend", samplers.optuna_tpe),
    Rival("Optuna GP from recommend", samplers.optuna_gp),
    Rival("BoTorch with the prior (piBO)", samplers.botorch_prior, package="botorch"),
    Rival("BoTorch, our bowl as its mean", samplers.botorch_bowl, package="botorch"),
)
BOUNDS = (
    Rival("bound: best of the runs of tune", best_of_tune, is_bound=True),
    Rival("bound: best rate at the recommended batch", partial(known_best, batches=advised_batch), (1,), is_bound=True),
    Rival(
        "bound: best of the batches that tune may try",
        partial(known_best, batches=searched_batches),
        (1,),
        is_bound=True,
    ),
)


def playable(rivals: Sequence[Rival] = (*RIVALS, *BOUNDS)) -> tuple[list[Rival], list[str]]:
    """(rivals whose package is installed, a line for each that is left out)."""
    here = [rival for rival in rivals if rival.package is None or samplers.installed(rival.package)]
    missing = [
        f"Left out: {rival.name}, because `{rival.package}` is not installed (`pip install 'finestep[bench]'`)."
        for rival in rivals
        if rival not in here
    ]
    return here, missing


def budget_of(rival: Rival, budget: int) -> float:
    """What a bill of this rival may reach: a bound pays nothing."""
    return math.inf if rival.is_bound else budget
