"""The address of another storage. Its password never leaves this module: whatever is shown or written has none."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import TYPE_CHECKING

from finestep.disk import read_object
from finestep.errors import BadInput, MissingDependency
from finestep.plain_text import without_passwords
from finestep.study_layout import SPEC

if TYPE_CHECKING:
    from optuna.storages import BaseStorage
    from sqlalchemy import Engine


VARIABLE = "FINESTEP_STORAGE"
KEEPALIVE = {"keepalives": 1, "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3}
CONNECT_S = 10


class StorageUrl:
    """An address as SQLAlchemy takes it.

    Args:
        text: `postgresql://user@host/database`, or of another database.
    """

    def __init__(self, text: str):
        from sqlalchemy.engine import make_url
        from sqlalchemy.exc import ArgumentError

        try:
            self._url = make_url(text)
            self.kind = self._url.get_backend_name()
        except (ArgumentError, ValueError):
            raise BadInput(
                "`--storage` takes the address of a database",
                value="something else (not shown: it may hold a password)",
                next_step="e.g. postgresql://user@host/database",
            ) from None
        if self.kind == "postgresql":
            self._url = self._url.set(drivername=_driver(self._url.drivername))

    def __str__(self) -> str:
        """The address without its password."""
        return without_passwords(self._url.render_as_string(hide_password=True))

    __repr__ = __str__

    @property
    def file(self) -> str | None:
        """The file of an SQLite database."""
        return self._url.database if self.kind == "sqlite" else None

    def engine_options(self) -> dict[str, object]:
        """Connections that notice when the server is gone."""
        if self.kind == "sqlite":
            return {}
        more = {"connect_timeout": CONNECT_S, **KEEPALIVE} if self.kind == "postgresql" else {}
        return {"pool_pre_ping": True, "pool_size": 2, "connect_args": more}

    def open(self) -> BaseStorage:
        """Optuna's storage at this address."""
        from optuna.storages import RDBStorage

        return RDBStorage(self._url.render_as_string(hide_password=False), engine_kwargs=self.engine_options())

    def engine(self) -> Engine:
        """An engine for a connection of our own."""
        from sqlalchemy import create_engine
        from sqlalchemy.pool import NullPool

        options = {name: value for name, value in self.engine_options().items() if name == "connect_args"}
        return create_engine(self._url, poolclass=NullPool, **options)

    def without_secrets(self, text: str) -> str:
        """A message of a library without the password."""
        password = self._url.password
        return without_passwords(text.replace(str(password), "***") if password else text)


def storage_url(given: str | None, *, folder: Path) -> str | None:
    """What the user gave, else what `$FINESTEP_STORAGE` says; that does not move a study that keeps its trials in its folder."""
    found = read_object(folder / SPEC)
    if given or (found is not None and not found.get("storage")):
        return given or None
    return os.environ.get(VARIABLE) or None


def _driver(name: str) -> str:
    """The driver that is installed: psycopg 3, else psycopg2."""
    wanted = name.partition("+")[2]
    for driver, package in (("psycopg", "psycopg"), ("psycopg2", "psycopg2")):
        if wanted in ("", driver) and importlib.util.find_spec(package) is not None:
            return f"postgresql+{driver}"
    if wanted in ("", "psycopg", "psycopg2"):
        raise MissingDependency(wanted or "psycopg", needed_for="a PostgreSQL storage", extra="postgres")
    return name
