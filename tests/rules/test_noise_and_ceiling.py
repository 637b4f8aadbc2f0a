"""Noise scale, breaking rate, knee and time: unbiased where promised, covered as often as promised, golden values."""

from __future__ import annotations

import math

import numpy as np
import pytest

from finestep.errors import BadInput
from finestep.rules.ceiling import Ceiling, ceiling, ceiling_words, range_rates
from finestep.rules.noise_scale import StepNoise, noise_scale, noise_words, step_noise
from finestep.rules.throughput import knee, price, run_seconds


def simulated(chance, *, scale: float, width: int, micro_batches: int, rows: int, num_steps: int) -> list[StepNoise]:
    """Steps of a model whose mean gradient has length 1 and whose rows have covariance (scale / width) x identity."""
    steps = []
    sizes = np.full(micro_batches, rows)
    sizes[0] *= 2
    for _ in range(num_steps):
        noise = chance.normal(size=(micro_batches, width)) * math.sqrt(scale / width) / np.sqrt(sizes)[:, None]
        grads = noise + np.eye(1, width)
        mean = (sizes[:, None] * grads).sum(axis=0) / sizes.sum()
        steps.append(step_noise(sizes, (grads**2).sum(axis=1), float((mean**2).sum())))
    return steps


def test_both_parts_are_unbiased_for_unequal_micro_batches():
    steps = simulated(np.random.default_rng(0), scale=40.0, width=30, micro_batches=4, rows=3, num_steps=6000)
    values = np.array([(step.trace, step.signal) for step in steps])
    errors = values.std(axis=0) / math.sqrt(len(steps))
    assert abs(values[:, 0].mean() - 40.0) < 3 * errors[0]
    assert abs(values[:, 1].mean() - 1.0) < 3 * errors[1]


@pytest.mark.parametrize(
    ("scale", "width", "micro_batches", "rows", "num_steps"),
    [(10, 10, 4, 4, 6), (30, 48, 8, 4, 8), (100, 300, 8, 2, 12)],
)
def test_the_interval_covers_as_often_as_it_says(scale, width, micro_batches, rows, num_steps):
    chance = np.random.default_rng(scale)
    hits = 0
    for _ in range(500):
        found = noise_scale(
            simulated(chance, scale=scale, width=width, micro_batches=micro_batches, rows=rows, num_steps=num_steps)
        )
        hits += found.low <= scale and (found.high is None or scale <= found.high)
    assert 0.74 <= hits / 500 <= 0.86


def test_a_drowned_gradient_has_no_upper_end():
    steps = simulated(np.random.default_rng(1), scale=1e5, width=50, micro_batches=4, rows=1, num_steps=6)
    found = noise_scale(steps)
    assert found.value is None
    assert found.high is None
    assert found.low > 10
    assert noise_words(found).startswith("at least ")


def test_other_units_and_words():
    found = noise_scale([StepNoise(100.0 + wobble, 2.0 + wobble / 10) for wobble in (-1.0, 0.0, 1.0, 0.5)])
    rows = found.times(1 / 10)
    assert rows.value == pytest.approx(found.value / 10)
    assert noise_words(rows).startswith("about 5 rows")


def test_noise_needs_enough_to_look_at():
    with pytest.raises(BadInput, match="two micro-batches"):
        step_noise([4], [1.0], 1.0)
    with pytest.raises(BadInput, match="three steps"):
        noise_scale([StepNoise(1.0, 1.0)] * 2)
    with pytest.raises(BadInput, match="finite"):
        noise_scale([StepNoise(math.nan, 1.0)] * 3)


def losses(rates, *, breaks: float | None, seed: int, noise: float = 0.3) -> list[float]:
    chance = np.random.default_rng(seed)
    clean = [3.0 - 0.2 * min(rate / 1e-3, 3.0) for rate in rates]
    grown = [
        x + (0 if not breaks or r < breaks else 20 * math.log(r / breaks)) for x, r in zip(clean, rates, strict=True)
    ]
    return [float(x + noise * chance.normal()) for x in grown]


@pytest.mark.parametrize("seed", range(20))
def test_the_breaking_rate_is_found_and_noise_is_not_taken_for_it(seed):
    rates = range_rates(prior=2e-4, num_steps=120)
    assert (rates[0], rates[-1]) == pytest.approx((2e-5, 2e-2))
    assert ceiling(rates, losses(rates, breaks=None, seed=seed)).breaks_at is None
    found = ceiling(rates, losses(rates, breaks=4e-3, seed=seed))
    assert 4e-3 <= found.breaks_at <= 4e-3 * 1.6, "the smoothing delays it a little"


def test_a_loss_that_is_not_finite_is_the_end():
    rates = range_rates(prior=1e-3, num_steps=60)
    found = ceiling(rates, [2.0] * 30 + [math.nan] * 30)
    assert found.breaks_at == rates[30]
    assert found.highest_credible == pytest.approx(rates[30] / 10)
    assert "breaks at" in ceiling_words(found)
    assert "stable up to 2.0e-02" in ceiling_words(Ceiling(None, 2e-2))


def test_the_knee_is_the_smallest_that_is_nearly_best():
    assert knee([(1, 50.0), (2, 90.0), (4, 98.5), (8, 100.0)]) == 4
    assert knee([(1, 100.0), (2, 90.0), (4, 95.0)]) == 1


def test_the_time_of_a_run():
    seconds = run_seconds(
        num_rows=1000,
        effective_batch_size=16,
        micro_batch=8,
        micro_step_s=0.1,
        update_s=0.01,
        num_evaluations=4,
        evaluation_s=2.0,
    )
    assert seconds == pytest.approx(125 * 0.1 + 63 * 0.01 + 5 * 2.0)
    assert price(7200.0, 1.5) == 3.0
    assert price(7200.0, None) is None
