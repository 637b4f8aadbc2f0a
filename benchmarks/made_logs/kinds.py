"""Kinds of runs: for each a builder from a seed to a log with the labels that an expert could give; it writes no file.

The first label is the truth that was built in; a second one is what a sensible colleague could say of the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from benchmarks.made_logs.shapes import (
    Values,
    annealed,
    averaged_from_start,
    constant_rate,
    cosine_rate,
    falling,
    linear_rate,
    lost,
    noisy,
    risen_again,
    smoothed,
    stairs,
)

Columns = dict[str, Values]


@dataclass(frozen=True)
class Made:
    """Columns of training rows and of evaluations, and what the file says around them."""

    labels: tuple[str, ...]
    train: Columns
    evals: Columns = field(default_factory=dict)
    planned_steps: int | None = None
    epochs: float = 2.0
    spacing: int = 10
    form: str = "state"


Kind = Callable[[np.random.Generator], Made]
KINDS: dict[str, Kind] = {}


def kind(build: Kind) -> Kind:
    """Enter a builder under its own name."""
    KINDS[build.__name__.strip("_").replace("_", " ")] = build
    return build


def _time(count: int) -> Values:
    return (np.arange(count) + 0.5) / count


def _rows(rng: np.random.Generator, low: int = 40, high: int = 400) -> Values:
    return _time(int(rng.integers(low, high)))


def _language(rng: np.random.Generator) -> tuple[float, float]:
    start = float(rng.uniform(1.4, 3.2))
    return start, start * float(rng.uniform(0.45, 0.75))


def _evaluated(t: Values, values: Values, *, offset: float = 0.05) -> Columns:
    return {"t": t, "eval_loss": values * (1 + offset)}


# Sound runs ------------------------------------------------------------------------------------------------------------------------


@kind
def healthy_with_evaluations(rng: np.random.Generator) -> Made:
    t, (start, floor) = _rows(rng), _language(rng)
    e = _time(int(rng.integers(4, 20)))
    loss = noisy(annealed(t, start, floor), float(rng.choice([0.02, 0.08, 0.2])), rng)
    evals = noisy(annealed(e, start * 0.9, floor), 0.002, rng)
    return Made(("healthy",), {"loss": loss, "learning_rate": cosine_rate(t, 2e-4)}, _evaluated(e, evals))


@kind
def healthy_without_evaluation(rng: np.random.Generator) -> Made:
    t, (start, floor) = _rows(rng), _language(rng)
    loss = noisy(annealed(t, start, floor), float(rng.choice([0.02, 0.08, 0.2])), rng)
    return Made(("healthy",), {"loss": loss, "learning_rate": linear_rate(t, 1e-4)}, epochs=1.0)


@kind
def healthy_small_noisy_batches(rng: np.random.Generator) -> Made:
    t, (start, floor) = _rows(rng, 200, 900), _language(rng)
    loss = noisy(annealed(t, start, floor), 0.45, rng)
    e = _time(6)
    evals = noisy(annealed(e, start * 0.85, floor), 0.003, rng)
    return Made(("healthy",), {"loss": loss, "learning_rate": linear_rate(t, 2e-5)}, _evaluated(e, evals), spacing=1)


@kind
def healthy_few_rows_whole(rng: np.random.Generator) -> Made:
    t, (start, floor) = _time(int(rng.integers(7, 11))), _language(rng)
    e = _time(3)
    evals = annealed(e, start * 0.85, floor)
    return Made(
        ("healthy", "undertrained", "too_little_information"),
        {"loss": noisy(annealed(t, start, floor), 0.01, rng), "learning_rate": linear_rate(t, 5e-5)},
        _evaluated(e, evals),
        epochs=3.0,
        spacing=500,
    )


@kind
def healthy_constant_rate_long(rng: np.random.Generator) -> Made:
    t, (start, floor) = _rows(rng, 150, 600), _language(rng)
    e = _time(12)
    return Made(
        ("healthy",),
        {"loss": noisy(falling(t, start, floor, speed=80), 0.05, rng), "learning_rate": constant_rate(t, 2e-4)},
        _evaluated(e, noisy(falling(e, start, floor, speed=80), 0.002, rng)),
    )


@kind
def healthy_as_running_mean(rng: np.random.Generator) -> Made:
    t, (start, floor) = _rows(rng, 100, 500), _language(rng)
    loss = averaged_from_start(noisy(annealed(t, start, floor), 0.1, rng))
    return Made(
        ("healthy", "undertrained"), {"loss": loss, "learning_rate": cosine_rate(t, 2e-4)}, epochs=1.0, form="lines"
    )


@kind
def healthy_smoothed(rng: np.random.Generator) -> Made:
    t, (start, floor) = _rows(rng, 100, 500), _language(rng)
    e = _time(8)
    loss = smoothed(noisy(annealed(t, start, floor), 0.15, rng), 0.9)
    return Made(
        ("healthy",),
        {"loss": loss, "learning_rate": cosine_rate(t, 2e-4)},
        _evaluated(e, noisy(annealed(e, start * 0.9, floor), 0.002, rng)),
        form="csv",
    )


@kind
def healthy_summed_over_accumulation(rng: np.random.Generator) -> Made:
    t, (start, floor) = _rows(rng), _language(rng)
    factor = float(rng.choice([4, 8, 16]))
    e = _time(7)
    return Made(
        ("healthy",),
        {"loss": factor * noisy(annealed(t, start, floor), 0.05, rng), "learning_rate": linear_rate(t, 1e-4)},
        _evaluated(e, noisy(annealed(e, start * 0.9, floor), 0.002, rng)),
    )


@kind
def healthy_classifier(rng: np.random.Generator) -> Made:
    classes = int(rng.choice([2, 4, 10]))
    t, e = _rows(rng, 60, 300), _time(5)
    top = float(rng.uniform(0.8, 0.95))
    loss = noisy(annealed(t, math.log(classes), 0.25 * math.log(classes)), 0.25, rng)
    accuracy = 1 / classes + (top - 1 / classes) * (1 - np.exp(-5 * (e + 0.1)))
    evals = annealed(e, 0.7 * math.log(classes), 0.3 * math.log(classes))
    return Made(
        ("healthy",),
        {"loss": loss, "learning_rate": linear_rate(t, 2e-5)},
        {**_evaluated(e, evals), "eval_accuracy": accuracy},
        epochs=3.0,
    )


@kind
def healthy_metrics_only(rng: np.random.Generator) -> Made:
    t, e = _rows(rng, 60, 200), _time(6)
    accuracy = 0.5 + 0.4 * (1 - np.exp(-4 * (e + 0.1))) + rng.normal(0, 0.002, len(e))
    return Made(
        ("healthy",),
        {"loss": noisy(annealed(t, 0.69, 0.2), 0.2, rng), "learning_rate": linear_rate(t, 2e-5)},
        {"t": e, "eval_f1": accuracy},
        epochs=2.0,
    )


@kind
def healthy_regression(rng: np.random.Generator) -> Made:
    t, e = _rows(rng), _time(6)
    return Made(
        ("healthy",),
        {"loss": noisy(annealed(t, 24.0, 3.0), 0.2, rng), "learning_rate": cosine_rate(t, 1e-4)},
        _evaluated(e, noisy(annealed(e, 9.0, 3.1), 0.003, rng)),
    )


@kind
def healthy_contrastive(rng: np.random.Generator) -> Made:
    t, e = _rows(rng), _time(6)
    return Made(
        ("healthy",),
        {"loss": noisy(annealed(t, 3.4, 0.6), 0.15, rng), "learning_rate": linear_rate(t, 2e-5)},
        _evaluated(e, noisy(annealed(e, 1.5, 0.65), 0.003, rng)),
        epochs=1.0,
    )


@kind
def healthy_speech_with_a_plateau(rng: np.random.Generator) -> Made:
    """CTC sits on the blank symbol for a while, then learns."""
    t, e = _rows(rng, 100, 300), _time(10)
    shape = lambda x: np.where(x < 0.2, 2.9 + 20 * np.exp(-60 * x), 0.35 + 2.55 * np.exp(-14 * (x - 0.2)))  # noqa: E731
    return Made(
        ("healthy",),
        {"loss": noisy(shape(t), 0.05, rng), "learning_rate": linear_rate(t, 1e-4, warmup=0.1)},
        {**_evaluated(e, noisy(shape(e), 0.005, rng)), "eval_wer": np.clip(shape(e) / 2.9, 0.12, 1.0)},
        epochs=15.0,
    )


@kind
def healthy_negative_loss(rng: np.random.Generator) -> Made:
    t = _rows(rng, 80, 300)
    loss = -4.5 + 5.0 / (1 + 12 * t) ** 0.9 + rng.normal(0, 0.08, len(t))
    return Made(("healthy",), {"loss": loss, "learning_rate": cosine_rate(t, 1e-4)}, epochs=1.0, form="csv")


@kind
def healthy_restarts_of_the_rate(rng: np.random.Generator) -> Made:
    t, (start, floor) = _rows(rng, 120, 400), _language(rng)
    phase = (3 * t) % 1
    rate = 2e-4 * 0.5 * (1 + np.cos(np.pi * phase))
    bump = 0.04 * floor * np.cos(np.pi * phase)
    e = _time(9)
    evals = falling(e, start, floor, speed=30) + 0.02 * floor * np.cos(np.pi * ((3 * e) % 1))
    return Made(
        ("healthy",),
        {"loss": noisy(falling(t, start, floor, speed=30) + bump, 0.03, rng), "learning_rate": rate},
        _evaluated(e, evals),
    )


@kind
def healthy_with_one_odd_batch(rng: np.random.Generator) -> Made:
    t, (start, floor) = _rows(rng, 150, 400), _language(rng)
    loss = noisy(annealed(t, start, floor), 0.05, rng)
    loss[len(loss) // 2] *= 3.5
    e = _time(6)
    return Made(
        ("healthy", "spike_recovered"),
        {"loss": loss, "learning_rate": cosine_rate(t, 2e-4)},
        _evaluated(e, noisy(annealed(e, start * 0.9, floor), 0.002, rng)),
        spacing=1,
    )


@kind
def spike_that_healed(rng: np.random.Generator) -> Made:
    t, (start, floor) = _rows(rng, 200, 400), _language(rng)
    loss, norms = noisy(annealed(t, start, floor), 0.04, rng), noisy(np.full(len(t), 1.0), 0.2, rng)
    at = int(0.6 * len(t))
    loss[at : at + 8] *= np.linspace(3.5, 1.3, 8)
    norms[at : at + 5] *= 40
    e = _time(6)
    return Made(
        ("spike_recovered", "healthy"),
        {"loss": loss, "learning_rate": cosine_rate(t, 2e-4), "grad_norm": norms},
        _evaluated(e, noisy(annealed(e, start * 0.9, floor), 0.002, rng)),
        spacing=1,
    )


# Too long, too short, too low --------------------------------------------------------------------------------------------------------


@kind
def overfitting_by_the_loss(rng: np.random.Generator) -> Made:
    t, e, (start, floor) = _rows(rng), _time(int(rng.integers(6, 25))), _language(rng)
    end = floor * float(rng.uniform(1.08, 1.6))
    evals = noisy(risen_again(e, start, floor, turn=float(rng.uniform(0.3, 0.6)), end=end), 0.003, rng)
    return Made(
        ("overfitting",),
        {"loss": noisy(falling(t, start, 0.15 * floor, speed=6), 0.05, rng), "learning_rate": linear_rate(t, 2e-4)},
        _evaluated(e, evals),
        epochs=6.0,
    )


@kind
def overfitting_evaluations_alone(rng: np.random.Generator) -> Made:
    e, (start, floor) = _time(int(rng.integers(8, 20))), _language(rng)
    evals = noisy(risen_again(e, start, floor, turn=0.4, end=1.25 * floor), 0.003, rng)
    return Made(("overfitting",), {}, _evaluated(e, evals), epochs=8.0)


@kind
def healthy_evaluations_alone(rng: np.random.Generator) -> Made:
    e, (start, floor) = _time(int(rng.integers(8, 20))), _language(rng)
    return Made(("healthy",), {}, _evaluated(e, noisy(falling(e, start, floor, speed=60), 0.002, rng)), epochs=3.0)


@kind
def overfitting_with_a_better_metric(rng: np.random.Generator) -> Made:
    t, e = _rows(rng, 80, 250), _time(8)
    evals = risen_again(e, 0.65, 0.35, turn=0.35, end=0.55)
    accuracy = 0.84 + 0.03 * e
    return Made(
        ("overfitting", "healthy"),
        {"loss": noisy(falling(t, 0.7, 0.01, speed=10), 0.15, rng), "learning_rate": linear_rate(t, 3e-5)},
        {**_evaluated(e, evals, offset=0.0), "eval_accuracy": accuracy},
        epochs=8.0,
    )


@kind
def overfitting_with_a_worse_metric(rng: np.random.Generator) -> Made:
    t, e = _rows(rng, 80, 250), _time(8)
    evals = risen_again(e, 0.65, 0.35, turn=0.35, end=0.6)
    accuracy = 0.86 - 0.25 * (e - 0.35) ** 2
    return Made(
        ("overfitting",),
        {"loss": noisy(falling(t, 0.7, 0.01, speed=10), 0.15, rng), "learning_rate": linear_rate(t, 3e-5)},
        {**_evaluated(e, evals, offset=0.0), "eval_accuracy": accuracy},
        epochs=8.0,
    )


@kind
def memorised_in_stairs(rng: np.random.Generator) -> Made:
    epochs = int(rng.choice([3, 4, 5]))
    t = _rows(rng, 150, 500)
    loss = noisy(stairs(t, 1.1, epochs=epochs, ratio=0.6) * (1 + 0.3 * np.exp(-t / 0.02)), 0.06, rng)
    return Made(("overfitting",), {"loss": loss, "learning_rate": cosine_rate(t, 2e-5)}, epochs=float(epochs))


@kind
def memorised_over_many_epochs(rng: np.random.Generator) -> Made:
    t = _rows(rng, 40, 200)
    loss = noisy(2.6 * np.exp(-7 * t) + 0.01, 0.1, rng)
    return Made(("overfitting",), {"loss": loss, "learning_rate": constant_rate(t, 2e-4)}, epochs=30.0)


@kind
def stopped_while_falling(rng: np.random.Generator) -> Made:
    whole = _rows(rng, 300, 700)
    t, (start, floor) = whole[: len(whole) // 4], _language(rng)
    e = _time(20)[:5]
    shape = lambda x: falling(x, start, 0.6 * floor, speed=4)  # noqa: E731
    return Made(
        ("undertrained",),
        {"loss": noisy(shape(t), 0.03, rng), "learning_rate": linear_rate(t, 1e-4)},
        _evaluated(e, shape(e)),
        planned_steps=10 * len(whole),
        epochs=0.75,
    )


@kind
def warmup_that_never_ended(rng: np.random.Generator) -> Made:
    t = _rows(rng, 30, 100)
    start = float(rng.uniform(2.0, 4.0))
    loss = noisy(start * (1 - 0.35 * t**2), 0.02, rng)
    return Made(("undertrained", "too_little_information"), {"loss": loss, "learning_rate": 1e-4 * t}, epochs=0.5)


@kind
def far_too_low_a_rate(rng: np.random.Generator) -> Made:
    t, start = _rows(rng, 100, 400), float(rng.uniform(2.0, 5.0))
    e = _time(10)
    spent = lambda x: 1 - (1 - x) ** 2  # noqa: E731
    shape = lambda x: start * (1 - 0.12 * spent(x))  # noqa: E731
    return Made(
        ("lr_too_low", "undertrained"),
        {"loss": noisy(shape(t), 0.02, rng), "learning_rate": linear_rate(t, 1e-7, warmup=0.01)},
        _evaluated(e, shape(e)),
        epochs=5.0,
    )


# Broken runs -------------------------------------------------------------------------------------------------------------------------


@kind
def lost_in_the_middle(rng: np.random.Generator) -> Made:
    t, (start, floor) = _rows(rng), _language(rng)
    onset, level = float(rng.uniform(0.15, 0.45)), float(rng.uniform(5.5, 8.0))
    shape = lambda x: lost(x, start, floor, onset=onset, level=level)  # noqa: E731
    e = _time(8)
    return Made(
        ("lr_too_high_diverged",),
        {"loss": noisy(shape(t), 0.04, rng), "learning_rate": cosine_rate(t, 2e-3)},
        _evaluated(e, shape(e)),
    )


@kind
def lost_few_rows(rng: np.random.Generator) -> Made:
    t, (start, floor) = _time(int(rng.integers(8, 14))), _language(rng)
    shape = lost(t, start, floor, onset=0.4, level=3 * start)
    return Made(
        ("lr_too_high_diverged",),
        {"loss": noisy(shape, 0.05, rng), "learning_rate": linear_rate(t, 1e-3)},
        spacing=100,
    )


@kind
def lost_without_rates(rng: np.random.Generator) -> Made:
    t, (start, floor) = _rows(rng, 60, 200), _language(rng)
    shape = lost(t, start, floor, onset=0.3, level=7.2)
    return Made(("lr_too_high_diverged",), {"loss": noisy(shape, 0.04, rng)}, form="lines")


@kind
def lost_from_the_first_steps(rng: np.random.Generator) -> Made:
    t = _rows(rng, 60, 300)
    start = float(rng.uniform(1.5, 2.5))
    loss = noisy(np.where(t < 0.02, start, 7.4 - 0.6 * t + 3 * np.exp(-40 * t)), 0.02, rng)
    loss[0] = start
    return Made(
        ("lr_too_high_diverged", "lr_too_high_unstable"),
        {"loss": loss, "learning_rate": constant_rate(t, 1e-2)},
        epochs=1.0,
        spacing=1,
    )


@kind
def classifier_thrown_back_to_chance(rng: np.random.Generator) -> Made:
    t, e = _rows(rng, 80, 250), _time(6)
    shape = lambda x: lost(x, 0.69, 0.3, onset=0.35, level=math.log(2))  # noqa: E731
    accuracy = np.where(e < 0.35, 0.86, 0.502)
    return Made(
        ("lr_too_high_diverged",),
        {"loss": noisy(shape(t), 0.03, rng), "learning_rate": linear_rate(t, 1e-4, warmup=0.3)},
        {**_evaluated(e, shape(e), offset=0.0), "eval_accuracy": accuracy},
        epochs=3.0,
    )


@kind
def classifier_at_chance(rng: np.random.Generator) -> Made:
    classes = int(rng.choice([2, 3, 5]))
    t, e = _rows(rng, 60, 250), _time(5)
    level = math.log(classes)
    return Made(
        ("no_learning", "lr_too_high_diverged"),
        {"loss": noisy(np.full(len(t), level), 0.02, rng), "learning_rate": linear_rate(t, 2e-5)},
        {"t": e, "eval_loss": np.full(len(e), level), "eval_accuracy": 1 / classes + rng.normal(0, 0.004, len(e))},
        epochs=3.0,
    )


@kind
def unsettled(rng: np.random.Generator) -> Made:
    """Half of the gain is lost again, and both losses drift upwards."""
    t, (start, floor) = _rows(rng, 100, 300), _language(rng)
    shape = lambda x: falling(x, start, floor, speed=80) + 0.55 * (start - floor) * np.clip((x - 0.3) / 0.7, 0, 1)  # noqa: E731
    e = _time(10)
    return Made(
        ("lr_too_high_unstable", "lr_too_high_diverged"),
        {"loss": noisy(shape(t), 0.03, rng), "learning_rate": constant_rate(t, 3e-3)},
        _evaluated(e, shape(e)),
    )


@kind
def not_a_number(rng: np.random.Generator) -> Made:
    t, (start, floor) = _rows(rng), _language(rng)
    loss = noisy(annealed(t, start, floor), 0.05, rng)
    loss[int(0.4 * len(loss)) :] = math.nan
    return Made(("numerical_failure",), {"loss": loss, "learning_rate": cosine_rate(t, 2e-4)}, form="state")


@kind
def hidden_as_zero(rng: np.random.Generator) -> Made:
    t, (start, floor) = _rows(rng), _language(rng)
    loss, norms = noisy(annealed(t, start, floor), 0.05, rng), noisy(np.full(len(t), 1.2), 0.2, rng)
    at = int(float(rng.uniform(0.2, 0.7)) * len(loss))
    loss[at:], norms[at:] = 0.0, math.nan
    return Made(
        ("numerical_failure",),
        {"loss": loss, "learning_rate": cosine_rate(t, 2e-4), "grad_norm": norms},
        form="printed",
    )


@kind
def broken_after_a_rise(rng: np.random.Generator) -> Made:
    t, (start, floor) = _rows(rng, 80, 200), _language(rng)
    loss = noisy(lost(t, start, floor, onset=0.3, level=9.0), 0.04, rng)
    loss[int(0.6 * len(loss)) :] = math.nan
    return Made(("lr_too_high_diverged", "numerical_failure"), {"loss": loss, "learning_rate": linear_rate(t, 5e-3)})


@kind
def nothing_moves(rng: np.random.Generator) -> Made:
    t, level = _rows(rng, 40, 200), float(rng.uniform(1.5, 6.0))
    loss = level * (1 + rng.normal(0, 2e-4, len(t)))
    return Made(("no_learning",), {"loss": loss, "learning_rate": cosine_rate(t, 2e-4)}, epochs=3.0)


@kind
def the_same_rows_again(rng: np.random.Generator) -> Made:
    period, epochs = int(rng.integers(6, 30)), 8
    once = rng.uniform(1.0, 2.5, period).round(4)
    t = _time(period * epochs)
    return Made(
        ("no_learning",), {"loss": np.tile(once, epochs), "learning_rate": linear_rate(t, 2e-4)}, epochs=float(epochs)
    )


@kind
def no_token_carries_loss(rng: np.random.Generator) -> Made:
    t = _rows(rng, 20, 100)
    zeros = np.zeros(len(t))
    return Made(
        ("no_learning", "numerical_failure"), {"loss": zeros, "learning_rate": linear_rate(t, 2e-4), "grad_norm": zeros}
    )


@kind
def leaked(rng: np.random.Generator) -> Made:
    t, e = _rows(rng, 100, 300), _time(8)
    shape = lambda x: 2.5 * np.exp(-40 * x) + 0.0008  # noqa: E731
    return Made(
        ("other",),
        {"loss": noisy(shape(t), 0.1, rng), "learning_rate": linear_rate(t, 1e-4)},
        _evaluated(e, shape(e)),
        epochs=1.0,
    )


@kind
def data_that_changed(rng: np.random.Generator) -> Made:
    t, (start, floor) = _rows(rng, 150, 400), _language(rng)
    loss = annealed(t, start, floor) * np.where(t > 0.75, 1.9, 1.0)
    return Made(
        ("other",),
        {
            "loss": noisy(loss, 0.03, rng), "learning_rate": linear_rate(t, 2e-4),
            "grad_norm": noisy(np.full(len(t), 1.1), 0.15, rng),
        },
        epochs=1.0,
    )  # fmt: skip


@kind
def hardly_any_rows(rng: np.random.Generator) -> Made:
    count = int(rng.integers(1, 4))
    t = _time(count)
    return Made(("too_little_information",), {"loss": 2.0 + rng.normal(0, 0.05, count), "learning_rate": linear_rate(t, 1e-4)},
                planned_steps=5000)  # fmt: skip
