"""The database of an open study: a file in its folder, or a server that may be away for a while.

A server's study has one controller: it holds an advisory lock on the study's key for as long as it is open.
"""

from __future__ import annotations

import contextlib
import platform
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from finestep.disk import remove, writing
from finestep.errors import BadInput, EnvironmentFault, FinestepError, StudyBusy
from finestep.store.new_database import new_storage
from finestep.store.storage_url import StorageUrl
from finestep.store.study_files import damaged
from finestep.study_layout import DATABASE

if TYPE_CHECKING:
    from optuna import Study as OptunaStudy
    from optuna.storages import BaseStorage
    from sqlalchemy import Connection


Answer = TypeVar("Answer")
DATABASE_BYTES = 1_000_000
"""What SQLite may need for a transaction: its journal and new pages."""
PATIENCE_S = 300.0
"""A server may be away for so long; workers train on meanwhile."""
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 10.0
OURS = "finestep"
SCHEMA = "finestep schema"
OWNER = "finestep_owner"
"""Attribute of the study in a shared storage: the folder and host that keep it."""


class Database(Protocol):
    """Where trials are kept."""

    study: OptunaStudy

    def do(self, act: Callable[[], Answer]) -> Answer: ...
    def close(self) -> None: ...


class FileDatabase:
    """Optuna's SQLite file in the study's folder; the folder's lock guards it."""

    def __init__(self, folder: Path, name: str):
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._file = folder / DATABASE
        if self._file.is_symlink():
            raise BadInput(
                "inside a study finestep writes through no symbolic link", value=str(self._file), next_step="remove it"
            )
        is_new = not self._file.exists()
        try:
            file = self._file.resolve()
            self.study = self.do(lambda: _create(name, new_storage(file) if is_new else f"sqlite:///{file}"))
        except EnvironmentFault:
            if is_new:  # a database without its tables would be taken for a damaged one
                remove(self._file)
                remove(self._file.with_name(self._file.name + "-journal"))
            raise
        except Exception as error:
            if not _is_of_storage(error):
                raise
            text = str(error).split("\n")[0][:160]
            raise damaged(folder, f"{DATABASE} cannot be opened ({type(error).__name__}: {text})") from None

    def do(self, act: Callable[[], Answer]) -> Answer:
        """Read or write; a full disk is told as such."""
        with writing(self._file, needed_bytes=DATABASE_BYTES):
            return act()

    def close(self) -> None:
        """Nothing stays open."""


class ServerDatabase:
    """A study in another storage.

    Args:
        url: where.
        key: the study's name there.
        folder: the study's folder.
        is_new: the folder holds no study yet, so that the storage must not either.

    Raises:
        StudyBusy: another controller has the study open.
        BadInput: the storage cannot be opened, or the study there belongs to another folder.
    """

    def __init__(self, url: StorageUrl, key: str, *, folder: Path, is_new: bool):
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._url, self._key, self._folder = url, key, folder
        self._known: int | None = None
        with self._opening():
            self._lock = _lock_of(url, key)
            self._lock.take()
            try:
                with self._lock.schema():
                    storage = url.open()
                self._refuse_others(storage, is_new=is_new)
                self.study = _create(key, storage)
                self.study.set_user_attr(OWNER, f"{folder.resolve()} on {platform.node()}")
            except BaseException:
                self._lock.release()
                raise

    def do(self, act: Callable[[], Answer]) -> Answer:
        """Read or write; where the server is away, wait for it, take the lock again, and repeat.

        Raises:
            EnvironmentFault: the server was away for too long.
            StudyBusy: another controller took the study meanwhile.
        """
        began, wait = time.monotonic(), FIRST_WAIT_S
        while True:
            try:
                self._lock.check()
                return act()
            except FinestepError:
                raise
            except Exception as error:
                if not _is_away(error):
                    raise
                if time.monotonic() - began > PATIENCE_S:
                    raise EnvironmentFault(
                        f"the storage was not there for {PATIENCE_S:g} s",
                        place=str(self._url),
                        next_step="when it is back, the same command goes on",
                    ) from None
            time.sleep(wait)
            wait = min(2 * wait, LONGEST_WAIT_S)
            self._connect_again()

    def close(self) -> None:
        """Let others open the study."""
        self._lock.release()
        with contextlib.suppress(Exception):
            self.study._storage.remove_session()

    def _connect_again(self) -> None:
        from optuna.storages import RDBStorage

        storage: object = getattr(self.study._storage, "_backend", self.study._storage)
        with contextlib.suppress(Exception):
            if isinstance(storage, RDBStorage):
                storage.scoped_session.remove()
                storage.engine.dispose()
        try:
            self._lock.take()
        except StudyBusy:
            raise
        except Exception as error:
            if not _is_away(error):
                raise

    def _refuse_others(self, storage: BaseStorage, *, is_new: bool) -> None:
        """A study of this key that another folder keeps is not shared."""
        names = {one.study_name: one for one in storage.get_all_studies()}
        if is_new and self._key in names:
            owner = storage.get_study_user_attrs(names[self._key]._study_id).get(OWNER, "another folder")
            raise BadInput(
                "this study is in the storage already, and another folder keeps it",
                value=owner,
                place=str(self._url),
                next_step="give that folder with --out, or another database",
            )

    @contextlib.contextmanager
    def _opening(self) -> Iterator[None]:
        try:
            yield
        except FinestepError:
            raise
        except Exception as error:
            if not (_is_of_storage(error) or isinstance(error, ImportError | ValueError | OSError)):
                raise
            text = self._url.without_secrets(str(error)).split("\n")[0][:200]
            raise BadInput(
                "the storage cannot be opened",
                value=text,
                place=str(self._url),
                next_step="check the address, and that the server runs",
            ) from None


class _ServerLock:
    """PostgreSQL's or MySQL's own lock on a name, held by a connection of its own."""

    def __init__(self, url: StorageUrl, key: str):
        self._url, self._key = url, key
        self._connection: Connection | None = None

    def take(self) -> None:
        """Take the lock; nothing to do where it is held."""
        from sqlalchemy import text

        self.release()
        connection = self._url.engine().connect().execution_options(isolation_level="AUTOCOMMIT")
        try:
            if self._url.kind == "postgresql":
                asked = text("select pg_try_advisory_lock(hashtext(:ours), hashtext(:key))")
                taken = connection.execute(asked, {"ours": OURS, "key": self._key}).scalar()
                held = "select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()"
                if taken and not connection.execute(text(held)).scalar():
                    raise BadInput(
                        "a lock must stay with its connection, which a pooler in transaction mode does not allow",
                        value=str(self._url),
                        next_step="give the server's own address, or a pooler in session mode",
                    )
            else:
                taken = connection.execute(
                    text("select get_lock(:key, 0)"), {"key": f"{OURS}-{self._key}"[:64]}
                ).scalar()
        except BaseException:
            connection.close()
            raise
        if not taken:
            connection.close()
            raise StudyBusy(f"another finestep process works on the study {self._key} in {self._url}; wait for it")
        self._connection = connection

    def check(self) -> None:
        """Raise what SQLAlchemy raises when the connection that holds the lock is gone."""
        from sqlalchemy import text
        from sqlalchemy.exc import InterfaceError

        if self._connection is None:
            raise InterfaceError("the lock is not held", None, Exception("no connection"))
        self._connection.execute(text("select 1"))

    @contextlib.contextmanager
    def schema(self) -> Iterator[None]:
        """Alone while tables are made: two first starts at once would make the same ones."""
        from sqlalchemy import text

        if self._url.kind != "postgresql":
            yield
            return
        both = {"ours": OURS, "key": SCHEMA}
        assert self._connection is not None
        self._connection.execute(text("select pg_advisory_lock(hashtext(:ours), hashtext(:key))"), both)
        try:
            yield
        finally:
            self._connection.execute(text("select pg_advisory_unlock(hashtext(:ours), hashtext(:key))"), both)

    def release(self) -> None:
        """Give the lock up with its connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(Exception):
                connection.close()
                connection.engine.dispose()


class _FileLock:
    """The lock beside an SQLite file that several studies share."""

    def __init__(self, file: str, key: str):
        from filelock import FileLock

        self._lock, self._file, self._key = FileLock(f"{file}.{key}.lock"), file, key

    def take(self) -> None:
        from filelock import Timeout

        try:
            if not self._lock.is_locked:
                self._lock.acquire(timeout=1.0)
        except Timeout:
            raise StudyBusy(f"another finestep process works on the study {self._key} in {self._file}") from None

    def check(self) -> None:
        """It vanishes with its holder only."""

    @contextlib.contextmanager
    def schema(self) -> Iterator[None]:
        yield

    def release(self) -> None:
        self._lock.release()


def _lock_of(url: StorageUrl, key: str) -> _ServerLock | _FileLock:
    if url.kind in ("postgresql", "mysql", "mariadb"):
        return _ServerLock(url, key)
    if url.file is not None:
        return _FileLock(url.file, key)
    raise BadInput("finestep keeps trials in SQLite, PostgreSQL or MySQL", value=str(url), place="--storage")


def _create(name: str, storage: BaseStorage | str) -> OptunaStudy:
    import optuna

    return optuna.create_study(study_name=name, storage=storage, direction="minimize", load_if_exists=True)


def _is_of_storage(error: BaseException) -> bool:
    return type(error).__module__.startswith(("sqlalchemy", "optuna", "alembic", "psycopg", "sqlite3"))


def _is_away(error: BaseException) -> bool:
    """True for what a lost connection looks like, through all that wraps it."""
    at: BaseException | None = error
    while at is not None:
        if type(at).__name__ in ("OperationalError", "InterfaceError", "AdminShutdown", "ConnectionError"):
            return True
        if getattr(at, "connection_invalidated", False):
            return True
        at = at.__cause__ or at.__context__
    return False
