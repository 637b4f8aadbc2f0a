"""Plot 1: final validation loss over learning rate, a line for each effective batch size; diverged runs stand apart."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from finestep import wording
from finestep.report import axes
from finestep.report.measured import final_loss, has_fallen
from finestep.trial import Trial, TrialState

WORST_SHOWN = 4.0
"""Losses farther above the best than this many times the upper quartile's distance are drawn at the upper edge."""


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True)


class BasinPoint(_Value):
    """One run that ended with a validation loss."""

    trial: int
    x: float = Field(description="log10 of the learning rate.")
    loss: float
    batch: int
    fidelity: float
    off_scale: bool = Field(description="Above the drawn range; shown at its upper edge.")


class BasinLine(_Value):
    """The runs of one effective batch size at one fidelity; the path goes through the mean over seeds."""

    batch: int
    batch_index: int = Field(description="Place among the batch sizes of the study; chooses colour and symbol.")
    fidelity: float
    path: tuple[tuple[float, float], ...]
    points: tuple[BasinPoint, ...]


class FallenRun(_Value):
    """One run without a loss that counts; never part of a line."""

    trial: int
    x: float
    batch: int
    batch_index: int
    state: TrialState
    reason: str


class Basin(_Value):
    """Everything that plot 1 needs."""

    lines: tuple[BasinLine, ...]
    fallen: tuple[FallenRun, ...]
    batches: tuple[int, ...]
    fidelities: tuple[float, ...] = Field(description="Largest first.")
    x_range: tuple[float, float]
    y_range: tuple[float, float]
    x_ticks: tuple[float, ...]
    best: int | None
    best_name: Literal["best", "chosen"] = Field(description="`chosen` where another setting measured a lower loss.")
    baseline: int | None
    warning: str = Field(description="Why the optimum may lie outside of what was tried; empty when it is bracketed.")


def build_basin(trials: Sequence[Trial], *, best: Trial | None, baseline: Trial | None, is_lowest: bool) -> Basin:
    """Plot 1 of a study; ranges are chosen so that one bad run does not flatten the rest.

    Args:
        is_lowest: no other setting measured a lower loss than the best run.
    """
    batches = tuple(sorted({trial.recipe.effective_batch_size for trial in trials}))
    x_range = axes.padded([_x(trial) for trial in trials] or [-4.0], share=0.07, least=0.12)
    y_range = _loss_range([loss for trial in trials if (loss := final_loss(trial)) is not None], baseline)
    lines = tuple(_lines(trials, batches, y_range[1]))
    return Basin(
        lines=lines,
        fallen=tuple(_fallen(trial, batches) for trial in trials if has_fallen(trial)),
        batches=batches,
        fidelities=tuple(sorted({line.fidelity for line in lines}, reverse=True)),
        x_range=x_range,
        y_range=y_range,
        x_ticks=tuple(axes.log_ticks(*x_range)),
        best=best.number if best else None,
        best_name="best" if is_lowest else "chosen",
        baseline=baseline.number if baseline else None,
        warning=edge_warning(trials, best),
    )


def _x(trial: Trial) -> float:
    return round(math.log10(trial.recipe.learning_rate), 6)


def _loss_range(losses: Sequence[float], baseline: Trial | None) -> tuple[float, float]:
    if not losses:
        return 0.0, 1.0
    ordered = sorted(losses)
    lowest, quartile = ordered[0], ordered[3 * len(ordered) // 4]
    before = final_loss(baseline) if baseline else None
    ceiling = max(lowest + WORST_SHOWN * (quartile - lowest), lowest if before is None else before)
    shown = [loss for loss in ordered if loss <= ceiling]
    low, high = axes.padded(shown, share=0.12, least=max(0.002 * abs(lowest), 1e-6))
    floor = low - 0.1 * (high - low)  # room for the label under the best point
    return (max(0.0, floor) if lowest >= 0 else floor), high  # a loss that is never below zero has no axis below zero


def _lines(trials: Sequence[Trial], batches: Sequence[int], ceiling: float) -> list[BasinLine]:
    groups: defaultdict[tuple[int, float], list[BasinPoint]] = defaultdict(list)
    for trial in trials:
        loss = final_loss(trial)
        if loss is not None:
            batch = trial.recipe.effective_batch_size
            off_scale = loss > ceiling
            groups[(batch, trial.fidelity)].append(
                BasinPoint(
                    trial=trial.number,
                    x=_x(trial),
                    loss=loss,
                    batch=batch,
                    fidelity=trial.fidelity,
                    off_scale=off_scale,
                )
            )
    return [
        BasinLine(batch=b, batch_index=batches.index(b), fidelity=f, path=_path(points), points=tuple(points))
        for (b, f), points in sorted(groups.items())
    ]


def _path(points: Sequence[BasinPoint]) -> tuple[tuple[float, float], ...]:
    losses: defaultdict[float, list[float]] = defaultdict(list)
    for point in points:
        losses[point.x].append(point.loss)
    return tuple((x, sum(values) / len(values)) for x, values in sorted(losses.items()))


def _fallen(trial: Trial, batches: Sequence[int]) -> FallenRun:
    batch = trial.recipe.effective_batch_size
    reason = trial.outcome.reason if trial.outcome else ""
    return FallenRun(
        trial=trial.number,
        x=_x(trial),
        batch=batch,
        batch_index=batches.index(batch),
        state=trial.state,
        reason=reason,
    )


def edge_warning(trials: Sequence[Trial], best: Trial | None) -> str:
    """Says when no run lies beyond the best learning rate on one side; a diverged run bounds it, a crash does not."""
    if best is None:
        return ""
    decided = [trial for trial in trials if final_loss(trial) is not None or trial.state == "diverged"]
    beside = [trial for trial in decided if trial.recipe.effective_batch_size == best.recipe.effective_batch_size]
    side = _open_side(beside, best)
    if not side:
        return ""
    rate = wording.learning_rate(best.recipe.learning_rate)
    tried = f"no learning rate {side} {rate} was tried"
    if _open_side(decided, best):
        return f"The best run sits on the edge: {tried}, so a better one may lie beyond."
    return f"At batch {best.recipe.effective_batch_size} {tried}, so a better one may lie beyond."


def _open_side(trials: Sequence[Trial], best: Trial) -> str:
    rates = [trial.recipe.learning_rate for trial in trials]
    below = any(rate < best.recipe.learning_rate for rate in rates)
    above = any(rate > best.recipe.learning_rate for rate in rates)
    if not below and not above:
        return "below or above"
    return "" if below and above else ("below" if above else "above")


def basin_finding(
    trials: Sequence[Trial], best: Trial | None, lower: tuple[Trial, float] | None, *, metric: str | None = None
) -> str:
    """The title of plot 1: where the minimum is, what was measured `lower` (and by how many nats), and how many runs fell.

    Args:
        metric: what was optimised in place of the loss; then losses do not say who is best.
    """
    diverged = sum(trial.state == "diverged" for trial in trials)
    fallen = f"{diverged} of {wording.runs(len(trials))} diverged" if diverged else ""
    if best is None:
        return f"{_without_best(trials)}{'; ' + fallen if fallen else ''}"
    if metric is not None:
        return f"Chosen by {metric.replace('_', ' ')}: {_place(best)}; {fallen or 'no run diverged'}"
    if lower is None:
        return f"Best: {_place(best)}; {fallen or 'no run diverged'}"
    other, gap = lower
    where = _place(other) if _place(other) != _place(best) else f"run {other.number} there"
    return f"Chosen: {_place(best)}; {where} measured {gap:.4f} lower" + (f"; {fallen}" if fallen else "")


def _without_best(trials: Sequence[Trial]) -> str:
    """Short runs are measured before a long one is: they say where the best rate lies, and not how good it is."""
    measured = sum(final_loss(trial) is not None and not trial.is_stopped_by_hand for trial in trials)
    if not measured:
        return "No run has a validation loss yet"
    return f"No run of full length has ended; {wording.runs(measured)} of other lengths {'have' if measured > 1 else 'has'}"


def _place(trial: Trial) -> str:
    return f"{wording.learning_rate(trial.recipe.learning_rate)} at batch {trial.recipe.effective_batch_size}"
