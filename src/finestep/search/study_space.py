"""What a study may try, and what it believes at its start: space, prior and objective from the study and its data.

Pure: the same study and number of rows give the same space, so that a study that goes on proposes what it would have.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from finestep.recipe import Recipe
from finestep.search.further_fields import dimensions
from finestep.search.observations import Objective
from finestep.search.prior import SearchPrior
from finestep.search.space import SearchSpace
from finestep.search.sweep import BASELINE_RATES
from finestep.study import StartingPoint, StudySpec
from finestep.trial import Trial

REACH = 5.0
"""Octaves that the learning rates reach either side of the centre: a prior that is wrong 30-fold can still be overruled."""
REACH_IN_SD = 3.0
LOWEST_RATE, HIGHEST_RATE = 1e-7, 0.1
BATCH_OCTAVES_DOWN, BATCH_OCTAVES_UP = 1, 3
"""Batch sizes considered around the centre. Fewer rows than half of it cost time on any device, for little."""
OCTAVES_DOWN_OF_FEW_STEPS = 3
"""In a study of few steps more updates mostly help: in each of 27 recorded decoders the best batch was 1 or 2, and 1 to 8 was
recommended (docs/log.md)."""
FEW_STEPS, MANY_STEPS = 200, 400
"""Optimizer steps at the centre's batch size. Below the second the first runs are given (`opening`). Above, an eighth of a run has steps
enough to tell where to go (`lengths`). Between the two, short runs try further fields first, where some are tuned."""
OCTAVES_DOWN_WITHOUT_PRIOR = 4
"""The usual batch of 16 is no advice: on a few hundred rows the best one was 1 to 4 in ten of twelve recorded fine-tunes."""
FEWEST_STEPS = 20
"""A full run has at least so many steps: below, a schedule says nothing."""
SHORT_STEPS = 25
"""A short run has at least so many steps at the centre's batch size."""
SHORT_SHARES = (1 / 32, 1 / 16, 1 / 8, 1 / 4)
WIDE = {"learning_rate_sd": 2.5, "batch_size_sd": 1.5}
"""Spread without a prior, octaves."""


def no_prior(recipe: Recipe) -> StartingPoint:
    """What is believed without a recommendation: the method's usual rate at batch 16, give or take a factor of 6."""
    return StartingPoint(
        learning_rate=BASELINE_RATES[recipe.method],
        batch_size=16,
        why="the method's usual rate, without a prior",
        **WIDE,
    )


def search_prior(start: StartingPoint, *, noise_percent: float | None = None) -> SearchPrior:
    """The starting point as the search's prior."""
    more = {} if noise_percent is None else {"noise": noise_percent}
    return SearchPrior(
        learning_rate=start.learning_rate,
        learning_rate_sd=start.learning_rate_sd,
        batch_size=start.batch_size,
        batch_size_sd=start.batch_size_sd,
        **more,
    )


def search_space(spec: StudySpec, start: StartingPoint, *, num_rows: int) -> SearchSpace:
    """Learning rates and batch sizes around the start, and lengths that the data allow."""
    reach = start.learning_rate_reach or max(REACH, REACH_IN_SD * start.learning_rate_sd)
    low = max(start.learning_rate / 2**reach, LOWEST_RATE)
    high = min(start.learning_rate * 2**reach, HIGHEST_RATE)
    rows = num_rows * spec.recipe.num_epochs
    num_steps = planned_steps(start, num_rows=rows)
    down = OCTAVES_DOWN_OF_FEW_STEPS if num_steps < MANY_STEPS else BATCH_OCTAVES_DOWN
    is_unknown = start.batch_size_sd >= WIDE["batch_size_sd"]
    return SearchSpace.between(
        (min(low, high), max(low, high)),
        batch_range(
            start.batch_size,
            rows=rows,
            num_devices=spec.recipe.num_devices,
            reach=start.batch_size_reach,
            octaves_down=OCTAVES_DOWN_WITHOUT_PRIOR if is_unknown else down,
        ),
        fidelities=lengths(num_steps),
        extras=dimensions(spec.search.tuned, spec.recipe),
    )


def planned_steps(start: StartingPoint, *, num_rows: float) -> float:
    """Optimizer steps of a full run at the start's batch size; `num_rows` of all epochs together."""
    return num_rows / max(start.batch_size, 1)


def batch_range(
    centre: float,
    *,
    rows: float,
    num_devices: int = 1,
    reach: int | None = None,
    octaves_down: int = BATCH_OCTAVES_DOWN,
) -> tuple[int, int]:
    """Smallest and largest batch size worth a trial: around the centre, with enough steps, and no less than the devices.

    Args:
        reach: octaves either side of a centre that the user has set; it is tried however few steps that leaves.
        octaves_down: how far below the centre a batch is worth a trial.

    >>> batch_range(8, rows=1800), batch_range(64, rows=10**6), batch_range(8, rows=100)
    ((4, 64), (32, 512), (4, 4))
    """
    if reach is not None:
        whole = round(centre)
        low = whole >> reach if whole % 2**reach == 0 else whole
        return max(num_devices, low, 1), max(num_devices, whole << reach)
    middle = 2 ** round(math.log2(max(centre, 1)))
    most = 2 ** int(math.log2(max(rows / FEWEST_STEPS, 1)))
    high = max(min(middle * 2**BATCH_OCTAVES_UP, most), 1)
    low = max(min(middle // 2**octaves_down, high), 1)
    devices = 2 ** math.ceil(math.log2(num_devices))
    return max(low, devices), max(high, devices)


def lengths(num_steps: float) -> tuple[float, ...]:
    """Fidelities: the shortest that has enough steps, one between, and the whole run.

    >>> lengths(225), lengths(20_000), lengths(30)
    ((0.125, 0.35, 1.0), (0.03125, 0.18, 1.0), (1.0,))
    """
    shortest = next((share for share in SHORT_SHARES if share * num_steps >= SHORT_STEPS), None)
    if shortest is None:
        return (0.5, 1.0) if num_steps >= 2 * FEWEST_STEPS else (1.0,)
    return (shortest, round(math.sqrt(shortest), 2), 1.0)


def objective_of(spec: StudySpec, trials: Sequence[Trial], *, num_eval_rows: int = 0) -> Objective:
    """The objective; the best conceivable value of a metric is guessed from what was seen: 1, 100, or twice the best.

    A metric that is a share of rows cannot be told from its ceiling within half a row, so the ceiling lies one row above.
    """
    if spec.objective == "eval_loss":
        return Objective().with_floor(trials)
    if spec.goal == "minimize":
        return Objective(metric=spec.objective, goal="minimize").with_floor(trials)
    seen = max((value for trial in trials if (value := metric_of(trial, spec.objective)) is not None), default=0.0)
    top = 1.0 if seen <= 1 else 100.0 if seen <= 100 else 2 * seen
    return Objective(metric=spec.objective, goal="maximize", ceiling=top * (1 + 1 / max(num_eval_rows, 100)))


def metric_of(trial: Trial, name: str) -> float | None:
    """A metric of a finished trial; None where it is not finite."""
    value = trial.outcome.metrics.get(name) if trial.outcome is not None and trial.ranks else None
    return value if value is not None and math.isfinite(value) else None


def metric_noise_percent(objective: Objective, trials: Sequence[Trial], *, num_eval_rows: int) -> float | None:
    """Repeat noise of a share of rows, in % of its distance from the ceiling; None for a loss.

    The binomial standard deviation of the best value seen: sqrt(p (1 - p) / n).
    """
    if objective.metric is None or objective.goal == "minimize" or num_eval_rows < 1:
        return None
    top = objective.ceiling / (1 + 1 / max(num_eval_rows, 100))
    values = [value for trial in trials if (value := metric_of(trial, objective.metric)) is not None]
    share = min(max(max(values, default=0.5 * top) / top, 0.0), 1.0)
    spread = math.sqrt(max(share * (1 - share), 0.25 / num_eval_rows) / num_eval_rows)
    return 100 * spread * top / max(objective.ceiling - share * top, 1e-9)
