"""All evidence on best learning rates as measurements for the fit: the sweep, published optima, a ratio, and practice of encoders."""

from __future__ import annotations

import math
from collections.abc import Sequence

from finestep.knowledge.models import known_model, lineage
from finestep.knowledge.optima import MeasuredOptimum, measured_optima
from finestep.knowledge.packaged import practice
from finestep.knowledge.sweep import SWEEP_ALPHA, SWEEP_BATCH, SWEEP_STEPS, SweepCell, sweep_cells
from finestep.rules.effective_size import effective_parameters
from finestep.rules.rate_fit import Measurement
from finestep.rules.rate_setting import RateSetting, dense_equivalent
from finestep.rules.variants import effective_alpha

SWEEP = "tinker-sweep"
GRADE_SD = {"A": 0.1, "B": 0.15, "C": 0.5}
"""How far a measured best may lie from the true one of its setting, dex: half a step of a grid of x2, more where less is said."""
FITTED_GRADES = ("A", "B")
"""A best at the edge of its grid says only a direction, and some do not state their setting: shown beside the law, not fitted."""
LORA_OVER_FULL, LORA_OVER_FULL_SD = math.log10(9.8), 0.15
"""Fitted by its authors over 14 Llama and Qwen models (evidence `lora-without-regret`)."""
RATIO_SIZES = (3.0, 30.0)
PRACTICE_SD = 0.25
PRACTICE_ENCODERS = (
    ("encoder full", "full-encoder", 0.11),
    ("encoder full", "full-encoder", 0.335),
    ("encoder lora", "lora-encoder", 0.125),
)
PRACTICE_STEPS, PRACTICE_BATCH, PRACTICE_RANK, PRACTICE_ALPHA = 2_000, 32, 8, 16.0
"""Published encoder runs: GLUE's geometric mean at three epochs of batch 32, and RoBERTa's usual adapter."""
_GRID_RATIO = 10 / 3 + 0.01


def evidence_cases() -> list[Measurement]:
    """Everything that the law is fitted on."""
    published = [published_case(row) for row in measured_optima() if row.origin.grade in FITTED_GRADES]
    return [*sweep_cases(sweep_cells()), *published, *ratio_cases(), *practice_cases()]


def sweep_cases(cells: Sequence[SweepCell]) -> list[Measurement]:
    """One case for each cell of the sweep that brackets its best rate."""
    return [sweep_case(cell, best) for cell in cells if (best := bracketed(cell)) is not None]


def sweep_case(cell: SweepCell, log_rate: float) -> Measurement:
    """A cell of the sweep as a case."""
    name = f"{cell.model} rank {cell.rank}"
    return Measurement(name, sweep_setting(cell), log_rate, GRADE_SD["A"], SWEEP, cell.model)


def sweep_setting(cell: SweepCell) -> RateSetting:
    """What was trained in a cell."""
    size = dense_equivalent(cell.num_parameters, cell.num_active_parameters)
    return RateSetting("lora", size, SWEEP_BATCH, SWEEP_STEPS, cell.rank, SWEEP_ALPHA, family=cell.lineage)


def published_case(row: MeasuredOptimum) -> Measurement:
    """A published optimum as a case."""
    log_rate = math.log10(row.learning_rate)
    return Measurement(
        row.id, published_setting(row), log_rate, GRADE_SD[row.origin.grade], row.origin.cluster, row.model
    )


def published_setting(row: MeasuredOptimum) -> RateSetting:
    """What was trained there.

    Raises:
        LookupError: the model is neither in the table of known models nor has `params`.
    """
    facts = known_model(row.model)
    params = effective_parameters(facts) if facts else row.params
    if not params:
        raise LookupError(f"the model {row.model} of {row.id} is missing from models.jsonl")
    is_encoder, rank = row.architecture == "encoder", row.rank or 16
    is_rslora = row.variant == "rslora"
    return RateSetting(
        ("encoder " if is_encoder else "") + row.method,  # type: ignore[arg-type]
        dense_equivalent(params, facts.num_active_parameters if facts else None),
        row.run.batch,
        row.run.steps,
        rank,
        effective_alpha(row.alpha or 32.0, rank, rslora=is_rslora),
        variant="lora" if is_rslora else row.variant,
        family=lineage(facts) if facts else None,
        num_labels=row.run.num_labels or 2,
        constant_rate=row.run.constant_rate,
    )


def ratio_cases() -> list[Measurement]:
    """LoRA's best rate over that of full fine-tuning, as fitted by its authors, at two sizes of theirs."""
    out = []
    for size in RATIO_SIZES:
        full, lora = (RateSetting(group, size, SWEEP_BATCH, SWEEP_STEPS, 32) for group in ("full", "lora"))
        name = f"full over LoRA at {size:g}B"
        out.append(Measurement(name, full, -LORA_OVER_FULL, LORA_OVER_FULL_SD, "lora-without-regret", "", over=lora))
    return out


def practice_cases() -> list[Measurement]:
    """What published encoder runs use, as one more source: nobody measured encoders with few classes densely enough."""
    out = []
    for group, fit_name, size in PRACTICE_ENCODERS:
        fit = practice()[fit_name]
        rate = fit["intercept"] + fit["slope"] * math.log10(size * 1e9)
        setting = RateSetting(group, size, PRACTICE_BATCH, PRACTICE_STEPS, PRACTICE_RANK, PRACTICE_ALPHA)  # type: ignore[arg-type]
        out.append(
            Measurement(f"practice, {group}, {size:g}B", setting, rate, PRACTICE_SD, "practice", f"practice {size:g}B")
        )
    return out


def bracketed(cell: SweepCell) -> float | None:
    """log10 of a cell's best rate, or None where the sweep does not bracket it.

    With finite neighbours on both sides it is the vertex of the parabola through three points; where the next higher
    rate diverged it is the best grid point itself.
    """
    losses = [math.inf if loss is None else loss for _, loss in cell.points]
    best = losses.index(min(losses))
    if best in (0, len(cell.points) - 1):
        return None
    (left, left_loss), (rate, loss), (right, right_loss) = cell.points[best - 1 : best + 2]
    if right_loss is None:
        return math.log10(rate) if right / rate <= _GRID_RATIO else None
    if left_loss is None or loss is None:
        return None
    return vertex(((math.log10(left), left_loss), (math.log10(rate), loss), (math.log10(right), right_loss)))


def vertex(points: Sequence[tuple[float, float]]) -> float:
    """Where the parabola through three points is lowest."""
    (x0, y0), (x1, y1), (x2, y2) = points
    left, right = (y1 - y0) / (x1 - x0), (y2 - y1) / (x2 - x1)
    curvature = (right - left) / (x2 - x0)
    return 0.5 * (x0 + x1) - left / (2.0 * curvature)
