"""What a user does without a model of the loss: grids, short runs, races and the classic sweep. Each stays within its bill."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.scoreboard.bill import Bill
from benchmarks.scoreboard.tuned import trial_of
from benchmarks.search.recorded import Place
from finestep.rules.recommendation import Recommendation
from finestep.search.sweep import BASELINE_RATES, Sweep
from finestep.trial import Trial

USUAL_BATCH = 16
EIGHTH, THIRD = 0.125, 1 / 3
ABOUT = {1: (1.0,), 2: (1.0, 2.0), 3: (0.5, 1.0, 2.0), 4: (0.5, 1.0, 2.0, 4.0), 6: (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)}
UPWARD = {
    1: (1.0,),
    2: (1.0, 2.0),
    3: (1.0, 2.0, 4.0),
    4: (1.0, 2.0, 4.0, 8.0),
    6: (0.5, 1.0, 2.0, 4.0, 8.0, 16.0),
}
"""Budget -> multiples of a rate that a grid tries: about a rate that fits, and mostly above the usual default, which lies low."""
RACES = {
    2: ((4, EIGHTH), (1, 1.0)),
    3: ((8, EIGHTH), (3, THIRD), (1, 1.0)),
    4: ((8, EIGHTH), (3, THIRD), (2, 1.0)),
    6: ((16, EIGHTH), (6, THIRD), (2, 1.0)),
}
"""Budget -> rounds of a halving race: (recipes that run, their length)."""
SHORT_FACTORS = (0.5, 1.0, 2.0, 4.0)
Chosen = tuple[Place, None]


def advised(advice: Recommendation) -> tuple[float, float]:
    """The rate and the batch size that `recommend` prints."""
    return advice.estimates["learning_rate"].value, advice.estimates["effective_batch_size"].value


def usual(bill: Bill) -> tuple[float, float]:
    """The usual rate of the method, at batch 16."""
    return BASELINE_RATES[bill.task.card["method"]], USUAL_BATCH


def usual_grid(bill: Bill, advice: Recommendation, budget: float) -> Chosen:
    """Full runs at multiples of the usual rate, at batch 16."""
    return _grid(bill, usual(bill), UPWARD[int(budget)])


def advised_grid(bill: Bill, advice: Recommendation, budget: float) -> Chosen:
    """Full runs at multiples of the recommended rate, at the recommended batch size."""
    return _grid(bill, advised(advice), ABOUT[int(budget)])


def usual_race(bill: Bill, advice: Recommendation, budget: float) -> Chosen:
    """A halving race whose rates begin half as high as the usual default."""
    return _race(bill, usual(bill), RACES[int(budget)], lowest=0.5)


def advised_race(bill: Bill, advice: Recommendation, budget: float) -> Chosen:
    """A halving race about the recommendation."""
    return _race(bill, advised(advice), RACES[int(budget)], lowest=0.125 if budget > 2 else 0.5)


def short_then_full(bill: Bill, advice: Recommendation, budget: float) -> Chosen:
    """Four short runs about the recommended rate; then a full run an octave below the winner and, with three runs, at the winner."""
    rate, batch = advised(advice)
    length = bill.task.nearest_length(EIGHTH)
    tried = {rate * factor: bill.run(rate * factor, batch, length=length)[1] for factor in SHORT_FACTORS}
    winner = min(tried, key=lambda one: tried[one])
    wishes = [(winner / 2, batch)] if budget < 2.5 else [(winner, batch), (winner / 2, batch)]
    return bill.full_runs(wishes), None


def classic_sweep(bill: Bill, advice: Recommendation, budget: float) -> Chosen:
    """The textbook's sweep: the usual default, a scan of rates, a batch test, a refinement."""
    sweep, trials = Sweep(bill.task.card["method"]), list[Trial]()
    while bill.affords() and (proposals := sweep.propose(trials, remaining_runs=bill.budget - bill.spent)):
        wish = proposals[0]
        place, _ = bill.run(wish.learning_rate, wish.effective_batch_size)
        trial = trial_of(bill.task, place, 1.0, seed=bill.seed, number=len(trials), wish=wish)
        # The sweep knows its runs by what it asked for, not by the nearest cell that was measured.
        asked = trial.recipe.changed(learning_rate=wish.learning_rate, effective_batch_size=wish.effective_batch_size)
        trials.append(trial.model_copy(update={"recipe": asked}))
    return bill.best(), None


def _grid(bill: Bill, centre: tuple[float, float], factors: Sequence[float]) -> Chosen:
    rate, batch = centre
    return bill.full_runs((rate * factor, batch) for factor in factors), None


def _race(bill: Bill, centre: tuple[float, float], rounds: Sequence[tuple[int, float]], *, lowest: float) -> Chosen:
    """Each round runs the best of the round before at a greater length; the full runs at the end are paid for beforehand."""
    field = _entrants(centre, rounds[0][0], lowest=lowest)
    for count, length in rounds[:-1]:
        shown = bill.task.nearest_length(length)
        values: dict[tuple[float, float], float] = {}
        for wish in field[:count]:
            if bill.affords(shown, keep=rounds[-1][0]):
                values[wish] = bill.run(*wish, length=shown)[1]
        field = sorted(values, key=lambda wish: values[wish])
    return bill.full_runs(field[: rounds[-1][0]]), None


def _entrants(centre: tuple[float, float], count: int, *, lowest: float) -> list[tuple[float, float]]:
    """Octaves of rates from the lowest factor upward; more than eight recipes are two batch sizes."""
    rate, batch = centre
    other = batch / 2 if batch >= 2 else 2 * batch
    batches = (batch,) if count <= 8 else (batch, other)
    return [(rate * lowest * 2.0**step, one) for one in batches for step in range(count // len(batches))]
