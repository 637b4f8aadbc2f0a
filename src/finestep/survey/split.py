"""One validation split, fixed by seed and the same for all trials; no prompt stands on both sides of it.

Labels have the same shares on both sides. Files that a folder names as validation are taken as they are.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from finestep.errors import BadInput
from finestep.study import DataSpec
from finestep.survey.example import Chosen, Example, ExampleStore
from finestep.survey.files import find_files
from finestep.survey.formats import Examples, read_examples
from finestep.survey.labels import label_classes

DEFAULT_EVAL_SHARE = 0.1
MIN_EVAL_ROWS, MAX_EVAL_ROWS = 200, 512
"""Under 200 rows the standard error of an accuracy is over 3.5 points."""
MIN_ROWS = 8


@dataclass(frozen=True)
class Split:
    """Training and validation examples, and what was done to get them."""

    train: Sequence[Example]
    evaluation: Sequence[Example]
    format: str
    num_duplicates: int
    notes: list[str]
    unused: dict[str, float] = field(default_factory=dict)
    """Share of the characters in each column that is not used."""


def split_data(spec: DataSpec) -> Split:
    """Read the data of `spec` and split it.

    Raises:
        BadInput: too few rows, labels that are none, or validation rows of another kind.
    """
    check_one_validation(spec)
    read = read_examples(spec)
    rows = read.examples
    if len(rows) < MIN_ROWS:
        raise BadInput(f"the data must have at least {MIN_ROWS} rows", value=len(rows), place=spec.path)
    notes = [*read.notes, *_name_classes(read, spec.path)]
    marks = _Marks(rows, seed=spec.split_seed)
    has_own = spec.eval_path or (spec.eval_fraction is None and find_files(spec.path).validation)
    if has_own:
        return _with_own_validation(spec, read, marks, notes)
    held, more = _held_out(marks, num_eval_rows(len(rows), spec.eval_fraction), spec.path)
    return Split(
        Chosen(rows, _places(held, 0)),
        Chosen(rows, _places(held, 1)),
        read.format,
        marks.num_duplicates,
        notes + more,
        read.unused,
    )


def check_one_validation(spec: DataSpec) -> None:
    """Raise BadInput where validation rows of their own are named and a share to split off too."""
    if spec.eval_path and spec.eval_fraction is not None:
        raise BadInput(
            "give validation rows of their own (`--eval-data`), or the share to split off (`--eval-share`), not both",
            value=spec.eval_path,
        )


def num_eval_rows(num_rows: int, share: float | None) -> int:
    """Validation rows to split off: the share asked for; else a tenth, within 200 to 512, and at most a quarter.

    >>> num_eval_rows(10_000, None), num_eval_rows(1_000, None), num_eval_rows(100, None), num_eval_rows(10_000, 0.2)
    (512, 200, 25, 2000)
    """
    if share is not None:
        return min(max(1, round(num_rows * share)), num_rows - 1)
    wanted = min(max(round(num_rows * DEFAULT_EVAL_SHARE), MIN_EVAL_ROWS), MAX_EVAL_ROWS)
    return max(1, min(wanted, num_rows // 4))


class _Marks:
    """What the split needs of each row as numbers: what it asks, its place in the order of chance, itself, and its label."""

    def __init__(self, rows: Sequence[Example], *, seed: int) -> None:
        self.keys, self.ranks, self.wholes, self.labels = array("Q"), array("Q"), array("Q"), array("l")
        number: dict[str | None, int] = {}
        for row in rows:
            key = row.key
            self.keys.append(int(key[:16], 16))
            self.ranks.append(_rank(key, seed))
            self.wholes.append(int(row.whole[:16], 16))
            self.labels.append(number.setdefault(row.label, len(number)))

    @property
    def num_duplicates(self) -> int:
        ordered = sorted(self.wholes)
        return sum(one == other for one, other in itertools.pairwise(ordered))


def _rank(key: str, seed: int) -> int:
    """Chosen by a hash, so that adding rows hardly moves the others."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{key}".encode()).digest()[:8], "big")


def _held_out(marks: _Marks, wanted: int, place: str) -> tuple[bytearray, list[str]]:
    """(which rows are held out, what to say): whole groups of rows that ask the same, or, where that cannot be, single rows."""
    num_rows = len(marks.keys)
    held, notes = _hold_out(marks.ranks, marks.labels, wanted), []
    if sum(held) < wanted / 2 or sum(held) == num_rows:
        mixed = array("Q", (whole ^ rank for whole, rank in zip(marks.wholes, marks.ranks, strict=True)))
        held = _hold_out(mixed, marks.labels, wanted)
        most = Counter(marks.keys).most_common(1)[0][1]
        notes = [
            f"{most:,} rows ask the same: the split is between answers, and a prompt may stand on both sides of it"
        ]
    if not 0 < sum(held) < num_rows:
        raise BadInput("the rows must not all be the same: no split is possible", value=f"{num_rows} rows", place=place)
    return held, notes


def _hold_out(ranks: Sequence[int], labels: Sequence[int], wanted: int) -> bytearray:
    """A mark a row. Rows of one group have one rank, so that groups stand together in its order; each label has its quota."""
    held = bytearray(len(ranks))
    left = _quotas(labels, wanted)
    limits = {label: max(quota, 1) * 1.5 for label, quota in left.items()}
    taken = dict.fromkeys(left, 0)
    order = sorted(range(len(ranks)), key=ranks.__getitem__)
    for _, group in itertools.groupby(order, key=ranks.__getitem__):
        rows = list(group)
        label = labels[rows[0]]
        if left.get(label, 0) <= taken.get(label, 0) or taken[label] + len(rows) > limits[label]:
            continue
        taken[label] += len(rows)
        for row in rows:
            held[row] = 1
        if len(left) == 1 and taken[label] >= left[label]:
            break
    return held


def _quotas(labels: Sequence[int], wanted: int) -> dict[int, int]:
    """Validation rows of each label, in proportion; what is left over by rounding goes where most was cut off."""
    counts = Counter(labels)
    exact = {label: wanted * count / len(labels) for label, count in counts.items()}
    quotas = {label: int(share) for label, share in exact.items()}
    spare = wanted - sum(quotas.values())
    for label in sorted(exact, key=lambda label: (quotas[label] - exact[label], label))[:spare]:
        quotas[label] += 1
    return {label: quota for label, quota in quotas.items() if quota}


def _name_classes(read: Examples, place: str) -> list[str]:
    """Make labels that differ by case or spaces one class; what to say about them."""
    if read.format != "labels":
        return []
    written = Counter(row.label or "" for row in read.examples)
    classes, notes = label_classes(written, place=place)
    _relabel(read, {label: name for label, name in classes.items() if label != name})
    return notes


def _relabel(read: Examples, classes: dict[str, str]) -> None:
    assert isinstance(read.examples, ExampleStore)
    read.examples.classes = classes


def _with_own_validation(spec: DataSpec, read: Examples, marks: _Marks, notes: list[str]) -> Split:
    other = read_examples(spec, path=spec.eval_path, validation=spec.eval_path is None)
    place = spec.eval_path or spec.path
    if other.format != read.format:
        raise BadInput(
            f"validation rows must have the format of the training rows ({read.format})",
            value=other.format,
            place=place,
        )
    if read.format == "labels":
        known = {_plain(row.label): row.label for row in read.examples}
        written = {row.label for row in other.examples}
        _relabel(
            other, {label: name for label in written if label and (name := known.get(_plain(label))) and name != label}
        )
    theirs = _Marks(other.examples, seed=spec.split_seed)
    known_keys = set(theirs.keys)
    both = bytearray(key in known_keys for key in marks.keys)
    train = Chosen(read.examples, _places(both, 0))
    if any(both):
        notes.append(f"{sum(both):,} training rows also stand in the validation rows and were left out")
    if not len(train):
        raise BadInput("every training row also stands in the validation rows", value=place)
    chosen = sorted(range(len(theirs.ranks)), key=theirs.ranks.__getitem__)
    if len(chosen) > MAX_EVAL_ROWS:
        notes.append(f"{MAX_EVAL_ROWS} of the {len(chosen):,} validation rows are used")
    return Split(
        train, Chosen(other.examples, chosen[:MAX_EVAL_ROWS]), read.format, marks.num_duplicates, notes, read.unused
    )


def _places(marks: bytearray, wanted: int) -> array[int]:
    return array("q", (place for place, mark in enumerate(marks) if mark == wanted))


def _plain(label: str | None) -> str:
    return " ".join((label or "").split()).casefold()


def accuracy_error(num_rows: int, accuracy: float = 0.5) -> float:
    """Standard error of an accuracy on so many rows; at 0.5 it is largest.

    Two hits and two misses are added (Agresti and Coull 1998), so that no accuracy looks certain on a few rows.

    >>> round(accuracy_error(200), 3), round(accuracy_error(128, 1.0), 3)
    (0.035, 0.011)
    """
    rows = num_rows + 4
    share = (accuracy * num_rows + 2) / rows
    return math.sqrt(share * (1 - share) / rows)
