"""The numbers behind the search: surrogate against a slow twin, acquisition against sampling, the cliff's order."""

import math

import numpy as np
import pytest
from tests.search.test_structured import PRIOR, SPACE, trial

from finestep.search.acquisition import (
    capped_improvement,
    expected_improvement,
    expected_regret,
    knowledge_gain,
)
from finestep.search.divergence import divergence_probability
from finestep.search.hopeless import is_hopeless
from finestep.search.observations import Objective, Points, observe, squash
from finestep.search.prior import SearchPrior
from finestep.search.space import SearchSpace
from finestep.search.surrogate import Model, Posterior, particles_of
from finestep.search.surrogate import bowl as bowl_of

TRIALS = [trial(0, 1e-4, 16, value=2.02), trial(1, 4e-4, 32, value=2.0), trial(2, 1e-3, 64, value=2.01)]


def posterior(trials=TRIALS):
    observations = observe(trials, SPACE, Objective())
    lengths = np.log2(np.array(SPACE.fidelities))
    return Posterior(Model(PRIOR, (), lengths), observations), observations


def test_moments_agree_with_a_slow_twin_over_particles():
    post, observations = posterior()
    points = observe([trial(0, 2e-4, 64), trial(1, 8e-4, 8, fidelity=0.4)], SPACE, Objective()).points
    prediction = post.at(points)
    means, seconds = [], []
    for index in range(len(post.weights)):
        one = post.particles.take(np.array([index]))
        shift = post.shift.take(np.array([index]))
        a, b = post.model.design(observations.points, one, shift), post.model.design(points, one, shift)
        ragged = one.raggedness[0] ** 2
        k_oo = a.features[0] @ a.features[0].T + ragged * post.model.ragged(observations.points, observations.points)
        k_oo += np.diag(post.model.noise_variance(observations.points, observations.excess, one)[0])
        k_po = b.features[0] @ a.features[0].T + ragged * post.model.ragged(points, observations.points)
        k_pp = b.features[0] @ b.features[0].T + ragged * post.model.ragged(points, points)
        mean = b.mean[0] + k_po @ np.linalg.solve(k_oo, observations.excess - a.mean[0])
        means.append(mean)
        seconds.append(k_pp - k_po @ np.linalg.solve(k_oo, k_po.T) + np.outer(mean, mean))
    mean = np.einsum("p,pm->m", post.weights, np.array(means))
    covariance = np.einsum("p,pmk->mk", post.weights, np.array(seconds)) - np.outer(mean, mean)
    both = np.arange(2)
    assert prediction.mean == pytest.approx(mean, rel=1e-6)
    assert prediction.covariance(both, both) == pytest.approx(covariance, rel=1e-4, abs=1e-6)
    assert prediction.variance == pytest.approx(np.diag(covariance), rel=1e-4)


def test_the_prediction_passes_near_what_was_measured():
    post, observations = posterior()
    assert post.at(observations.points).mean == pytest.approx(observations.excess, abs=0.25)


def test_the_optimum_wanders_further_the_shorter_a_run_and_not_at_full_length():
    lengths = np.array([-3.0, -1.0, 0.0])
    model = Model(PRIOR, (), lengths)
    walk = model.motion(lengths)[2:]
    assert walk.T @ walk == pytest.approx(np.array([[3.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 0.0]]))
    assert (model.scales(particles_of(PRIOR))[4:] == PRIOR.drift.wander).all()
    assert len(model.motion(np.zeros(1))) == len(model.no_shift(1).values) / 2


def test_two_short_lengths_do_not_fix_the_full_one():
    def spread(wander):
        moved = {0.125: 4e-4, 0.35: 2e-4}
        trials = [
            trial(number, best * factor, 32, fidelity=fidelity, value=2 + 0.01 * np.log2(factor) ** 2)
            for number, (fidelity, best, factor) in enumerate(
                (f, b, x) for f, b in moved.items() for x in (0.25, 0.5, 1, 2, 4)
            )
        ]
        observations = observe(trials, SPACE, Objective())
        model = Model(
            PRIOR.model_copy(update={"drift": PRIOR.drift.model_copy(update={"wander": wander})}),
            (),
            np.log2(np.array(SPACE.fidelities)),
        )
        rates = np.linspace(np.log2(SPACE.learning_rates[0]), np.log2(SPACE.learning_rates[-1]), 40)
        full = Points(rates, np.full(40, 5.0), np.zeros(40), np.zeros((40, 0)))
        samples = Posterior(model, observations).at(full).samples(np.arange(40), count=2000, seed=0)
        return rates[samples.argmin(axis=1)].std()

    assert spread(0.5) > 1.15 * spread(0.0)


def test_particles_do_not_depend_on_the_seed_and_stay_positive():
    particles = particles_of(SearchPrior())
    assert (particles.rate_curvature > 0).all()
    assert (particles.noise > 0).all()
    assert np.median(particles.rate_curvature) == pytest.approx(0.48, rel=0.05)


def test_the_bowl_is_steeper_to_the_right_and_its_slope_is_its_derivative():
    z = np.linspace(-4, 4, 81)
    height, slope = bowl_of(z)
    assert height[z == 0] == 0
    assert bowl_of(np.array([2.0]))[0] > 2 * bowl_of(np.array([-2.0]))[0]
    assert slope == pytest.approx((bowl_of(z + 1e-5)[0] - bowl_of(z - 1e-5)[0]) / 2e-5, abs=1e-4)


def test_a_prior_outside_the_space_is_cut_to_it():
    far = SearchPrior(learning_rate=2.0, batch_size=32).within(SPACE)
    near = SearchPrior(learning_rate=1.2e-2, batch_size=32).within(SPACE)
    assert SPACE.learning_rates[0] < far.learning_rate < near.learning_rate < SPACE.learning_rates[-1]
    assert near.learning_rate > 2e-3
    assert min(far.learning_rate_sd, near.learning_rate_sd) >= SearchPrior().learning_rate_sd
    assert PRIOR.within(SPACE) == PRIOR


def test_squash_is_rising_and_leaves_small_values_alone():
    values = np.array([0.0, 1.0, 4.0, 10.0, 100.0, 1000.0])
    assert squash(values)[:3].tolist() == [0.0, 1.0, 4.0]
    assert (np.diff(squash(values)) > 0).all()
    assert squash(values)[-1] < 12


def test_expected_improvement_golden_monotone_and_limit():
    assert expected_improvement(np.array([0.0]), np.array([1.0]), 0.0)[0] == pytest.approx(1 / math.sqrt(2 * math.pi))
    better = expected_improvement(np.array([-1.0, 0.0, 1.0]), np.ones(3), 0.0)
    assert (np.diff(better) < 0).all()
    assert expected_improvement(np.array([-2.0]), np.array([0.0]), 0.0)[0] == pytest.approx(2.0)


def test_an_improvement_beyond_the_cap_counts_as_the_cap():
    sure = capped_improvement(np.array([-0.3, -5.0]), np.array([1e-6, 1e-6]), 0.0, cap=0.7)
    assert sure == pytest.approx([0.3, 0.7])
    sd = np.array([0.1, 0.5, 20.0])
    assert (capped_improvement(np.zeros(3), sd, 0.0, cap=0.7) <= expected_improvement(np.zeros(3), sd, 0.0)).all()


def test_knowledge_gain_matches_sampling_and_is_zero_without_correlation():
    mean, cross, total = np.array([0.0, 0.1]), np.array([[0.5, 0.0], [-0.5, 0.0]]), np.array([1.0, 1.0])
    draws = np.random.default_rng(0).standard_normal(200_000)
    lowest = np.minimum(mean[0] + 0.5 * draws, mean[1] - 0.5 * draws)
    slow = np.minimum(mean.min() - lowest, 0.7).mean()
    gain = knowledge_gain(mean, cross, total, cap=0.7)
    assert gain[0] == pytest.approx(slow, rel=0.05)
    assert gain[1] == 0


def test_samples_have_the_moments_of_the_mixture_and_regret_is_never_negative():
    post, _ = posterior()
    points = observe([trial(0, 2e-4, 64), trial(1, 8e-4, 8)], SPACE, Objective()).points
    prediction = post.at(points)
    both = np.arange(2)
    samples = prediction.samples(both, count=20_000, seed=1)
    assert samples.mean(axis=0) == pytest.approx(prediction.mean, abs=0.05)
    assert np.cov(samples.T) == pytest.approx(prediction.covariance(both, both), rel=0.1, abs=0.02)
    assert prediction.samples(both, count=100, seed=2).tolist() == prediction.samples(both, count=100, seed=2).tolist()
    assert expected_regret(samples, 0) >= 0


def test_divergence_rises_with_the_learning_rate_and_learns_from_a_failure():
    rates = [trial(i, rate) for i, rate in enumerate((1e-4, 1e-3, 5e-3, 1e-2))]
    points = observe(rates, SPACE, Objective()).points
    before = divergence_probability(observe([], SPACE, Objective()), PRIOR, points)
    after = divergence_probability(observe([trial(0, 2e-3, state="diverged")], SPACE, Objective()), PRIOR, points)
    assert (np.diff(before) > 0).all()
    assert (after > before).all()
    survived = divergence_probability(observe([trial(0, 5e-3)], SPACE, Objective()), PRIOR, points)
    assert (survived < before).all()


def test_failures_are_sorted_by_what_they_teach():
    trials = [trial(0, 1e-4), trial(1, 1e-2, state="diverged"), trial(2, 1e-4, 64, state="out_of_memory")]
    observations = observe([*trials, trial(3, 2e-4, state="running")], SPACE, Objective())
    assert observations.failed.tolist() == [False, True]
    assert (len(observations.silent), len(observations.pending)) == (1, 1)


def test_hopeless_is_far_behind_or_not_finite():
    assert is_hopeless(math.inf, [])
    assert not is_hopeless(5.0, [])
    assert not is_hopeless(1.1, [1.0, 2.0])
    assert is_hopeless(2.0, [1.0, math.nan])


def test_between_holds_both_ends():
    space = SearchSpace.between((1e-5, 1e-3), (8, 100))
    assert (space.learning_rates[0], space.learning_rates[-1]) == (1e-5, 1e-3)
    assert space.batch_sizes == (8, 16, 32, 64, 100)
