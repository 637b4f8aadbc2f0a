"""Does a verdict stay when the log is written otherwise? Rows left out, rows averaged, columns renamed, the end missing.

    python -m benchmarks.perturbed_logs --labels FOLDER

FOLDER is that of `benchmarks.diagnose --labels`. A verdict counts as changed when it differs from the one on the whole log; logs
that keep too few rows, and those whose event lies in what was cut off, are not counted.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.labelled_logs import labelled, part_of
from finestep.diagnosis.training_log import EvalSeries, TrainingLog, TrainSeries, columns_of
from finestep.diagnosis.verdict import diagnose_log
from finestep.flat import from_flat
from finestep.flows.diagnose import diagnose_file
from finestep.readers.open_logs import read_logs

FEWEST_ROWS = 20
"""Training rows that must be left; with fewer a changed verdict is no fault."""
MAY_COME_LATE = frozenset(
    {"overfitting", "lr_too_high_diverged", "lr_too_high_unstable", "spike_recovered", "numerical_failure", "other"}
)
"""Verdicts on something that may happen in the last part of a run only."""


def every(count: int, start: int = 0) -> Callable[[TrainingLog], TrainingLog]:
    """Only each so many-th row is logged."""
    return lambda log: replace(log, train=_rows(log.train, slice(start, None, count)))


def averaged(count: int) -> Callable[[TrainingLog], TrainingLog]:
    """A row is the mean of so many; step, rate and clock are those of its last."""

    def change(log: TrainingLog) -> TrainingLog:
        train, whole = log.train, len(log.train) // count * count
        columns = {}
        for name, column in columns_of(train).items():
            blocks = column[:whole].reshape(-1, count)
            columns[name] = blocks.mean(axis=1) if name in ("loss", "grad_norm", "reward") else blocks[:, -1]
        return replace(log, train=from_flat(TrainSeries, columns))

    return change


def first_part(share: float) -> Callable[[TrainingLog], TrainingLog]:
    """The run was killed there."""

    def change(log: TrainingLog) -> TrainingLog:
        last = share * max(
            [*log.train.step, *(step for series in log.evaluations for step in series.step)], default=0.0
        )
        evaluations = tuple(_eval_rows(series, series.step <= last) for series in log.evaluations)
        return replace(log, train=_rows(log.train, log.train.step <= last), evaluations=evaluations)

    return change


def _rows(train: TrainSeries, chosen: slice | np.ndarray) -> TrainSeries:
    return from_flat(TrainSeries, {name: column[chosen] for name, column in columns_of(train).items()})


def _eval_rows(series: EvalSeries, chosen: np.ndarray) -> EvalSeries:
    metrics = {name: column[chosen] for name, column in series.metrics.items()}
    return EvalSeries(series.name, series.step[chosen], series.epoch[chosen], series.loss[chosen], metrics)


CUT = "first 70 %"
CHANGES: dict[str, Callable[[TrainingLog], TrainingLog]] = {
    "every 2nd row": every(2),
    "every 3rd row": every(3),
    "every 4th row": every(4, 1),
    "means of 2 rows": averaged(2),
    "means of 4 rows": averaged(4),
    CUT: first_part(0.7),
}


def changed_verdicts(path: Path, name: str) -> tuple[str, str] | None:
    """(verdict on the whole log, verdict on the changed one), or None when that cannot be compared."""
    logs = read_logs(path)
    if len(logs) != 1:
        return None
    before, after, is_cut = logs[0], CHANGES[name](logs[0]), name == CUT
    told, now = diagnose_log(before).label, diagnose_log(after).label
    if now == "too_little_information" or len(before.train) >= FEWEST_ROWS > len(after.train):
        return None
    if is_cut and now != told and (told in MAY_COME_LATE or now == "undertrained"):
        return None
    return told, now


def renamed(path: Path, place: Path) -> Path | None:
    """The file with another name for its validation loss; None where it has none in plain text."""
    data = path.read_bytes()
    if b"eval_loss" not in data or not path.suffix:
        return None
    target = place / path.name
    target.write_bytes(data.replace(b"eval_loss", b"eval_holdout_loss"))
    return target


def report(folder: Path) -> None:
    """One line a change: how many verdicts stay, and which do not."""
    paths = [folder / "raw" / row["file"] for row in labelled(folder) if part_of(row) != "check"]
    stayed = total = 0
    for name in CHANGES:
        pairs = {path.name: pair for path in paths if (pair := changed_verdicts(path, name)) is not None}
        stayed, total = stayed + _line(name, pairs), total + len(pairs)
    with tempfile.TemporaryDirectory() as place:
        both = {path: other for path in paths if (other := renamed(path, Path(place))) is not None}
        pairs = {path.name: (diagnose_file(path).label, diagnose_file(other).label) for path, other in both.items()}
    stayed, total = stayed + _line("renamed validation loss", pairs), total + len(pairs)
    print(f"verdicts that stay: {stayed} of {total} ({stayed / total:.1%})")


def _line(name: str, pairs: dict[str, tuple[str, str]]) -> int:
    same = sum(told == now for told, now in pairs.values())
    print(f"{name:24} {same} of {len(pairs)} stay")
    for path, (told, now) in pairs.items():
        if told != now:
            print(f"    {path:12} {told} -> {now}")
    return same


def main() -> None:
    """Change each labelled log in each way and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=Path, required=True)
    report(parser.parse_args().labels)


if __name__ == "__main__":
    main()
