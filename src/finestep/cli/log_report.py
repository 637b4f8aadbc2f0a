"""How a diagnosis looks in the terminal: the verdict first, a small plot, the evidence, then what to change."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.markup import escape as escape_markup
from rich.table import Table

from finestep.cli.terminal import open_console
from finestep.diagnosis.catalogue import LABEL_WORDS, Label, shown_evidence
from finestep.diagnosis.verdict import Diagnosis
from finestep.finding import Finding
from finestep.flows.diagnose import DiagnoseResult, FileReport, as_json
from finestep.language.catalogue import asked_language, translated

_COLOURS = {"info": "green", "notice": "cyan", "warning": "yellow", "error": "red"}
_PLOT_WIDTH, _PLOT_HEIGHT = 64, 8
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""Braille dot bits by row and column of a character cell."""
_MANY = 6


def escape(text: str) -> str:
    """Text that can neither style the terminal nor move its cursor: no markup, and `?` for what is not printable.

    >>> print(escape("a\\x1b[31mb[bold]"))
    a?[31mb\\[bold]
    """
    return escape_markup("".join(each if each.isprintable() or each == "\n" else "?" for each in text))


def _said(text: str) -> str:
    """The text in the language of `--lang` or `$FINESTEP_LANG`."""
    return translated(text, asked_language())


def print_json(result: DiagnoseResult) -> None:
    """One object as the last line of stdout: that of the log, or `logs` and `comparison` when there are several."""
    reports = [as_json(report) for report in result.reports]
    if len(reports) == 1 and not result.unreadable:
        print(json.dumps(reports[0], allow_nan=False))
        return
    comparison = result.comparison
    rows = [row.__dict__ for row in comparison.rows] if comparison else []
    print(
        json.dumps(
            {
                "logs": reports,
                "unreadable": [{"log": path, "reason": reason} for path, reason in result.unreadable],
                "comparison": {"runs": rows, "advice": comparison.advice} if comparison else None,
            },
            allow_nan=False,
        )
    )


def print_result(result: DiagnoseResult, html: Path | None = None) -> None:
    """Every report in words; of many logs only the table and what is wrong."""
    console = open_console(markup=True)
    for report in result.reports:
        if len(result.reports) <= _MANY:
            _print_report(console, report)
    if result.comparison is not None:
        _print_comparison(console, result)
    for path, reason in result.unreadable:
        console.print(f"[dim]{escape(path)}: {escape(reason)}[/dim]", soft_wrap=True)
    if html is not None:
        console.print(f"Page written to {escape(str(html))}", soft_wrap=True)


def plot_lines(
    steps: np.ndarray, values: np.ndarray, *, width: int = _PLOT_WIDTH, height: int = _PLOT_HEIGHT
) -> list[str]:
    """A curve in braille characters, two by four dots each; few rows are joined by lines."""
    finite = np.isfinite(values)
    steps, values = steps[finite], values[finite]
    if len(values) < 2 or steps[-1] <= steps[0]:
        return []
    low, high = _range(values)
    if len(values) < 2 * width:
        between = np.linspace(steps[0], steps[-1], 8 * width)
        steps, values = between, np.interp(between, steps, values)
    columns = np.clip(((steps - steps[0]) / (steps[-1] - steps[0]) * (2 * width - 1)).astype(int), 0, 2 * width - 1)
    scaled = (high - np.clip(values, low, high)) / max(high - low, 1e-12)
    rows = np.clip((scaled * (4 * height - 1)).astype(int), 0, 4 * height - 1)
    cells = np.zeros((height, width), dtype=int)
    for column, row in set(zip(columns.tolist(), rows.tolist(), strict=True)):
        cells[row // 4, column // 2] |= _DOTS[row % 4][column % 2]
    lines = ["".join(chr(0x2800 + cell) for cell in line) for line in cells]
    labels = [f"{high:9.4g} ", *[" " * 10] * (height - 2), f"{low:9.4g} "]
    return [label + line for label, line in zip(labels, lines, strict=True)]


def _range(values: np.ndarray) -> tuple[float, float]:
    """The shown range: outliers above the 97th percentile are pressed to the top when they would flatten the rest."""
    low, high, usual = float(values.min()), float(values.max()), float(np.percentile(values, 97))
    return low, low + 1.3 * (usual - low) if high - low > 3 * (usual - low) > 0 else high


def _print_report(console: Console, report: FileReport) -> None:
    """The verdict with its evidence and what to change; then the curve; then everything else that was seen."""
    console.print(f"\n[bold]{escape(report.path)}[/bold]")
    _print_verdict(console, report.label, report.verdict)
    for run in report.runs[:_MANY]:
        if len(report.runs) > 1:
            console.print(f"\n[bold]{escape(run.log.name)}[/bold]")
            _print_verdict(console, run.label, run.verdict)
        _print_run(console, run)


def _print_verdict(console: Console, label: Label, finding: Finding) -> None:
    colour = _COLOURS[finding.severity]
    console.print(
        f"[bold {colour}]{_said(LABEL_WORDS[label])}[/bold {colour}] [dim]({label}, {finding.confidence:.0%} sure)[/dim]"
    )
    console.print(escape(_said(finding.meaning)), soft_wrap=True)
    _print_evidence(console, finding)
    if finding.advice:
        console.print(f"[bold]{_said('What to do: ').strip()}[/bold] {escape(_said(finding.advice))}", soft_wrap=True)


def _print_run(console: Console, run: Diagnosis) -> None:
    series = run.log.train if len(run.log.train) else run.log.evaluation
    if series is not None and len(series):
        for line in plot_lines(series.step, series.loss):
            console.print(line, style="dim", no_wrap=True)
        what = "training loss" if series is run.log.train else "validation loss"
        console.print(
            f"          {what}, step {series.step[0]:.0f} to {series.step[-1]:.0f}  [dim]({escape(run.log.format)})[/dim]"
        )
    curve = run.signals.evaluation
    if curve is not None and curve.num_rows > 1:
        best = f"best {curve.best:.4g} at step {curve.best_step:.0f}"
        console.print(f"          validation loss {curve.first:.4g} to {curve.last:.4g}, {best}")
    for note in run.log.notes:
        console.print(f"  [dim]note: {escape(note)}[/dim]", soft_wrap=True)
    for finding in run.findings[1:]:
        _print_other(console, finding)


def _print_other(console: Console, finding: Finding) -> None:
    colour = _COLOURS[finding.severity]
    sure = f"[dim]({finding.confidence:.0%} sure)[/dim]"
    console.print(f"  [{colour}]{finding.code}[/{colour}]: {escape(_said(finding.meaning))} {sure}", soft_wrap=True)
    _print_evidence(console, finding, indent="    ")
    if finding.advice:
        console.print(f"    -> {escape(_said(finding.advice))}", soft_wrap=True)


def _print_evidence(console: Console, finding: Finding, indent: str = "") -> None:
    shown = ", ".join(f"{_said(name)} {value}" for name, value in shown_evidence(finding))
    if shown:
        console.print(f"{indent}[dim]evidence: {escape(shown)}[/dim]", soft_wrap=True)


def _print_comparison(console: Console, result: DiagnoseResult) -> None:
    comparison = result.comparison
    if comparison is None:
        return
    by_validation = bool(comparison.rows and comparison.rows[0].is_validation)
    table = Table(title="Runs compared", title_justify="left")
    for heading in ("run", "verdict", "peak rate", "best validation loss" if by_validation else "last training loss"):
        table.add_column(heading)
    for row in comparison.rows:
        table.add_row(escape(row.name), row.label, _number(row.learning_rate), _number(row.score))
    console.print(table)
    console.print(escape(_said(comparison.advice)), soft_wrap=True)


def _number(value: float | None) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{value:.4g}"
