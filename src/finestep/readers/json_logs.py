"""Logs in JSON: trainer_state.json of every generation, bare lists of rows, JSON lines, and columns of numbers.

Only flat innermost objects are decoded, so that depth, torn ends and NaN literals do no harm.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, groupby
from pathlib import Path

import numpy as np

from finestep.diagnosis.training_log import TrainingLog, columns_of
from finestep.readers.column_names import role_of
from finestep.readers.limits import MAX_ROW_CHARS, MAX_RUNS, MAX_WHOLE_JSON_BYTES, number
from finestep.readers.row_table import RowTable
from finestep.readers.text_stream import batches, flat_objects, line_lists
from finestep.readers.written_alike import numbers_of

_TOP_LEVEL = re.compile(
    r'"(max_steps|num_train_epochs|train_batch_size|logging_steps|early_stopping_patience|max_grad_norm|total_flos|global_step)"'
    r"\s*:\s*(-?[\d.eE+]{1,40})"
)
_CONTEXT_NAMES = {
    "max_steps": "max_steps", "num_train_epochs": "num_epochs", "train_batch_size": "batch_size",
    "logging_steps": "logging_steps", "early_stopping_patience": "patience", "max_grad_norm": "max_grad_norm",
    "total_flos": "total_flos", "global_step": "last_step",
}  # fmt: skip
_PEAK_CONTEXT_CHARS = 256 << 10
_MAX_EPOCHS = 1e6
_DECODE = json.JSONDecoder().decode
ROWS_THAT_NAME_THE_FORMAT = 1000
FEWEST_ALIKE = 100
"""Rows from which it pays to read them all at once."""
OWN_STEPS, OWN_EVALUATIONS = "steps.jsonl", "evaluations.jsonl"

NEARLY_ALL = 0.9
"""Share of the rows of a series that stand among those of another one, from which it is the same series."""

Row = dict[str, object]


def read_json(path: Path) -> list[TrainingLog]:
    """A JSON document: a trainer state, a list of rows, or columns of numbers."""
    table = RowTable()
    around = _Around()
    for texts in batches(_objects(path, around)):
        if add_alike(texts, table):
            continue
        rows = rows_of(texts)
        table.num_skipped += rows.count(None)
        whole = [(row, text) for row, text in zip(rows, texts, strict=True) if row]
        for index in table.add_many([row for row, _ in whole]):
            around.keep(whole[index][1][:2048])
        if table.is_full:
            break
    outside = around.text
    _read_top_level(outside, table)
    logs = table.logs(name=path.name, source=str(path), format=_json_format(outside, table))
    return without_copies(logs) if any(len(log.train) or log.evaluations for log in logs) else _read_columns(path)


def read_own_steps(path: Path) -> list[TrainingLog]:
    """A trial of finestep: its steps, and its evaluations from the file beside them."""
    return read_json_lines(path, beside=path.with_name(OWN_EVALUATIONS))


def is_own_steps(path: Path) -> bool:
    """True for the step records of a trial of finestep."""
    return path.name == OWN_STEPS and path.with_name(OWN_EVALUATIONS).is_file()


def read_json_lines(path: Path, *, beside: Path | None = None) -> list[TrainingLog]:
    """One JSON object a line; lines that are torn or are no object are skipped and counted."""
    tables: dict[str, RowTable] = {}
    first = tables[""] = RowTable()
    names: set[str] = set()
    both = chain(line_lists(path), line_lists(beside) if beside is not None else ())
    for texts in batches(list(filter(str.strip, each)) for each in both):
        # The first rows name the format, and are few.
        if names and len(tables) == 1 and '"run' not in texts[0] and add_alike(texts, first):
            continue
        rows = rows_of(texts)
        first.num_skipped += rows.count(None)
        whole = [row for row in rows if row is not None]
        if not names:
            names.update(*whole[:ROWS_THAT_NAME_THE_FORMAT])
        if len(tables) == 1 and not any('"run' in text for text in texts):
            first.add_many(whole)
            continue
        for table, group in groupby(whole, key=lambda row: _table_of_run(row, tables)):
            table.add_many(list(group))
        if any(table.is_full for table in tables.values()):
            break
    format_name = "finestep records" if beside is not None else _json_lines_format(names)
    named = [(path.name if not run else f"{path.name}:{run}", table) for run, table in tables.items()]
    return [log for name, table in named for log in table.logs(name=name, source=str(path), format=format_name)]


def without_copies(logs: list[TrainingLog]) -> list[TrainingLog]:
    """The logs without those that repeat the losses of another one, or hold none: a document may list its series beside its rows."""
    kept: list[TrainingLog] = []
    for log in sorted(logs, key=_num_values, reverse=True):
        if not any(_repeats(log, other) for other in kept):
            kept.append(log)
    if len(kept) == 1 and len(logs) > 1:
        return [replace(kept[0], name=re.sub(r" \(run \d+\)$", "", kept[0].name))]
    return [log for log in logs if any(log is each for each in kept)]


def _num_values(log: TrainingLog) -> int:
    columns = columns_of(log.train).values()
    return sum(int(np.isfinite(column).sum()) for column in columns) + sum(len(series) for series in log.evaluations)


def _repeats(log: TrainingLog, other: TrainingLog) -> bool:
    """True when nearly every row of a log is one of the other's, with the same step and, to the third digit, the same loss."""
    if not len(log.train) or not len(other.train):
        return False
    losses = dict(zip(other.train.step.tolist(), other.train.loss.tolist(), strict=True))
    same = np.array([losses.get(step, np.nan) for step in log.train.step.tolist()])
    return bool(np.isclose(same, log.train.loss, rtol=1e-3, atol=1e-4).mean() > NEARLY_ALL)


class _Around:
    """The text between the rows, up to a limit: it holds what is known about the whole run."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._size = 0

    def keep(self, text: str) -> None:
        if self._size < _PEAK_CONTEXT_CHARS:
            self._parts.append(text)
            self._size += len(text)

    @property
    def text(self) -> str:
        return "".join(self._parts)


def _objects(path: Path, around: _Around) -> Iterator[list[str]]:
    for outside, objects in flat_objects(path):
        for text in outside:
            if '"' in text:  # What only separates rows would fill the little that is kept.
                around.keep(text[-16384:])
        yield objects


def add_alike(texts: Sequence[str], table: RowTable, decode: Callable[[str], object] | None = None) -> bool:
    """Take rows that differ in nothing but their numbers, all at once; False, and nothing is taken, when they do not."""
    if table.is_full or len(texts) < FEWEST_ALIKE:
        return False
    found = numbers_of(texts, (decode or decoded)(texts[0]))
    return found is not None and table.add_numbers(*found)


def rows_of(texts: Sequence[str], decode: Callable[[str], object] | None = None) -> list[Row | None]:
    """The row in each text, None for a broken one; texts are decoded together, which is faster, unless one of them is broken.

    Each text stands in brackets of its own, so that two torn texts cannot be read as one whole.
    """
    decode = decode or decoded
    together = "],[".join(texts)
    if len(together) <= MAX_ROW_CHARS:
        values = decode(f"[[{together}]]")
        if isinstance(values, list) and len(values) == len(texts) and set(map(type, values)) == {list}:
            rows = list(chain.from_iterable(values))
            if len(rows) == len(texts) and set(map(type, rows)) == {dict}:
                return rows if together.count("{") == len(rows) else [_plain(row) for row in rows]
    return [_row(text, decode) for text in texts]


def _table_of_run(row: Row, tables: dict[str, RowTable]) -> RowTable:
    if "run_name" not in row and "run" not in row:
        return tables[""]
    run = str(row.get("run_name", row.get("run")))[:80]
    if run not in tables and len(tables) < MAX_RUNS:
        tables[run] = RowTable()
    return tables.get(run, tables[""])


def decoded(text: str) -> object:
    """The JSON value in a text, or None when it is broken, too long or too deep."""
    if len(text) > MAX_WHOLE_JSON_BYTES:
        return None
    try:
        return _DECODE(text)
    except (ValueError, RecursionError, MemoryError):
        return None


def flattened(value: Mapping[str, object], depth: int = 3) -> Iterator[tuple[str, object]]:
    """Names and plain values of a row; names of nested rows are joined with `/`."""
    for key, item in value.items():
        if not isinstance(item, dict):
            yield key, item
        elif depth:
            yield from ((f"{key}/{inner}", leaf) for inner, leaf in flattened(item, depth - 1))


def _row(text: str, decode: Callable[[str], object]) -> Row | None:
    if len(text) > MAX_ROW_CHARS:
        return None
    value = decode(text)
    return _plain(value) if isinstance(value, dict) else None


def _plain(value: Row) -> Row:
    """The row with nested rows unfolded."""
    return _shortened(dict(flattened(value))) if dict in map(type, value.values()) else value


def _shortened(row: Row) -> Row:
    """Nested names lose their prefix when the last part alone has a meaning and is free."""
    for key in [key for key in row if "/" in key and role_of(key) is None]:
        short = key.rsplit("/", 1)[1]
        if role_of(short) is not None and short not in row:
            row[short] = row[key]
    return row


def _read_top_level(text: str, table: RowTable) -> None:
    for name, value in _TOP_LEVEL.findall(text):
        parsed = number(value)
        if 0 < parsed < (1e30 if name == "total_flos" else 1e15) and not (
            name == "num_train_epochs" and parsed > _MAX_EPOCHS
        ):
            table.context[_CONTEXT_NAMES[name]] = parsed


def _json_format(outside: str, table: RowTable) -> str:
    if '"log_history"' not in outside:
        return "JSON rows"
    return "TRL trainer_state.json" if table.tags else "Hugging Face trainer_state.json"


def _json_lines_format(names: set[str]) -> str:
    if "current_steps" in names:
        return "LLaMA-Factory trainer_log.jsonl"
    if "global_step/max_steps" in names:
        return "ms-swift logging.jsonl"
    return "JSON lines"


def _read_columns(path: Path) -> list[TrainingLog]:
    """A document such as {"loss": [..], "val_loss": [..]}; one entry a row."""
    if path.stat().st_size > MAX_WHOLE_JSON_BYTES:
        return []
    value = decoded(path.read_text(encoding="utf-8", errors="replace"))
    if not isinstance(value, dict):
        return []
    columns: dict[str, list[object]] = {}
    for key, item in flattened(value):
        if isinstance(item, list) and (name := _column_name(key)) is not None:
            columns.setdefault(name, item)
    table = RowTable()
    for index in range(max((len(column) for column in columns.values()), default=0)):
        table.add({key: column[index] for key, column in columns.items() if index < len(column)})
    return table.logs(name=path.name, source=str(path), format="JSON columns")


def _column_name(key: str) -> str | None:
    """The known name in that of a list: `train_losses` is the list of `train_loss`, `history/loss` that of `loss`."""
    parts = (key, key.rsplit("/", 1)[-1])
    singular = (re.sub(r"losses$", "loss", part) for part in parts)
    return next((name for name in singular if role_of(name) is not None), None)
