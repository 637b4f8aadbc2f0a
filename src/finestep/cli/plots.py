"""Two small plots at the end of a study, for a terminal: the loss over the rate, and the curve of the chosen run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.text import Text

from finestep import wording
from finestep.cli.log_report import plot_lines
from finestep.language.catalogue import asked_language, translated
from finestep.report.curves import EMA_SHARE
from finestep.report.series import debiased_ema
from finestep.result import StudyResult, TrialFigures
from finestep.store.study_files import read_records
from finestep.study_layout import STEPS, trial_folder
from finestep.trial import StepRecord

HEIGHT, MOST_WIDTH, LEAST_WIDTH = 8, 72, 30
MARGIN = 12
"""Columns for the labels of the axis, and for the border of the terminal."""
RUN, BEST, FELL, ABOVE = "o", "#", "x", "^"


def print_plots(console: Console, result: StudyResult) -> None:
    """Draw both where there is a terminal that is wide enough, and a chosen run; otherwise nothing."""
    width = min(console.width - MARGIN, MOST_WIDTH)
    best = result.best
    if not console.is_terminal or width < LEAST_WIDTH or best is None:
        return
    for title, lines in (_basin(result, best, width), _curve(result, best, width)):
        if lines:
            console.print(Text(translated(title, asked_language()), style="bold"))
            for line in lines:
                console.print(Text(line, style="dim"), no_wrap=True)


def _basin(result: StudyResult, best: TrialFigures, width: int) -> tuple[str, list[str]]:
    """Loss over rate of the full runs, or of all where they are fewer than three."""
    full = [row for row in result.trials if row.fidelity == 1.0]
    title = "rate against loss (full runs)" if len(full) > 2 else "rate against loss (all lengths)"
    rows = full if len(full) > 2 else result.trials
    return f"{title}: {RUN} run, {BEST} best, {FELL} no result, {ABOVE} higher than drawn", scatter_lines(
        [(row.learning_rate, row.eval_loss, row.trial == best.trial) for row in rows],
        width=width,
    )


def scatter_lines(points: Sequence[tuple[float, float | None, bool]], *, width: int, height: int = HEIGHT) -> list[str]:
    """Points (rate, loss, is the best) in lines of text, the rate on a logarithmic axis; no loss stands in the top line.

    Fewer than two rates make no plot.
    """
    rates = [math.log10(rate) for rate, _, _ in points]
    losses = [loss for _, loss, _ in points if loss is not None and math.isfinite(loss)]
    if len(set(rates)) < 2 or not losses:
        return []
    low, high, left, right = min(losses), _ceiling(losses), min(rates), max(rates)
    grid = [[" "] * width for _ in range(height)]
    for (_, loss, is_best), x in sorted(zip(points, rates, strict=True), key=lambda one: one[0][2]):
        column = round((x - left) / (right - left) * (width - 1))
        row = 0
        if loss is not None and math.isfinite(loss):
            row = round((high - min(loss, high)) / max(high - low, 1e-12) * (height - 2)) + 1
        is_above = row > 0 and (loss or 0.0) > high
        grid[row][column] = BEST if is_best else ABOVE if is_above else RUN if row else FELL
    labels = ["", wording.loss(high), *[""] * (height - 3), wording.loss(low)]
    drawn = [f"{label:>9} │{''.join(cells)}".rstrip() for label, cells in zip(labels, grid, strict=True)]
    ends = wording.learning_rate(10**left) + wording.learning_rate(10**right).rjust(
        width - len(wording.learning_rate(10**left))
    )
    return [*(drawn if drawn[0].strip() != "│" else drawn[1:]), " " * 10 + "└" + "─" * width, " " * 11 + ends]


def _ceiling(losses: Sequence[float]) -> float:
    """The upper end: one bad run does not flatten the others, and is pressed to the top."""
    ordered = sorted(losses)
    usual = ordered[3 * (len(ordered) - 1) // 4]
    return min(ordered[-1], ordered[0] + 3 * (usual - ordered[0]) if usual > ordered[0] else ordered[-1])


def _curve(result: StudyResult, best: TrialFigures, width: int) -> tuple[str, list[str]]:
    records = read_records(trial_folder(Path(result.paths.study), best.trial) / STEPS, StepRecord)
    if len(records) < 2:
        return "", []
    smooth = np.array(debiased_ema([record.loss for record in records], span=EMA_SHARE * len(records)))
    lines = plot_lines(np.array([record.step for record in records], float), smooth, width=width, height=HEIGHT)
    return f"smoothed loss of the best run, step {records[0].step} to {records[-1].step}", lines
