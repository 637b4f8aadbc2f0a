"""Runs in a SQLite file: MLflow's tracking store, trackio's projects and Optuna's step logs are told apart by their
tables.

The file is opened read-only; a broken database gives no logs and a clean error.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from finestep.diagnosis.training_log import TrainingLog
from finestep.readers.json_logs import decoded
from finestep.readers.limits import MAX_ROW_CHARS, MAX_ROWS, MAX_RUNS, MISSING, NOT_FINITE
from finestep.readers.row_table import RowTable

SQLITE_START = b"SQLite format 3\0"


class BrokenDatabase(ValueError):
    """The file begins like SQLite and is none."""


def read_sqlite(path: Path) -> list[TrainingLog]:
    """All runs in the database that have a training loss or an evaluation."""
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=2.0)) as database:
            database.text_factory = lambda data: data.decode("utf-8", errors="replace")
            columns = {row[1] for row in database.execute("PRAGMA table_info(metrics)")}
            if {"key", "value", "run_uuid"} <= columns:
                return _read_mlflow(database, path)
            return _read_trackio(database, path) if {"run_name", "metrics"} <= columns else []
    except (sqlite3.Error, OverflowError, MemoryError, UnicodeError) as error:
        raise BrokenDatabase(str(error)) from error


def _read_mlflow(database: sqlite3.Connection, path: Path) -> list[TrainingLog]:
    query = "SELECT run_uuid, step, key, value, is_nan FROM metrics ORDER BY run_uuid, timestamp, step LIMIT ?"
    tables: dict[str, RowTable] = {}
    for run, step, key, value, is_nan in database.execute(query, (MAX_ROWS,)):
        table = _table(tables, str(run)[:80])
        shown = NOT_FINITE if is_nan else value
        table.add({"step": float(step) if isinstance(step, (int, float)) else MISSING, str(key)[:200]: shown})
    return _logs(tables, path, "MLflow SQLite store")


def _read_trackio(database: sqlite3.Connection, path: Path) -> list[TrainingLog]:
    tables: dict[str, RowTable] = {}
    for run, step, text in _trackio_rows(database):
        shown = text.decode("utf-8", errors="replace") if isinstance(text, bytes) else text
        row = decoded(shown[:MAX_ROW_CHARS]) if isinstance(shown, str) else None
        table = _table(tables, str(run)[:80])
        if isinstance(row, dict):
            table.add({**row, "_step": step})
        else:
            table.num_skipped += 1
    return _logs(tables, path, "trackio project")


def _trackio_rows(database: sqlite3.Connection) -> Iterator[tuple[str, int, str]]:
    return database.execute("SELECT run_name, step, metrics FROM metrics ORDER BY id LIMIT ?", (MAX_ROWS,))


def _table(tables: dict[str, RowTable], run: str) -> RowTable:
    return tables.setdefault(run if run in tables or len(tables) < MAX_RUNS else next(iter(tables)), RowTable())


def _logs(tables: dict[str, RowTable], path: Path, format_name: str) -> list[TrainingLog]:
    named = tables.items()
    return [
        log
        for run, table in named
        for log in table.logs(name=f"{path.name}:{run[:12]}", source=str(path), format=format_name)
    ]
