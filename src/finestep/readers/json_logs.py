"""Logs in JSON: trainer_state.json of every generation, bare lists of rows, JSON lines, and columns of numbers.

Only flat innermost objects are decoded, so that depth, torn ends and NaN literals do no harm.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from finestep.diagnosis.training_log import TrainingLog
from finestep.readers.column_names import role_of
from finestep.readers.limits import MAX_ROW_CHARS, MAX_RUNS, MAX_WHOLE_JSON_BYTES, number
from finestep.readers.row_table import RowTable
from finestep.readers.text_stream import flat_objects, lines

_TOP_LEVEL = re.compile(
    r'"(max_steps|num_train_epochs|train_batch_size|logging_steps|early_stopping_patience|max_grad_norm)"'
    r"\s*:\s*(-?[\d.eE+]{1,40})"
)
_CONTEXT_NAMES = {
    "max_steps": "max_steps", "num_train_epochs": "num_epochs", "train_batch_size": "batch_size",
    "logging_steps": "logging_steps", "early_stopping_patience": "patience", "max_grad_norm": "max_grad_norm",
}  # fmt: skip
_PEAK_CONTEXT_CHARS = 256 << 10
_MAX_EPOCHS = 1e6
_DECODE = json.JSONDecoder().decode
ROWS_THAT_NAME_THE_FORMAT = 1000

Row = dict[str, object]


def read_json(path: Path) -> list[TrainingLog]:
    """A JSON document: a trainer state, a list of rows, or columns of numbers."""
    table = RowTable()
    outside = ""
    for before, text in flat_objects(path):
        if len(outside) < _PEAK_CONTEXT_CHARS:
            outside += before[-16384:]
        row = _row(text) if text else {}
        if row is None:
            table.num_skipped += 1
        elif row and not table.add(row):
            outside += text[:2048] if len(outside) < _PEAK_CONTEXT_CHARS else ""
        if table.is_full:
            break
    _read_top_level(outside, table)
    logs = table.logs(name=path.name, source=str(path), format=_json_format(outside, table))
    return logs if any(len(log.train) or log.evaluations for log in logs) else _read_columns(path)


def read_json_lines(path: Path) -> list[TrainingLog]:
    """One JSON object a line; lines that are torn or are no object are skipped and counted."""
    tables: dict[str, RowTable] = {}
    first = tables[""] = RowTable()
    names: set[str] = set()
    for index, line in enumerate(lines(path)):
        row = _row(line)
        if row is None:
            first.num_skipped += 1 if line.strip() else 0
            continue
        if index < ROWS_THAT_NAME_THE_FORMAT:
            names.update(row)
        table = _table_of_run(row, tables) if "run_name" in row or "run" in row else first
        table.add(row)
        if table.is_full:
            break
    format_name = _json_lines_format(names)
    named = [(path.name if not run else f"{path.name}:{run}", table) for run, table in tables.items()]
    return [log for name, table in named for log in table.logs(name=name, source=str(path), format=format_name)]


def _table_of_run(row: Row, tables: dict[str, RowTable]) -> RowTable:
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


def _row(text: str) -> Row | None:
    if len(text) > MAX_ROW_CHARS:
        return None
    value = decoded(text)
    if not isinstance(value, dict):
        return None
    if dict in map(type, value.values()):
        return _shortened(dict(flattened(value)))
    return value


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
        if 0 < parsed < 1e15 and not (name == "num_train_epochs" and parsed > _MAX_EPOCHS):
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
    if isinstance(value, dict) and isinstance(value.get("history"), dict):
        value = value["history"]
    if not isinstance(value, dict):
        return []
    columns = {key: item for key, item in value.items() if isinstance(item, list) and role_of(key)}
    table = RowTable()
    for index in range(max((len(column) for column in columns.values()), default=0)):
        table.add({key: column[index] for key, column in columns.items() if index < len(column)})
    return table.logs(name=path.name, source=str(path), format="JSON columns")
