"""Labelled logs in three parts, and what is counted on them; the parts were fixed before any rule of the new ones was written.

* `old`: files numbered below 200, which every rule before 2026-11-29 was tuned on;
* `design`: newer files whose repository name has a SHA-256 that begins with an even byte; rules are made on these and the old ones;
* `check`: the others, of which only sums over the whole half are looked at;
* `more-design`, `more-check`: logs of further public repositories (files without a number), labelled from their numbers before finestep was
  run on them, and split in the same way.

A label is the first reader's; `second` holds others that a sensible colleague could give, joined with `;`.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from finestep.diagnosis.confidence import earned
from finestep.diagnosis.thresholds import DEFAULT, Thresholds
from finestep.flows.diagnose import diagnose_file

FIRST_NEW_FILE = 200
PARTS = ("old", "design", "check", "more-design", "more-check")
NOT_OLD = PARTS[1:]
BROKEN = frozenset({"lr_too_high_diverged", "lr_too_high_unstable", "numerical_failure", "no_learning"})
COMFORT = frozenset({"healthy", "overfitting", "undertrained", "lr_too_low"})
"""Verdicts that tell the owner of a broken run to go on, to stop earlier or to train longer."""


class Judged(NamedTuple):
    """One labelled log, and what finestep says of it."""

    file: str
    repository: str
    part: str
    label: str
    second: str
    verdict: str
    code: str
    stated: float
    num_rows: int

    @property
    def agrees(self) -> bool:
        """True when the verdict is the first reader's label."""
        return self.verdict == self.label

    @property
    def is_allowed(self) -> bool:
        """True when the verdict is one of the labels."""
        return self.verdict in (self.label, *self.second.split(";"))

    @property
    def is_comforted(self) -> bool:
        """True for a broken run that is told something harmless which no label allows."""
        return self.label in BROKEN and self.verdict in COMFORT and not self.is_allowed

    @property
    def votes(self) -> float:
        """Readers who agree: one for the first label, half a one for the second."""
        return 1.0 if self.agrees else 0.5 if self.is_allowed else 0.0


def part_of(row: dict[str, str]) -> str:
    """The part of a row of labels.csv.

    >>> part_of({"file": "007.json", "repo": "owner/name"}), part_of({"file": "300.json", "repo": "owner/name"})
    ('old', 'design')
    """
    number = row["file"][:3]
    if number.isdigit() and int(number) < FIRST_NEW_FILE:
        return "old"
    half = "check" if hashlib.sha256(row["repo"].encode()).digest()[0] % 2 else "design"
    return half if number.isdigit() else f"more-{half}"


def labelled(folder: Path) -> list[dict[str, str]]:
    """Rows of labels.csv whose confidence is high or medium."""
    with (folder / "labels.csv").open() as file:
        return [row for row in csv.DictReader(file) if row["confidence"] != "low"]


def every_label(folder: Path) -> list[dict[str, str]]:
    """All rows of labels.csv."""
    with (folder / "labels.csv").open() as file:
        return list(csv.DictReader(file))


def judged(folder: Path, *, parts: Iterable[str] = PARTS, limits: Thresholds = DEFAULT) -> list[Judged]:
    """The verdict on each labelled log of the parts."""
    wanted = set(parts)
    return [_judged(folder, row, limits) for row in every_label(folder) if part_of(row) in wanted]


def _judged(folder: Path, row: dict[str, str], limits: Thresholds) -> Judged:
    report = diagnose_file(folder / "raw" / row["file"], limits=limits)
    rows = sum(run.signals.num_rows + run.signals.num_evaluations for run in report.runs)
    verdict = report.verdict
    return Judged(row["file"], row["repo"], part_of(row), row["primary_label"], row.get("second") or "", report.label,
                  verdict.code, verdict.confidence, rows)  # fmt: skip


def counts(logs: Sequence[Judged]) -> dict[str, float]:
    """How many logs there are, how many agree with the first label or with either, and how many broken ones are comforted."""
    return {
        "logs": len(logs),
        "first": sum(log.agrees for log in logs),
        "either": sum(log.is_allowed for log in logs),
        "broken": sum(log.label in BROKEN for log in logs),
        "comforted": sum(log.is_comforted for log in logs),
    }


class Band(NamedTuple):
    """The logs whose stated confidence lies in one band."""

    band: str
    logs: int
    stated: float
    """Mean of what was stated."""
    first: float
    """Share that agrees with the first label; this is what confidence states."""
    votes: float
    """Share of readers' votes, in which another allowed label counts half."""
    either: float


def calibration(logs: Sequence[Judged]) -> list[Band]:
    """The bands of stated confidence that hold logs."""
    table = []
    for low, high in ((0.0, 0.5), (0.5, 0.7), (0.7, 0.85), (0.85, 0.95), (0.95, 1.01)):
        inside = [log for log in logs if low <= log.stated < high]
        if inside:
            count = len(inside)
            table.append(Band(
                f"{100 * low:.0f}-{min(100 * high, 100):.0f} %", count, sum(log.stated for log in inside) / count,
                sum(log.agrees for log in inside) / count, sum(log.votes for log in inside) / count,
                sum(log.is_allowed for log in inside) / count,
            ))  # fmt: skip
    return table


def counted(logs: Sequence[Judged]) -> dict[str, tuple[int, int]]:
    """Code -> (logs, those with the first label): the table of `finestep.diagnosis.confidence`."""
    table: dict[str, tuple[int, int]] = {}
    for log in logs:
        count, agreed = table.get(log.code, (0, 0))
        table[log.code] = (count + 1, agreed + log.agrees)
    return dict(sorted(table.items()))


def leave_one_repository_out(logs: Sequence[Judged]) -> list[Judged]:
    """The logs with the confidence that those of all other repositories would give them."""
    judged_apart = []
    for log in logs:
        others = counted([other for other in logs if other.repository != log.repository])
        stated = earned(*others.get(log.code, (0, 0)), num_rows=log.num_rows)
        judged_apart.append(log._replace(stated=stated))
    return judged_apart
