"""Optuna's tables in a new SQLite file: made once in memory, then written in one transaction.

Optuna makes them in a dozen transactions, each of which waits for the disk, and reads the scripts of all its older versions twice.
"""

from __future__ import annotations

import contextlib
import functools
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from optuna.storages import RDBStorage


def new_storage(file: Path) -> RDBStorage:
    """The open storage of a file that is not there yet. Only a file of another version needs Optuna's check, and this one is new."""
    from optuna.storages import RDBStorage

    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.executescript(_empty_tables())
    return RDBStorage(f"sqlite:///{file}", skip_compatibility_check=True, skip_table_creation=True)


@functools.cache
def _empty_tables() -> str:
    """The script that makes the tables, with the rows that name their version."""
    from optuna.storages import RDBStorage

    storage = RDBStorage("sqlite://", skip_compatibility_check=True)
    with contextlib.closing(storage.engine.raw_connection()) as connection:
        assert isinstance(connection.driver_connection, sqlite3.Connection)
        return "\n".join(connection.driver_connection.iterdump())
