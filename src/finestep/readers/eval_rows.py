"""Evaluations as they come from a file, one set of them at a time, to a series."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field

import numpy as np

from finestep.diagnosis.training_log import Column, EvalSeries
from finestep.readers.limits import MAX_METRICS, MISSING
from finestep.readers.run_boundaries import merge_equal_steps


@dataclass
class EvalRows:
    """Evaluations on one set, in the order of the file; `order` is the row of the table that each stands in."""

    order: array[float] = field(default_factory=lambda: array("d"))
    step: array[float] = field(default_factory=lambda: array("d"))
    epoch: array[float] = field(default_factory=lambda: array("d"))
    loss: array[float] = field(default_factory=lambda: array("d"))
    metrics: dict[str, list[tuple[int, float]]] = field(default_factory=dict)


def loss_of(found: dict[str, float]) -> float:
    """The loss of an evaluation, from its perplexity where that is all that was logged."""
    if "loss" in found:
        return found["loss"]
    perplexity = found.get("perplexity", MISSING)
    return float(np.log(perplexity)) if perplexity > 0 else MISSING


def add_metrics(rows: EvalRows, found: dict[str, float]) -> None:
    """Keep what else was measured in the last evaluation."""
    position = len(rows.loss) - 1
    for name, value in found.items():
        if name != "loss" and (name in rows.metrics or len(rows.metrics) < MAX_METRICS):
            rows.metrics.setdefault(name, []).append((position, value))


def eval_series(
    name: str, rows: EvalRows, bound: tuple[int, int], steps_in_order: Column, chosen: Column, *, has_notes: bool
) -> EvalSeries:
    """The evaluations of one run, one for each step.

    An evaluation has its own step unless the table gave up that counter (`chosen` is NaN there) or counted anew (`has_notes`); then it
    gets the step of the training row before it.
    """
    order = np.asarray(rows.order).astype(int)
    mine = (order >= bound[0]) & (order < bound[1])
    position = np.clip(order, 0, max(len(steps_in_order) - 1, 0))
    own = np.where(np.isnan(chosen[position]), np.nan, np.asarray(rows.step)) if len(chosen) else np.asarray(rows.step)
    step = np.where(np.isnan(own) | has_notes, steps_in_order[position], own) if len(steps_in_order) else own
    table = np.column_stack([step, np.asarray(rows.epoch), np.asarray(rows.loss), *_metric_columns(rows)])[mine]
    table = table[np.argsort(table[:, 0], kind="stable")]
    table = merge_equal_steps(table, 0)
    has_loss = ~np.isnan(table[:, 2])
    table = table[has_loss if has_loss.any() else ~np.isnan(table[:, 3:]).all(axis=1)]
    metrics = {key: table[:, 3 + index] for index, key in enumerate(rows.metrics)}
    return EvalSeries(name, table[:, 0], table[:, 1], table[:, 2], metrics)


def _metric_columns(rows: EvalRows) -> list[Column]:
    columns = []
    for pairs in rows.metrics.values():
        column = np.full(len(rows.loss), np.nan)
        positions, values = zip(*pairs, strict=True)
        column[list(positions)] = values
        columns.append(column)
    return columns
