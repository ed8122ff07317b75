"""SQLite, for a home.

It runs in WAL mode with synchronous=FULL, so a commit that returned survives a power cut. Writing transactions start with
BEGIN IMMEDIATE: they queue for the write lock at once instead of failing half way with "database is locked". Reading
transactions see one snapshot and never wait for a writer.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote

from sqlalchemy import QueuePool, create_engine, event
from sqlalchemy.exc import DBAPIError, IntegrityError

from keystead.adapters.files import translated as translated_files
from keystead.core.errors import IntegrityFailure, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection, Engine
    from sqlalchemy.pool import ConnectionPoolEntry

BUSY_TIMEOUT_SECONDS = 30
KEPT = 16
"""Connections that stay open when nobody uses them, and as many for readers alone."""
BESIDE = 64
"""Connections there may be at a time beyond those that are kept."""
_PATH, _FILE = "path", "file"
"""What is kept about a connection: the path it was opened by, and which file that was."""


# SQLAlchemy names the pool's logger for its class, and tells at the level info when a pool is closed.
logging.getLogger(f"{__name__}._Pool").setLevel(logging.WARNING)


class _Pool(QueuePool):
    """SQLAlchemy's pool, and what readers and a writer keep for the next: taking one out and putting it back costs as much as a query."""

    def __init__(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 - whatever SQLAlchemy gives a pool
        super().__init__(*arguments, **options)
        self.readers: list[Connection] = []
        self.writers: list[Connection] = []

    def dispose(self) -> None:
        for kept in (self.readers, self.writers):
            while kept:
                kept.pop().close()
        super().dispose()


def sqlite_engine(path: Path) -> Engine:
    """An engine on a SQLite file, which is made when it does not exist: for its owner alone (R-253); its log files take over its mode."""
    with translated_files(path.name):
        path.touch(mode=0o600, exist_ok=True)
    # rw: a file that was lost must not come back empty. Opened by hand, because a URL would not take every path.
    name = f"file:{quote(str(path.absolute()))}?mode=rw"

    def opened() -> sqlite3.Connection:
        return sqlite3.connect(
            name, uri=True, timeout=BUSY_TIMEOUT_SECONDS, isolation_level=None, check_same_thread=False, cached_statements=512
        )

    engine = create_engine("sqlite://", creator=opened, poolclass=_Pool, pool_size=KEPT, max_overflow=BESIDE, query_cache_size=1_000)

    @event.listens_for(engine, "connect")
    def configure(connection: sqlite3.Connection, entry: ConnectionPoolEntry) -> None:
        entry.info[_PATH], entry.info[_FILE] = str(path), _identity(str(path))
        cursor = connection.cursor()
        for pragma in (
            "journal_mode=WAL",
            "synchronous=FULL",
            "foreign_keys=ON",
            "secure_delete=ON",
            "cache_size=-16384",
            "temp_store=MEMORY",
            "wal_autocheckpoint=8000",  # 32 MiB: pages that one commit after the other touches reach the database once
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    return engine


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """One writing transaction: see `engine.writing`."""
    pool = cast("_Pool", engine.pool)
    with translated():
        connection = _writer(engine, pool)
        keep = False
        try:
            raw = _driver(connection)
            raw.execute("BEGIN IMMEDIATE")
            _still_there(connection, raw)
            try:
                yield connection
            except BaseException:
                raw.rollback()
                raise
            raw.execute("COMMIT")
            if connection.in_transaction():  # SQLAlchemy's own idea of one, begun by a statement of its
                connection.rollback()
            keep = not pool.writers  # they queue for the write lock: more than one would mostly wait here
        finally:
            # One that an error came by is not kept, whatever the error was: the pool takes it, as it takes any other.
            if keep:
                pool.writers.append(connection)
            else:
                connection.close()


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """One reading transaction: see `engine.reading`."""
    pool = cast("_Pool", engine.pool)
    with translated():
        connection = _reader(engine, pool)
        keep = False
        try:
            raw = _driver(connection)
            raw.execute("BEGIN")
            try:
                yield connection
            finally:
                if connection.in_transaction():  # SQLAlchemy's own idea of one, begun by a statement of its
                    connection.rollback()
                raw.rollback()
            keep = len(pool.readers) < KEPT
        finally:
            # One that an error came by is not kept, whatever the error was: the pool takes it, as it takes any other.
            if keep:
                pool.readers.append(connection)
            else:
                connection.close()


def glance(engine: Engine, query: str) -> tuple[Any, ...] | None:
    """See `engine.glance`. A statement outside any transaction is one of its own, which ends with it."""
    pool: Any = engine.pool
    try:
        connection = _reader(engine, pool)
        found: tuple[Any, ...] | None = connection.connection.driver_connection.execute(query).fetchone()  # type: ignore[union-attr]  # open
    except BaseException:
        with translated():
            raise
    if len(pool.readers) < KEPT:
        pool.readers.append(connection)
    else:
        connection.close()
    return found


def _writer(engine: Engine, pool: _Pool) -> Connection:
    """The connection the last writer kept, if its file is still there; else one of the pool, which `_still_there` asks the same."""
    try:
        connection = pool.writers.pop()
    except IndexError:
        return engine.connect()
    if _same_file(connection):
        return connection
    connection.invalidate()
    connection.close()
    return engine.connect()


def _reader(engine: Engine, pool: _Pool) -> Connection:
    """A connection to the file that is there now: not to one that was removed or replaced while it was open."""
    while True:
        try:
            connection = pool.readers.pop()
        except IndexError:
            connection = engine.connect()
        if _same_file(connection):
            return connection
        connection.invalidate()
        connection.close()


def empty_log(engine: Engine) -> bool:
    """Overwrite what the log still holds of older pages; False when a reader of another process is in the way."""
    with translated(), engine.connect() as connection:
        busy, _, _ = connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").one()
    return not busy


def _identity(path: str) -> tuple[int, int] | None:
    """Which file a path names now; None for none."""
    try:
        found = os.stat(path)  # noqa: PTH116 - every call asks, and a Path's own way costs twice as much
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _same_file(connection: Connection) -> bool:
    info = connection.info
    return bool(_identity(info[_PATH]) == info[_FILE])


def _still_there(connection: Connection, raw: sqlite3.Connection) -> None:
    """Refuse to write to a file that was removed or replaced while it was open: the system would take the bytes and lose them.

    Raises:
        Unavailable: `database_lost`; the connection is not used again.
    """
    if not _same_file(connection):
        raw.rollback()
        connection.invalidate()
        raise Unavailable(
            "database_lost",
            f"{Path(connection.info[_PATH]).name} was removed or replaced while it was open",
            "put it back, or restore it from a backup; then try again",
        )


def _driver(connection: Connection) -> sqlite3.Connection:
    """The driver's connection, for BEGIN and COMMIT: a statement of SQLAlchemy's costs ten times what these do."""
    raw = connection.connection.driver_connection
    assert raw is not None
    return cast("sqlite3.Connection", raw)


@contextmanager
def translated() -> Iterator[None]:
    """Database errors become Keystead's: a lost, full or locked database is *unavailable*, a damaged one an integrity failure."""
    try:
        yield
    except IntegrityError:
        raise
    except DBAPIError as error:
        _raise_for(error, error.orig)
        raise
    except sqlite3.Error as error:
        _raise_for(error, error)
        raise


def _raise_for(error: Exception, cause: BaseException | None) -> None:
    if isinstance(cause, sqlite3.DatabaseError) and ("malformed" in str(cause) or "not a database" in str(cause)):
        raise IntegrityFailure("database_damaged", f"the database file is damaged: {cause}", "restore it from a backup") from error
    if isinstance(cause, sqlite3.OperationalError):
        raise Unavailable(
            "database_unavailable",
            f"the database did not take the call: {cause}",
            "check that its disk is there and has room, then try again",
        ) from error
