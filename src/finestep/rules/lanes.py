"""How many trials should share one forward and backward: the law of a shared pass, a decision and its reason in words; it measures nothing.

A step of one trial costs t = F + c x tokens: F is what every step pays once (launches, Python, weight reads), c the arithmetic of a
token. K trials in one step cost F + K c x tokens, so that sharing gains (1 + tau) / (1/K + tau) with tau = c x tokens / F.
It removes fixed cost and no arithmetic. Checked on a 6.8M Llama on one CPU thread: 1.74, 1.20, 1.05 and 1.01 predicted for
64, 256, 1,024 and 4,096 tokens; 1.84, 1.15-1.18, 1.05-1.08 and 0.98 measured (K = 8).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from finestep.errors import BadInput

LEAST_GAIN = 1.03
"""Below this a pack is not worth its memory and its shared fate."""
NEAR_BEST = 0.95
"""The smallest pack within 5 % of the best one is taken: it needs less memory and leaves the cache less."""
LEAST_GAIN_OF_PROCESSES = 1.2
"""A second process loads everything once more."""
TIE = 0.03
"""Of numbers of threads that are equally fast within this, the smallest is taken."""
CPU_TOKENS_ALONE = 1000
"""From so many tokens a step (its whole effective batch) one trial keeps a CPU's core busy. Measured: K = 8 gained 1.05x, 0.98x (one
thread) and 0.92x (two threads) at 1,024 tokens and more, where the law alone promised 1.15x: activations leave the cache."""
CPU_TOKENS_TOGETHER = 4096
"""Tokens of a whole pack on a CPU; the rate of matrix products fell by a third above 8,192 rows, and was flat up to 4,096."""


@dataclass(frozen=True, slots=True)
class StepCost:
    """Seconds of one trial's micro-step: a fixed part and a part for every token."""

    fixed_s: float
    per_token_s: float

    def seconds(self, tokens: float, *, lanes: int = 1) -> float:
        """Predicted seconds of a step in which each of `lanes` trials has `tokens` tokens."""
        return self.fixed_s + lanes * self.per_token_s * tokens


def fit_step_cost(timings: Sequence[tuple[int, float]]) -> StepCost:
    """F and c from (tokens, seconds) of one trial's step; neither is ever negative.

    Least squares of relative errors, since a clock is off by a share of what it measures. Two different token counts are enough.

    >>> cost = fit_step_cost([(64, 0.050), (256, 0.128)])
    >>> round(cost.fixed_s, 4), round(cost.per_token_s, 6)
    (0.024, 0.000406)
    """
    points = [(float(tokens), float(seconds)) for tokens, seconds in timings]
    _check(points)
    weights = [1.0 / seconds**2 for _, seconds in points]
    total = sum(weights)
    mean_x = sum(w * x for w, (x, _) in zip(weights, points, strict=True)) / total
    mean_y = sum(w * y for w, (_, y) in zip(weights, points, strict=True)) / total
    spread = sum(w * (x - mean_x) ** 2 for w, (x, _) in zip(weights, points, strict=True))
    slope = sum(w * (x - mean_x) * (y - mean_y) for w, (x, y) in zip(weights, points, strict=True)) / spread
    if slope <= 0:
        return StepCost(mean_y, 0.0)
    if mean_y < slope * mean_x:
        through_zero = sum(w * x * y for w, (x, y) in zip(weights, points, strict=True))
        return StepCost(0.0, through_zero / sum(w * x * x for w, (x, _) in zip(weights, points, strict=True)))
    return StepCost(mean_y - slope * mean_x, slope)


@dataclass(frozen=True, slots=True)
class PackShape:
    """Trials in one pass (1 = do not pack), rows of each in it, gain over the best way one by one, and why in one sentence."""

    lanes: int
    rows: int
    gain: float
    why: str = ""


def choose_shape(
    cost: StepCost,
    *,
    tokens_of_rows: Mapping[int, float],
    batch: int,
    wanted: int,
    row_limit: int | None = None,
    device: str = "cpu",
) -> PackShape:
    """The pack that makes a whole effective batch cheapest, when the micro-batch may be cut too.

    A micro-batch of few rows of like length carries little padding but pays the fixed cost often; a pack pays it once for all
    its trials, so that it can afford small micro-batches: a trial's step costs batch / rows x (F / lanes + c x tokens).

    Args:
        tokens_of_rows: rows of a micro-batch -> its tokens with padding, on average.
        batch: effective batch in rows.
        wanted: trials that may wait at the same time.
        row_limit: rows of a pass that memory is known to allow.
        device: `cpu`, `cuda` or `mps`.
    """
    if wanted < 1 or not tokens_of_rows or (row_limit is not None and row_limit < 1):
        raise BadInput(
            "sharing a pass needs at least one trial and one row", value=(wanted, dict(tokens_of_rows), row_limit)
        )

    def seconds(lanes: int, rows: int) -> float:
        return math.ceil(batch / rows) * cost.seconds(tokens_of_rows[rows], lanes=lanes) / lanes

    step_tokens = min(tokens_of_rows[rows] * batch / rows for rows in tokens_of_rows)

    def fits(lanes: int, rows: int) -> bool:
        busy = device == "cpu" and (
            step_tokens >= CPU_TOKENS_ALONE or lanes * tokens_of_rows[rows] > CPU_TOKENS_TOGETHER
        )
        return not busy and (row_limit is None or lanes * rows <= row_limit)

    alone_rows = min(tokens_of_rows, key=lambda rows: seconds(1, rows))
    alone = seconds(1, alone_rows)
    shapes = [
        PackShape(lanes, rows, alone / seconds(lanes, rows))
        for lanes in range(2, wanted + 1)
        for rows in tokens_of_rows
        if fits(lanes, rows)
    ]
    best = max((shape.gain for shape in shapes), default=0.0)
    costs = _costs(cost, tokens_of_rows[alone_rows], alone_rows)
    if best < LEAST_GAIN:
        return PackShape(1, alone_rows, 1.0, _why_alone(costs, best, step_tokens, wanted, row_limit, device))
    near = (one for one in shapes if one.gain >= max(NEAR_BEST * best, LEAST_GAIN))
    shape = min(near, key=lambda one: (one.lanes, -one.gain))
    return replace(shape, why=f"{shape.lanes} trials a pass, {shape.rows} rows each: {costs}")


@dataclass(frozen=True, slots=True)
class Crew:
    """Worker processes at the same time, CPU threads of each, and the work that they do at most in the time of the best one alone."""

    processes: int
    threads: int
    gain: float = 1.0

    def study_seconds(self, alone_s: float, *, last_s: float) -> float:
        """Time of a study that takes `alone_s` one by one: its last run, of `last_s`, keeps one process busy (Graham 1966).

        >>> Crew(2, 1, 2.0).study_seconds(60, last_s=10)
        35.0
        """
        return alone_s / self.gain + (1 - 1 / self.processes) * last_s

    def share(self, trials: int) -> int:
        """Of so many trials under way, those of each process: equally many, so that none waits for another at the end."""
        return trials // self.processes

    @property
    def words(self) -> str:
        """What more than one process do, in words; nothing for one."""
        if self.processes == 1:
            return ""
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        return f"{self.processes} at the same time, {threads} each: at most {self.gain:.2g} times the work of one"


def choose_processes(seconds: Mapping[int, float], *, cores: int, wanted: int) -> Crew:
    """How to spread a CPU's cores over trials: threads share the work of one trial, processes train several.

    Threads of a small model mostly wait for each other, and then whole trials side by side do more work in the same time. They
    share memory bandwidth and cache, so that the gain is an upper bound.

    Args:
        seconds: number of threads -> seconds of a step of one trial alone.
        cores: threads that the machine runs at the same time.
        wanted: trials that may be under way at the same time.

    >>> choose_processes({1: 0.010, 2: 0.013}, cores=2, wanted=3)
    Crew(processes=2, threads=1, gain=2.0)
    >>> choose_processes({1: 0.100, 2: 0.056, 4: 0.032, 8: 0.020}, cores=8, wanted=3)
    Crew(processes=2, threads=4, gain=1.25)
    >>> choose_processes({1: 0.100, 2: 0.052}, cores=2, wanted=3)
    Crew(processes=1, threads=2, gain=1.0)
    """
    fastest = min(seconds.values())
    crews = [
        Crew(processes, threads, processes * fastest / each)
        for threads, each in seconds.items()
        for processes in range(2, min(cores // threads, wanted) + 1)
    ]
    best = max((crew.gain for crew in crews), default=0.0)
    if best < LEAST_GAIN_OF_PROCESSES:
        return Crew(1, min(threads for threads, each in seconds.items() if each <= fastest * (1 + TIE)))
    near = (crew for crew in crews if crew.gain >= NEAR_BEST * best)
    return min(near, key=lambda crew: (crew.processes, crew.threads))


def _check(points: list[tuple[float, float]]) -> None:
    if len({tokens for tokens, _ in points}) < 2:
        raise BadInput("two different token counts are needed to tell fixed cost from cost a token", value=points)
    if any(tokens <= 0 or not 0 < seconds < math.inf for tokens, seconds in points):
        raise BadInput("timings are (tokens > 0, seconds > 0)", value=points)


def _costs(cost: StepCost, tokens: float, rows: int) -> str:
    fixed, part = 1000 * cost.fixed_s, 1000 * cost.per_token_s * tokens
    return (
        f"a pass costs {fixed:.3g} ms once and {part:.3g} ms a trial of {rows} rows ({tokens:,.0f} tokens with padding)"
    )


def _why_alone(costs: str, best: float, step_tokens: float, wanted: int, row_limit: int | None, device: str) -> str:
    if wanted == 1:
        return "one trial: nothing to pack"
    if row_limit == 1:
        return "one by one: memory holds no second trial"
    if device == "cpu" and step_tokens >= CPU_TOKENS_ALONE:
        return (
            f"one by one: from {CPU_TOKENS_ALONE:,} tokens a step one trial keeps a core busy ({step_tokens:,.0f} here)"
        )
    return f"one by one: {costs}; sharing it gains too little"
