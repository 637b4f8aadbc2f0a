"""Random search: even over the space, the same for the same seed, whole runs only."""

import numpy as np

from finestep.search.random_search import RandomSearch
from finestep.search.space import Dimension, SearchSpace
from finestep.trial import Trial

SPACE = SearchSpace.between(
    (1e-5, 1e-2), (8, 64), extras=(Dimension(name="schedule.name", values=("linear", "cosine"), scale="choice"),)
)


def test_points_depend_on_seed_and_number_alone():
    search = RandomSearch(SPACE, seed=3)
    three = search.propose([], remaining_runs=9, max_proposals=3)
    running = [Trial(number=0, recipe={"learning_rate": 1e-4})]
    assert search.propose(running, remaining_runs=9, max_proposals=2) == three[1:]
    assert RandomSearch(SPACE, seed=4).point(0) != three[0]


def test_points_are_even_in_the_logarithm_and_inside():
    points = [RandomSearch(SPACE).point(n) for n in range(400)]
    rates = np.log10([p.learning_rate for p in points])
    assert rates.min() >= -5.01
    assert rates.max() <= -1.99
    assert abs(rates.mean() + 3.5) < 0.15
    assert {p.effective_batch_size for p in points} == {8, 16, 32, 64}
    assert {p.changes["schedule.name"] for p in points} == {"linear", "cosine"}


def test_the_budget_is_kept():
    assert RandomSearch(SPACE).propose([], remaining_runs=0.9) == []
    assert len(RandomSearch(SPACE).propose([], remaining_runs=2.5, max_proposals=8)) == 2
