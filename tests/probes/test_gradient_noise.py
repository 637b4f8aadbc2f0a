"""The collector of micro-batch gradients on a linear model whose gradient covariance is known in closed form."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from finestep.probes.gradient_noise import accumulate_with_noise, adam_metric
from finestep.rules.noise_scale import noise_scale

WIDTH, ROWS, MICRO_BATCHES = 12, 4, 6


def steps_at(weights: torch.nn.Parameter, truth: torch.Tensor, *, noise: float, num_steps: int, metric=None):
    """Squared loss on x ~ N(0, 1), y = truth x + noise: gradient d = w - truth, trace W (|d|^2 + noise^2) + |d|^2 a row."""
    generator = torch.Generator().manual_seed(0)

    def micro_batches():
        for _ in range(MICRO_BATCHES):
            x = torch.randn(ROWS, WIDTH, generator=generator)
            y = x @ truth + noise * torch.randn(ROWS, generator=generator)
            yield ROWS, lambda x=x, y=y: (0.5 * ((x @ weights - y) ** 2).mean()).backward()

    return [accumulate_with_noise([weights], micro_batches(), metric) for _ in range(num_steps)]


def test_both_parts_are_unbiased_on_a_real_model():
    weights, truth = torch.nn.Parameter(torch.full((WIDTH,), 0.3)), torch.zeros(WIDTH)
    square = WIDTH * 0.3**2
    seen = np.array([(plain.trace, plain.signal) for plain, _ in steps_at(weights, truth, noise=1.0, num_steps=1500)])
    expected = np.array([WIDTH * (square + 1.0) + square, square])
    errors = seen.std(axis=0) / np.sqrt(len(seen))
    assert np.all(np.abs(seen.mean(axis=0) - expected) < 3 * errors), (seen.mean(axis=0), expected, errors)


def test_the_interval_covers_the_truth_on_a_real_model():
    weights, truth = torch.nn.Parameter(torch.full((WIDTH,), 0.3)), torch.zeros(WIDTH)
    square = WIDTH * 0.3**2
    scale = (WIDTH * (square + 1.0) + square) / square
    seen = [plain for plain, _ in steps_at(weights, truth, noise=1.0, num_steps=1600)]
    found = [noise_scale(seen[at : at + 8]) for at in range(0, 1600, 8)]
    hits = sum(f.low <= scale and (f.high is None or scale <= f.high) for f in found)
    assert 0.74 <= hits / len(found) <= 0.86


def test_the_accumulated_gradient_is_the_mean_over_all_rows():
    weights = torch.nn.Parameter(torch.zeros(WIDTH))
    data = [(torch.randn(rows, WIDTH), torch.randn(rows)) for rows in (1, 4, 3)]

    def backward(x, y):
        return lambda: ((x @ weights - y) ** 2).mean().backward()

    accumulate_with_noise([weights], [(len(x), backward(x, y)) for x, y in data])
    accumulated = weights.grad.clone()
    weights.grad = None
    backward(torch.cat([x for x, _ in data]), torch.cat([y for _, y in data]))()
    assert torch.allclose(accumulated, weights.grad, atol=1e-6)


def test_adams_metric_is_the_one_of_its_state():
    weights = torch.nn.Parameter(torch.ones(3))
    adam = torch.optim.AdamW([weights], lr=0.1, betas=(0.9, 0.99), eps=1e-8)
    assert adam_metric([weights], adam.state, beta2=0.99, epsilon=1e-8) is None, "no state before the first step"
    weights.grad = torch.tensor([1.0, 2.0, 4.0])
    adam.step()
    metric = adam_metric([weights], adam.state, beta2=0.99, epsilon=1e-8)
    assert metric[0] == pytest.approx([1.0, 0.5, 0.25], rel=1e-5)
    _, scaled = accumulate_with_noise([weights], [(1, lambda: weights.sum().backward())] * 2, metric)
    assert scaled.signal == pytest.approx(1.75, rel=1e-5)
    assert scaled.trace == pytest.approx(0.0, abs=1e-5)
