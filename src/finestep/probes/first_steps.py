"""What the first steps of training tell: how noisy gradients are, and the rate at which training breaks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np

from finestep.errors import BadInput
from finestep.probe import NoiseAnswer, RatePoint
from finestep.probes.bench import Bench
from finestep.probes.gradient_noise import accumulate_with_noise, adam_metric
from finestep.rules.ceiling import Ceiling, ceiling, range_rates
from finestep.rules.noise_scale import StepNoise, noise_scale, noise_words

NOISE_MICRO_BATCHES, FEWEST_NOISE_STEPS, MOST_NOISE_STEPS = 8, 4, 24
FEWEST_RANGE_STEPS, MOST_RANGE_STEPS = 40, 200
RANGE_ROWS = 8
WARMUP_SHARE = 0.25


def noise(bench: Bench, *, budget_s: float, rates: list[RatePoint]) -> tuple[NoiseAnswer | None, NoiseAnswer | None]:
    """The noise scale in rows over the first steps of training: (plain, in Adam's metric)."""
    rows_each = max(1, bench.recipe.effective_batch_size // NOISE_MICRO_BATCHES)
    seconds = NOISE_MICRO_BATCHES * rows_each * _seconds_a_row(rates)
    num_steps = min(MOST_NOISE_STEPS, int(budget_s / seconds))
    if num_steps < FEWEST_NOISE_STEPS:
        bench.notes.append("gradient noise was not measured: the time allows too few steps")
        return None, None
    plain, adam = _noisy_steps(bench, num_steps, rows_each)
    bench.restart()
    return _noise_answer(bench, plain), _noise_answer(bench, adam)


def _noisy_steps(bench: Bench, num_steps: int, rows_each: int) -> tuple[list[StepNoise], list[StepNoise]]:
    plain: list[StepNoise] = []
    adam: list[StepNoise] = []
    settings = bench.recipe.optimizer
    for step in range(1, num_steps + 1):
        metric = adam_metric(bench.values, bench.adamw.state, beta2=settings.beta2, epsilon=settings.epsilon)
        seen, scaled = accumulate_with_noise(bench.values, _random_parts(bench, rows_each), metric)
        plain.append(seen)
        adam += [scaled] if scaled else []
        rate = bench.recipe.learning_rate * min(1.0, step / (WARMUP_SHARE * num_steps))
        bench.update(rate)
    return plain, adam


def _random_parts(bench: Bench, rows_each: int) -> Iterator[tuple[float, Callable[[], None]]]:
    rows = bench.rows(NOISE_MICRO_BATCHES * rows_each)
    for part in np.array_split(rows, min(NOISE_MICRO_BATCHES, len(rows))):
        units = bench.resident.data.train.num_loss_units(part)
        yield float(units), lambda part=part: bench.run_pass(part)  # type: ignore[misc]


def _noise_answer(bench: Bench, steps: list[StepNoise]) -> NoiseAnswer | None:
    try:
        scale = noise_scale(steps).times(1 / _units_a_row(bench))
    except BadInput as error:
        bench.notes.append(f"gradient noise is unknown: {error}")
        return None
    return NoiseAnswer(
        value=scale.value, low=scale.low, high=scale.high, num_steps=scale.num_steps, words=noise_words(scale)
    )


def _units_a_row(bench: Bench) -> float:
    rows = bench.resident.data.train
    return rows.num_loss_units(np.arange(len(rows))) / len(rows)


def breaking_rate(bench: Bench, *, budget_s: float, rates: list[RatePoint]) -> Ceiling | None:
    """A range test from a tenth of the recipe's rate to a hundred times it."""
    affordable = max(1, int(budget_s / (FEWEST_RANGE_STEPS * _seconds_a_row(rates))))
    size = min(RANGE_ROWS, bench.recipe.effective_batch_size, rates[-1].micro_batch, affordable)
    num_steps = min(MOST_RANGE_STEPS, int(budget_s / (size * _seconds_a_row(rates))))
    if num_steps < FEWEST_RANGE_STEPS:
        bench.notes.append("no range test: the time allows too few steps")
        return None
    tested = range_rates(prior=bench.recipe.learning_rate, num_steps=num_steps)
    losses: list[float] = []
    for rate in tested:
        bench.adamw.zero_grad(set_to_none=True)
        losses.append(bench.run_pass(bench.rows(size)))
        if not math.isfinite(losses[-1]):
            break
        bench.update(rate)
    bench.restart()
    losses += [math.inf] * (len(tested) - len(losses))
    return ceiling(tested, losses)


def _seconds_a_row(rates: list[RatePoint]) -> float:
    """Of the micro-batches that are small enough to be used for noise."""
    return max(point.seconds / point.micro_batch for point in rates[-2:])
