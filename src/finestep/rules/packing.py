"""How many trials should share one forward and backward: the law of packing, a decision and its reason in words; it measures nothing.

A step of one trial costs t = F + c x tokens: F is what every step pays once (launches, Python, weight reads), c the arithmetic of a
token. K trials in one step cost F + K c x tokens, so that packing gains (1 + tau) / (1/K + tau) with tau = c x tokens / F.
It removes fixed cost and no arithmetic. Checked on a 6.8M Llama on one CPU thread: 1.74, 1.20, 1.05 and 1.01 predicted for
64, 256, 1,024 and 4,096 tokens; 1.84, 1.15-1.18, 1.05-1.08 and 0.98 measured (K = 8).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from finestep.errors import BadInput

LEAST_GAIN = 1.03
"""Below this a pack is not worth its memory and its shared fate."""
NEAR_BEST = 0.95
"""The smallest pack within 5 % of the best one is taken: it needs less memory and leaves the cache less."""
CPU_TOKENS_ALONE = 1000
"""From so many tokens a step one trial keeps a CPU's cores busy. Measured: K = 8 gained 1.05x, 0.98x (one thread) and 0.92x
(two threads) at 1,024 tokens and more, where the law alone promised 1.15x: activations leave the cache."""
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

    def fixed_share(self, tokens: float) -> float:
        """Share of one trial's step that packing can remove."""
        return self.fixed_s / self.seconds(tokens)


@dataclass(frozen=True, slots=True)
class PackingChoice:
    """Trials in one pack (1 = do not pack), the predicted gain over one by one, and why in one sentence."""

    lanes: int
    gain: float
    why: str


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


def packing_gain(cost: StepCost, *, tokens: float, lanes: int) -> float:
    """How many times faster `lanes` trials are together than one after the other.

    >>> round(packing_gain(StepCost(0.024, 0.00041), tokens=64, lanes=8), 2)
    1.72
    """
    return lanes * cost.seconds(tokens) / cost.seconds(tokens, lanes=lanes)


def choose_lanes(
    timings: Sequence[tuple[int, float]],
    *,
    tokens: float,
    wanted: int,
    memory_limit: int | None = None,
    device: str = "cpu",
) -> PackingChoice:
    """How many of `wanted` trials should run in one pack.

    Args:
        timings: (tokens, seconds) of one trial's micro-step, measured for at least two token counts.
        tokens: tokens of one trial's micro-step in the runs to come, padding included.
        wanted: trials that are waiting.
        memory_limit: lanes that fit into memory; None = no limit is known.
        device: `cpu`, `cuda` or `mps`.
    """
    if wanted < 1 or tokens <= 0 or (memory_limit is not None and memory_limit < 1):
        raise BadInput(
            "packing needs at least one trial, one token and one lane in memory", value=(wanted, tokens, memory_limit)
        )
    cost = fit_step_cost(timings)
    most = _most_lanes(tokens, wanted, memory_limit, device)
    packs = _number_of_packs(cost, tokens, wanted, most)
    lanes = math.ceil(wanted / packs)
    gain = _gain_of_packs(cost, tokens, wanted, packs)
    if lanes == 1 or gain < LEAST_GAIN:
        return PackingChoice(1, 1.0, _why_alone(cost, tokens, wanted, memory_limit, device))
    return PackingChoice(lanes, gain, _why_packed(cost, tokens, lanes, gain, wanted, memory_limit))


@dataclass(frozen=True, slots=True)
class PackShape:
    """Trials in one pass, rows of each in it, and how many times faster than the best way one by one."""

    lanes: int
    rows: int
    gain: float


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
        row_limit: rows of a pass that memory is known to allow.
    """

    def seconds(lanes: int, rows: int) -> float:
        return math.ceil(batch / rows) * cost.seconds(tokens_of_rows[rows], lanes=lanes) / lanes

    def fits(lanes: int, rows: int) -> bool:
        crowded = device == "cpu" and lanes * tokens_of_rows[rows] > CPU_TOKENS_TOGETHER
        return not crowded and (row_limit is None or lanes * rows <= row_limit)

    alone_rows = min(tokens_of_rows, key=lambda rows: seconds(1, rows))
    alone = seconds(1, alone_rows)
    shapes = [
        PackShape(lanes, rows, alone / seconds(lanes, rows))
        for lanes in range(2, wanted + 1)
        for rows in tokens_of_rows
        if fits(lanes, rows)
    ]
    best = max((shape.gain for shape in shapes), default=0.0)
    if best < LEAST_GAIN:
        return PackShape(1, alone_rows, 1.0)
    return min((one for one in shapes if one.gain >= NEAR_BEST * best), key=lambda one: (one.lanes, -one.gain))


def confirmed(choice: PackingChoice, *, one_lane_s: float, packed_s: float) -> PackingChoice:
    """The choice after a look at the clock: seconds of a step alone and of a step of the whole pack.

    A pack that is measured slower than one trial after the other is given up; the measured gain replaces the predicted one.
    """
    gain = choice.lanes * one_lane_s / packed_s
    if choice.lanes == 1 or gain >= 1.0:
        return PackingChoice(
            choice.lanes, gain, choice.why + f"; measured {gain:.2f}x" if choice.lanes > 1 else choice.why
        )
    why = f"one by one: {choice.lanes} together were measured at {gain:.2f}x, although {choice.gain:.2f}x was predicted"
    return PackingChoice(1, 1.0, why)


def _check(points: list[tuple[float, float]]) -> None:
    if len({tokens for tokens, _ in points}) < 2:
        raise BadInput("two different token counts are needed to tell fixed cost from cost a token", value=points)
    if any(tokens <= 0 or not 0 < seconds < math.inf for tokens, seconds in points):
        raise BadInput("timings are (tokens > 0, seconds > 0)", value=points)


def _most_lanes(tokens: float, wanted: int, memory_limit: int | None, device: str) -> int:
    most = min(wanted, memory_limit or wanted)
    if device != "cpu":
        return most
    return 1 if tokens >= CPU_TOKENS_ALONE else max(1, min(most, int(CPU_TOKENS_TOGETHER // tokens)))


def _number_of_packs(cost: StepCost, tokens: float, wanted: int, most: int) -> int:
    """The largest number of packs (so the smallest packs) within 5 % of the best."""
    fewest = math.ceil(wanted / most)
    best = _gain_of_packs(cost, tokens, wanted, fewest)
    near = [
        packs for packs in range(fewest, wanted + 1) if _gain_of_packs(cost, tokens, wanted, packs) >= NEAR_BEST * best
    ]
    return max(near)


def _gain_of_packs(cost: StepCost, tokens: float, wanted: int, packs: int) -> float:
    """One by one against `packs` packs that hold all wanted trials: every pack pays the fixed cost once."""
    arithmetic = wanted * cost.per_token_s * tokens
    return wanted * cost.seconds(tokens) / (packs * cost.fixed_s + arithmetic)


def _why_packed(cost: StepCost, tokens: float, lanes: int, gain: float, wanted: int, memory_limit: int | None) -> str:
    text = (
        f"{lanes} trials at a time: a step costs {_ms(cost.fixed_s)} once and {_ms(cost.per_token_s * tokens)} a trial "
        f"({tokens:,.0f} tokens), so that sharing the fixed part makes the trials {gain:.2f}x faster"
    )
    limited = memory_limit is not None and memory_limit == lanes < wanted
    return text + (f"; memory allows no more than {lanes}" if limited else "")


def _why_alone(cost: StepCost, tokens: float, wanted: int, memory_limit: int | None, device: str) -> str:
    if wanted == 1:
        return "one trial: nothing to pack"
    if memory_limit == 1:
        return "one by one: memory holds no second trial"
    if device == "cpu" and tokens >= CPU_TOKENS_ALONE:
        return f"one by one: from {CPU_TOKENS_ALONE:,} tokens a step one trial keeps a CPU busy ({tokens:,.0f} here)"
    share = cost.fixed_share(tokens)
    return (
        f"one by one: only {share:.0%} of a step of {tokens:,.0f} tokens is fixed cost, "
        f"so that {wanted} together would gain {packing_gain(cost, tokens=tokens, lanes=wanted):.2f}x at most"
    )


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.3g} ms"
