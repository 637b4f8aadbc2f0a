"""Plots 3 and 4: loss, gradient norm and learning rate of each trial, shortened without losing spikes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from pydantic import BaseModel, ConfigDict, Field

from finestep import wording
from finestep.flat import Flat, Part
from finestep.report.series import debiased_ema, kept_indices, rounded
from finestep.trial import EvalRecord, StepRecord, Trial

POINTS_PER_SERIES = 1_000
POINTS_PER_PAGE = 12_000
FEWEST_POINTS = 100
MOST_CURVES = 120
MANY_TRIALS, FEWER_CURVES, POINTS_OF_MANY = 1_000, 30, 4_000
"""A page with so many trials keeps fewer curves, so that it stays small."""
EMA_SHARE = 0.05
"""The moving average spans this share of a run's steps, so that runs of different length are smoothed alike."""


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True)


class EvalPoint(_Value):
    """One evaluation on the validation rows."""

    step: int
    tokens: int
    seconds: float
    loss: float | None


class BadPoint(_Value):
    """A step or evaluation whose number was not finite."""

    step: int
    tokens: int
    seconds: float
    what: str = Field(description="E.g. `loss NaN`.")


class StepColumns(Part):
    """What was logged at the steps that are kept; parallel, None where a value was not finite."""

    step: tuple[int, ...]
    tokens: tuple[int, ...]
    seconds: tuple[float | None, ...]
    loss: tuple[float | None, ...]
    smooth: tuple[float | None, ...]
    grad_norm: tuple[float | None, ...]
    rate: tuple[float | None, ...]


class Curve(Flat):
    """The step log of one trial; parallel tuples, None where a value was not finite."""

    trial: int
    label: str
    learning_rate: float
    batch: int
    state: str
    color: float = Field(description="Place of the learning rate between the lowest (0) and the highest (1), by rank.")
    shown: bool = Field(description="Drawn at first; the legend switches it.")
    num_steps: int
    steps: StepColumns
    evals: tuple[EvalPoint, ...]
    bad: tuple[BadPoint, ...] = Field(description="The first value that is not finite of each kind.")
    clip: float | None = Field(description="The gradient norm is clipped to this; None = off.")
    clipped_share: float | None = Field(description="Share of the steps that were clipped; None without steps.")


def build_curves(
    trials: Sequence[Trial],
    steps: Mapping[int, Sequence[StepRecord]],
    evaluations: Mapping[int, Sequence[EvalRecord]],
    *,
    shown: frozenset[int],
    is_own: bool = True,
) -> tuple[Curve, ...]:
    """A curve for each trial that left a record; the more there are, the fewer points each gets.

    Of more than `MOST_CURVES` trials only the shown and the last ones get a curve; the table lists all.

    Args:
        is_own: finestep trained, so that the recipe says how gradients were clipped.
    """
    logged = [trial for trial in trials if steps.get(trial.number) or evaluations.get(trial.number)]
    most, page = (MOST_CURVES, POINTS_PER_PAGE) if len(trials) <= MANY_TRIALS else (FEWER_CURVES, POINTS_OF_MANY)
    first = sorted(logged, key=lambda trial: (trial.number not in shown, -trial.number))[:most]
    logged = sorted(first, key=lambda trial: trial.number)
    points = min(POINTS_PER_SERIES, max(FEWEST_POINTS, page // max(1, len(logged))))
    rates = sorted({trial.recipe.learning_rate for trial in logged})
    return tuple(
        _curve(
            trial,
            steps.get(trial.number, ()),
            evaluations.get(trial.number, ()),
            max_points=points,
            color=rates.index(trial.recipe.learning_rate) / max(1, len(rates) - 1),
            shown=trial.number in shown,
            is_own=is_own,
        )
        for trial in logged
    )


def _curve(
    trial: Trial,
    records: Sequence[StepRecord],
    evaluations: Sequence[EvalRecord],
    *,
    max_points: int,
    color: float,
    shown: bool,
    is_own: bool,
) -> Curve:
    losses, norms = [r.loss for r in records], [r.grad_norm for r in records]
    smooth = debiased_ema(losses, span=EMA_SHARE * len(records))
    tokens = _running_total([r.num_tokens for r in records])
    kept = kept_indices([losses, norms], max_points=max_points)
    recipe = trial.recipe
    return Curve(
        trial=trial.number,
        label=f"#{trial.number} · {wording.learning_rate(recipe.learning_rate)} · batch {recipe.effective_batch_size}",
        learning_rate=recipe.learning_rate,
        batch=recipe.effective_batch_size,
        state=wording.STATE_WORDS[trial.state],
        color=round(color, 4),
        shown=shown,
        num_steps=len(records),
        steps=StepColumns(
            step=tuple(records[i].step for i in kept),
            tokens=tuple(tokens[i] for i in kept),
            seconds=tuple(_seconds(records[i].elapsed_s) for i in kept),
            loss=tuple(rounded(losses[i], digits=4) for i in kept),
            smooth=tuple(rounded(smooth[i], digits=4) for i in kept),
            grad_norm=tuple(rounded(norms[i], digits=3) for i in kept),
            rate=tuple(rounded(records[i].learning_rate, digits=3) for i in kept),
        ),
        evals=tuple(_eval_point(record) for record in evaluations),
        bad=tuple(_bad_points(records, tokens, evaluations)),
        clip=recipe.optimizer.max_grad_norm if is_own else None,
        clipped_share=sum(r.clipped for r in records) / len(records) if records and is_own else None,
    )


def _running_total(numbers: Sequence[int]) -> list[int]:
    total, totals = 0, []
    for number in numbers:
        total += number
        totals.append(total)
    return totals


def _seconds(value: float) -> float | None:
    return round(value, 1) if math.isfinite(value) else None


def _eval_point(record: EvalRecord) -> EvalPoint:
    loss = rounded(record.eval_loss, digits=6)
    return EvalPoint(step=record.step, tokens=record.num_tokens, seconds=_seconds(record.elapsed_s) or 0.0, loss=loss)


def _bad_points(
    records: Sequence[StepRecord], tokens: Sequence[int], evaluations: Sequence[EvalRecord]
) -> list[BadPoint]:
    found = []
    for name in ("loss", "grad_norm"):
        for record, seen in zip(records, tokens, strict=True):
            value = getattr(record, name)
            if not math.isfinite(value):
                what = f"{wording.name(name)} {wording.loss(value)}"
                seconds = _seconds(record.elapsed_s) or 0.0
                found.append(BadPoint(step=record.step, tokens=seen, seconds=seconds, what=what))
                break
    for evaluation in evaluations:
        if not math.isfinite(evaluation.eval_loss):
            what = f"validation loss {wording.loss(evaluation.eval_loss)}"
            seconds = _seconds(evaluation.elapsed_s) or 0.0
            found.append(BadPoint(step=evaluation.step, tokens=evaluation.num_tokens, seconds=seconds, what=what))
            break
    return found


def curves_finding(curves: Sequence[Curve], best: Trial | None) -> str:
    """The title of plot 3: the lowest validation loss of the best run, and when it was reached."""
    if not curves:
        return "No step log was kept"
    curve = next((curve for curve in curves if best and curve.trial == best.number), None)
    points = [point for point in curve.evals if point.loss is not None] if curve else []
    if curve is None or not points:
        return f"The course of {wording.runs(len(curves))}"
    lowest = min(points, key=lambda point: point.loss or 0.0)
    how_far = f"{wording.count(lowest.tokens)} tokens" if lowest.tokens else f"{lowest.step:,} steps"
    when = "at its end" if lowest is points[-1] else f"after {how_far}, then rises"
    return f"Run {curve.trial} reaches its lowest validation loss, {wording.loss(lowest.loss)}, {when}"


def gradient_finding(curves: Sequence[Curve], best: Trial | None) -> str:
    """The title of plot 4: how often the best run (or, without one, any run) was clipped."""
    logged = [curve for curve in curves if curve.clipped_share is not None]
    if not logged:
        norms = any(value is not None for curve in curves for value in curve.steps.grad_norm)
        return "Gradient norm and learning rate" if norms else "Learning rate"
    curve = next((curve for curve in logged if best and curve.trial == best.number), None)
    if curve is None:
        most = max(logged, key=lambda c: c.clipped_share or 0.0)
        return f"Up to {wording.share(most.clipped_share or 0.0)} of the steps of a run were clipped (run {most.trial})"
    if curve.clip is None:
        return f"Gradient clipping was off in run {curve.trial}"
    share = wording.share(curve.clipped_share or 0.0)
    return f"Run {curve.trial}: {share} of the steps were clipped to norm {curve.clip:g}"
