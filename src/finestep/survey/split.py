"""One validation split, fixed by seed and the same for all trials; no prompt stands on both sides of it."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from finestep.errors import BadInput
from finestep.study import DataSpec
from finestep.survey.formats import Example, Examples, read_examples

MIN_EVAL_ROWS, MAX_EVAL_ROWS = 64, 512
MIN_ROWS = 8


@dataclass(frozen=True)
class Split:
    """Training and validation examples, and what was done to get them."""

    train: list[Example]
    evaluation: list[Example]
    format: str
    num_duplicates: int
    notes: list[str]


def split_data(spec: DataSpec) -> Split:
    """Read the data of `spec` and split it.

    Raises:
        BadInput: too few rows, or validation rows of another kind.
    """
    read = read_examples(spec)
    rows = _at_most(read.examples, spec)
    if len(rows) < MIN_ROWS:
        raise BadInput(f"the data must have at least {MIN_ROWS} rows", value=len(rows), place=spec.path)
    num_duplicates = sum(count - 1 for count in Counter(row.whole for row in rows).values())
    if spec.eval_path:
        return _with_own_validation(spec, read, rows, num_duplicates)
    wanted = num_eval_rows(len(rows), spec.eval_fraction)
    held = _hold_out(rows, wanted, spec.split_seed)
    train = [row for row in rows if row.key not in held]
    evaluation = [row for row in rows if row.key in held]
    if not train or not evaluation:
        raise BadInput(
            "the rows must not all ask the same: no split is possible", value=f"{len(rows)} rows", place=spec.path
        )
    return Split(train, evaluation, read.format, num_duplicates, list(read.notes))


def num_eval_rows(num_rows: int, fraction: float) -> int:
    """Validation rows for a data set: the share asked for, within 64 to 512, and at most a quarter.

    >>> num_eval_rows(10_000, 0.1), num_eval_rows(100, 0.1)
    (512, 25)
    """
    wanted = min(max(round(num_rows * fraction), MIN_EVAL_ROWS), MAX_EVAL_ROWS)
    return max(1, min(wanted, num_rows // 4))


def _at_most(rows: list[Example], spec: DataSpec) -> list[Example]:
    if spec.max_rows is None or len(rows) <= spec.max_rows:
        return rows
    chosen = sorted(rows, key=lambda row: _rank(f"{row.key}{row.row}", spec.split_seed))[: spec.max_rows]
    return sorted(chosen, key=lambda row: row.row)


def _hold_out(rows: Sequence[Example], wanted: int, seed: int) -> set[str]:
    """Keys of the rows to hold out: chosen by a hash, so that adding rows hardly moves the others."""
    counts = Counter(row.key for row in rows)
    held: set[str] = set()
    total = 0
    for key in sorted(counts, key=lambda key: _rank(key, seed)):
        if total >= wanted:
            break
        if total + counts[key] <= max(wanted, 1) * 1.5:
            held.add(key)
            total += counts[key]
    return held


def _rank(key: str, seed: int) -> str:
    return hashlib.sha256(f"{seed}:{key}".encode()).hexdigest()


def _with_own_validation(spec: DataSpec, read: Examples, rows: list[Example], num_duplicates: int) -> Split:
    assert spec.eval_path is not None
    other = read_examples(spec, path=spec.eval_path)
    if other.format != read.format:
        raise BadInput(
            f"validation rows must have the format of the training rows ({read.format})",
            value=other.format,
            place=spec.eval_path,
        )
    held = {row.key for row in other.examples}
    train = [row for row in rows if row.key not in held]
    notes = list(read.notes)
    if len(train) < len(rows):
        notes.append(f"{len(rows) - len(train)} training rows also stand in the validation file and were left out")
    if not train:
        raise BadInput("every training row also stands in the validation file", value=spec.eval_path)
    evaluation = sorted(other.examples, key=lambda row: _rank(f"{row.key}{row.row}", spec.split_seed))
    if len(evaluation) > MAX_EVAL_ROWS:
        notes.append(f"{MAX_EVAL_ROWS} of the {len(evaluation)} validation rows are used")
    return Split(train, evaluation[:MAX_EVAL_ROWS], read.format, num_duplicates, notes)
