"""Logs in columns: Lightning and litgpt metrics.csv, exports of W&B and TensorBoard, and any CSV or TSV with a
header."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path

from finestep.diagnosis.training_log import TrainingLog
from finestep.readers.column_names import looks_like_a_loss, role_of
from finestep.readers.limits import MAX_NAMES, MAX_ROW_CHARS, MAX_ROWS, MAX_RUNS, ROWS_AT_ONCE
from finestep.readers.litgpt_logs import MARK, of_steps
from finestep.readers.row_table import RowTable
from finestep.readers.text_pairs import pairs_of
from finestep.readers.text_stream import head, lines
from finestep.readers.written_alike import cells_of

_DELIMITERS = ",\t;"
_WANDB_SEPARATOR = " - "
END_OF_EPOCH = "-1"
"""What an evaluator of sentence-transformers writes in place of a step."""


def delimiter_of(path: Path) -> str | None:
    """The delimiter when the first line is a header that names at least one known column, otherwise None."""
    first = head(path).decode("utf-8-sig", errors="replace").lstrip().splitlines()
    if not first or "{" in first[0][:20000] or first[0].startswith("[") or any(pairs_of(first[0][:20000])):
        return None
    for delimiter in _DELIMITERS:
        names = [name.strip().strip('"') for name in first[0].split(delimiter)]
        if len(names) > 1 and any(_means_something(name) for name in names):
            return delimiter
    return None


def read_delimited(path: Path) -> list[TrainingLog]:
    """Every row of a table with a header; a W&B panel export gives one log for each of its runs."""
    stream, delimiter = _bounded(lines(path)), delimiter_of(path) or ","
    rows = csv.reader(stream, delimiter=delimiter)
    table = RowTable()
    header = [name.strip() for name in next(_safely(rows, table), [])[:MAX_NAMES]]
    if _is_panel(header):
        return _read_panel(header, rows, path)
    if MARK in header:
        named = [dict(zip(header, row, strict=False)) for row in islice(_safely(rows, table), MAX_ROWS)]
        table.add_many(of_steps(named))
        return table.logs(name=path.name, source=str(path), format=_format(header))
    names = _evaluator_names(_tensorboard_names(header, path))
    run_column = header.index("run_name") if "run_name" in header else None
    if run_column is None:
        rows = csv.reader(_after_numbers(stream, names, table, delimiter), delimiter=delimiter)
    last_run = None
    batch: list[dict[str, str]] = []
    size = 0
    for row in _safely(rows, table):
        is_next = run_column is not None and len(row) > run_column and last_run not in (None, row[run_column])
        if is_next or len(batch) == ROWS_AT_ONCE or size > MAX_ROW_CHARS:
            table.add_many(batch)
            batch, size = [], 0
        if is_next:
            table.mark_new_run()
        if run_column is not None and len(row) > run_column:
            last_run = row[run_column]
        if names is not header and row[1:2] == [END_OF_EPOCH]:
            row[1] = ""
        size += sum(map(len, row))
        pairs = zip(names, row, strict=False)
        batch.append({name: value for name, value in pairs if value} if "" in row else dict(pairs))
        if table.is_full:
            break
    table.add_many(batch)
    return table.logs(name=path.name, source=str(path), format=_format(header))


def _after_numbers(stream: Iterator[str], names: list[str], table: RowTable, delimiter: str) -> Iterator[str]:
    """The lines from the first one on that is not numbers in every cell; those before it are taken at once."""
    while not table.is_full and len(set(names)) == len(names) > 1:
        chosen = list(islice(stream, ROWS_AT_ONCE))
        values = cells_of(chosen, len(names), delimiter) if chosen else None
        if values is None or not table.add_numbers(tuple(names), values):
            return chain(chosen, stream)
    return stream


def _means_something(name: str) -> bool:
    role = role_of(name.split(_WANDB_SEPARATOR)[-1])
    return (role is not None and role.slot in ("loss", "step", "epoch", "grad_norm")) or looks_like_a_loss(name)


def _bounded(stream: Iterator[str]) -> Iterator[str]:
    for line in stream:
        if line and len(line) <= MAX_ROW_CHARS:
            yield line.replace("\0", "")


def _safely(rows: Iterator[list[str]], table: RowTable) -> Iterator[list[str]]:
    while True:
        try:
            yield next(rows)
        except StopIteration:
            return
        except csv.Error:
            table.num_skipped += 1


def _format(header: list[str]) -> str:
    if "iter_time" in header:
        return "litgpt metrics.csv"
    if any(name.startswith("lr-") or name.endswith(("_step", "_epoch")) for name in header) and "step" in header:
        return "Lightning metrics.csv"
    return "TensorBoard CSV export" if "Wall time" in header else "CSV"


def _tensorboard_names(header: list[str], path: Path) -> list[str]:
    if header[:3] != ["Wall time", "Step", "Value"]:
        return header
    return ["Wall time", "Step", "eval/loss" if "eval" in path.stem.lower() else "train/loss"]


def _evaluator_names(header: list[str]) -> list[str]:
    """The evaluators of sentence-transformers write a table of their own, without a loss: what is beside the counters was measured on
    validation rows."""
    if header[:2] != ["epoch", "steps"] or any(looks_like_a_loss(name) or role_of(name) for name in header[2:]):
        return header
    return [*header[:2], *(f"eval_{name}" for name in header[2:])]


def _is_panel(header: list[str]) -> bool:
    return sum(_WANDB_SEPARATOR in name for name in header) >= max(1, (len(header) - 1) // 2) and len(header) > 1


def _read_panel(header: list[str], rows: Iterator[list[str]], path: Path) -> list[TrainingLog]:
    columns: dict[str, list[tuple[int, str]]] = {}
    for index, name in enumerate(header):
        run, separator, metric = name.partition(_WANDB_SEPARATOR)
        if separator and not metric.endswith(("__MIN", "__MAX")) and (run in columns or len(columns) < MAX_RUNS):
            columns.setdefault(run, []).append((index, metric))
    if not columns:
        return []
    tables = {run: RowTable() for run in columns}
    for row in _safely(rows, next(iter(tables.values()))):
        for run, pairs in columns.items():
            values = {metric: row[index] for index, metric in pairs if index < len(row) and row[index]}
            if values:
                tables[run].add({header[0]: row[0], **values})
    return [
        log
        for run, table in tables.items()
        for log in table.logs(name=f"{path.name}:{run}", source=str(path), format="W&B CSV export")
    ]
