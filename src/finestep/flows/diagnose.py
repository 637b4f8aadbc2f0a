"""Diagnose logs: paths -> readers -> verdicts -> one report per file; it prints nothing and needs no torch."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from finestep.diagnosis.catalogue import Label, found
from finestep.diagnosis.comparison import Comparison, compare
from finestep.diagnosis.confidence import confidence_of
from finestep.diagnosis.signals import signals_of
from finestep.diagnosis.thresholds import DEFAULT, Thresholds
from finestep.diagnosis.training_log import TrainingLog, train_series
from finestep.diagnosis.verdict import Diagnosis, diagnose_log
from finestep.errors import BadInput
from finestep.executors.endings import OUT_OF_MEMORY
from finestep.finding import Finding
from finestep.flows.known_run import Told, with_knowledge
from finestep.flows.own_trial import OwnTrial, own_trial
from finestep.readers.open_logs import find_logs, read_logs
from finestep.readers.unread import READABLE, first_lines, holds_known_columns, last_line_with, speaks_of_training

if TYPE_CHECKING:
    from IPython.lib.pretty import RepresentationPrinter

MAIN_SHARE = 0.9
"""Share of the rows of a file that makes one run speak for it; the others are starts that were broken off."""
METHODS = ("full", "lora", "qlora", "prompt", "p-tuning", "prefix")


@dataclass(frozen=True)
class FileReport:
    """What is said about one file: its runs, and one label for all of them."""

    path: str
    label: Label
    findings: tuple[Finding, ...]
    runs: tuple[Diagnosis, ...]

    @property
    def verdict(self) -> Finding:
        """The finding that decides."""
        return self.findings[0]


@dataclass(frozen=True)
class DiagnoseResult:
    """Reports in order of the paths, files that hold no log, and a comparison when several runs were read."""

    reports: tuple[FileReport, ...]
    unreadable: tuple[tuple[str, str], ...]
    comparison: Comparison | None

    @property
    def verdict(self) -> Finding:
        """The finding that decides, of the first file.

        Raises:
            BadInput: no file could be read.
        """
        if not self.reports:
            raise BadInput("no log could be read", value="; ".join(why for _, why in self.unreadable) or None)
        return self.reports[0].verdict

    def __str__(self) -> str:
        """A line a file, and below it what was found and what to do."""
        lines = []
        for report in self.reports:
            lines.append(f"{report.path}: {report.label}")
            lines += [f"  {one.meaning} {one.advice}".rstrip() for one in report.findings]
        return "\n".join([*lines, *(f"{path}: {why}" for path, why in self.unreadable)])

    def _repr_pretty_(self, printer: RepresentationPrinter, cycle: bool) -> None:
        """What a notebook shows."""
        printer.text(str(self))


def diagnose_paths(
    patterns: Sequence[str],
    *,
    method: str | None = None,
    model: str | None = None,
    rank: int | None = None,
    limits: Thresholds = DEFAULT,
) -> DiagnoseResult:
    """Read and judge every log that the paths, folders and globs name.

    Args:
        method, model, rank: what the run trained and how, where no file beside the log says it; `model` is a folder, a name or a size.

    Raises:
        BadInput: nothing is found at a path, or the only file cannot be read.
    """
    if method is not None and method not in METHODS:
        raise BadInput(f"`--method` must be one of {', '.join(METHODS)}", value=method)
    paths = list(dict.fromkeys(path for pattern in patterns for path in find_logs(pattern)))
    told = Told(method=method, model=model, rank=rank)
    reports, unreadable = [], []
    for path in paths:
        try:
            reports.append(diagnose_file(path, told=told, limits=limits))
        except BadInput as error:
            if len(paths) == 1:
                raise
            unreadable.append((str(path), str(error)))
    reports = _told_apart(reports)
    runs = [run for report in reports for run in report.runs if run.signals.num_rows or run.signals.num_evaluations]
    comparison = compare(runs) if len(runs) > 1 else None
    return DiagnoseResult(tuple(reports), tuple(unreadable), comparison)


def _told_apart(reports: list[FileReport]) -> list[FileReport]:
    """The reports with runs of one name called by their folder too, e.g. `0003/steps.jsonl` for the trials of a study."""
    used = Counter(name for report in reports for name in {run.log.name for run in report.runs})
    if max(used.values(), default=0) < 2:
        return reports
    top = os.path.commonpath([str(Path(report.path).parent.absolute()) for report in reports])

    def named(run: Diagnosis, path: str) -> Diagnosis:
        folder = Path(path).parent.absolute().relative_to(top)
        return replace(run, log=replace(run.log, name=str(folder / run.log.name))) if used[run.log.name] > 1 else run

    return [replace(report, runs=tuple(named(run, report.path) for run in report.runs)) for report in reports]


def diagnose_file(
    path: Path, *, told: Told | None = None, limits: Thresholds = DEFAULT, own: OwnTrial | None = None
) -> FileReport:
    """Read one file and judge each run in it; a file of several runs is labelled `other`, unless one of them is nearly all of it.

    Args:
        own: what the study of this trial knows; None = it is looked for around the log.
    """
    logs, own, told = read_logs(path), own or own_trial(path), told or Told()
    if not any(len(log.train) or log.evaluations for log in logs):
        logs = [_empty_log(path)]
        if not holds_known_columns(path):
            return _unread(path, logs[0])
    if own is None:
        runs = tuple(diagnose_log(with_knowledge(log, path, told), limits) for log in logs)
    else:
        known = [own.informs(with_knowledge(log, path, own.told(told))) for log in logs]
        runs = tuple(own.agrees(diagnose_log(log, limits)) for log in known)
    if len(runs) == 1:
        return FileReport(str(path), runs[0].label, runs[0].findings, runs)
    rows = [run.signals.num_rows + run.signals.num_evaluations for run in runs]
    several = found(
        "several_runs",
        f"The file holds {len(runs)} runs, each judged on its own: {', '.join(run.label for run in runs[:6])}.",
        advice="write one log a run",
        confidence=confidence_of("several_runs", sum(rows)),
        runs=len(runs),
    )
    main = runs[rows.index(max(rows))]
    if max(rows) >= MAIN_SHARE * sum(rows):
        return FileReport(str(path), main.label, (*main.findings, several), runs)
    return FileReport(str(path), "other", (several,), runs)


def as_json(report: FileReport) -> dict[str, object]:
    """One report as plain values: `verdict` (a label), `findings`, and each run's curve in numbers."""
    return {
        "log": report.path,
        "verdict": report.label,
        "findings": [finding.model_dump() for finding in report.findings],
        "runs": [_run_json(run) for run in report.runs],
    }


def _run_json(run: Diagnosis) -> dict[str, object]:
    signals = run.signals
    return {
        "name": run.log.name,
        "format": run.log.format,
        "verdict": run.label,
        "notes": list(run.log.notes),
        "num_train_rows": signals.num_rows,
        "num_evaluations": signals.num_evaluations,
        "peak_learning_rate": _plain(signals.schedule.peak if signals.schedule else math.nan),
        "last_loss": _plain(signals.loss.end if signals.loss else math.nan),
        "best_eval_loss": _plain(signals.evaluation.best if signals.evaluation else math.nan),
        "findings": [finding.model_dump() for finding in run.findings],
    }


def _plain(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _unread(path: Path, log: TrainingLog) -> FileReport:
    """A layout that is not known is said as such; a file that shows no sign of training is refused.

    Raises:
        BadInput: no line of the file speaks of losses, steps or epochs.
    """
    lines = first_lines(path)
    if (error := last_line_with(path, OUT_OF_MEMORY)) is not None:
        return _memory_ran_out(path, log, error)
    if not speaks_of_training(path):
        shown = lines[0] if lines else "an empty file"
        raise BadInput(
            "this file is no training log: no line speaks of a loss, a step or an epoch", value=shown, place=str(path),
            next_step="give the trainer's state, its log or its printed output",
        )  # fmt: skip
    finding = found(
        "unreadable_layout",
        "I could not read this layout, so nothing is said about the run.",
        advice=f"first lines: {' / '.join(lines)}. What can be read: {READABLE}",
    )
    run = Diagnosis(log, signals_of(log), "too_little_information", (finding,))
    return FileReport(str(path), "too_little_information", (finding,), (run,))


def _memory_ran_out(path: Path, log: TrainingLog, error: str) -> FileReport:
    finding = found(
        "memory_ran_out",
        "The run ended because memory ran out, before it wrote a row that could be judged.",
        advice="take fewer rows a forward pass and accumulate as many more, or cut rows shorter; "
        "`finestep probe MODEL --predict --gpu NAME` shows where the memory goes",
        error=error,
    )
    return FileReport(str(path), "other", (finding,), (Diagnosis(log, signals_of(log), "other", (finding,)),))


def _empty_log(path: Path) -> TrainingLog:
    return TrainingLog(path.name, str(path), "no training rows found", train_series())
