"""PostgreSQL, for a fleet.

A writing transaction is READ COMMITTED and takes one advisory lock as its first act, so that writers queue as they do for SQLite's
write lock: each statement after it sees everything that was committed before. A reading one is REPEATABLE READ, READ ONLY.

Connections are in the driver's autocommit mode; the BEGIN and COMMIT are ours, so that a transaction costs no more round trips than it
must. A pooled connection that died while nobody used it shows at BEGIN, where nothing is lost by starting over with a fresh one.
"""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NoReturn, cast

import psycopg
from psycopg import conninfo
from sqlalchemy import QueuePool, create_engine
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from keystead.adapters.files import translated as translated_files
from keystead.core.errors import IntegrityFailure, InvalidRequest, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sqlalchemy import Connection, Engine

    from keystead.core.configuration import DatabaseConfig

    Raw = psycopg.Connection[tuple[Any, ...]]

WRITERS = 0x6B65_7973_7465_6164
"""The advisory lock of whoever writes; advisory locks are counted for each database apart."""
BEGIN_WRITING = f"BEGIN ISOLATION LEVEL READ COMMITTED; SELECT pg_advisory_xact_lock({WRITERS})"
BEGIN_READING = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
POOL_SECONDS = 30
"""How long a call waits for one of its process's connections."""

_SESSION = {
    "statement_timeout": "300000",
    "lock_timeout": "30000",
    # A process that was stopped, or cut off, in the middle of a transaction must not keep all others from writing for long.
    "idle_in_transaction_session_timeout": "60000",
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
}
"""What the server does with our sessions."""
_DEFAULTS = {
    "connect_timeout": "5",
    "application_name": "keystead",
    "client_encoding": "UTF8",
    "target_session_attrs": "read-write",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
}
"""What the address may change."""
_USED = "used"
"""What is kept about a connection: it has answered before, so one that does not any more is stale."""
_PREPARED = 500
"""Statements a connection keeps prepared."""

_TRY_AGAIN = "try again; keystead db check shows how the database is"
_FULL = {"53100", "53200"}
_READ_ONLY = {"25006"}
_BUSY = {"53300", "55P03", "57014", "40001", "40P01", "25P03", "57P05"}
_DAMAGED = {"XX001", "XX002"}
_NO_TABLE = {"42P01"}
_NO_RIGHT = {"42501"}


def postgresql_engine(config: DatabaseConfig, folder: Path) -> Engine:
    """An engine on a PostgreSQL database. The password is read anew for every connection: it can be changed while processes run.

    Raises:
        InvalidRequest: `configuration_invalid`: the address is none, or holds a password.
    """
    connection_parameters(config.url)  # refused now, and not at the first call

    def opened() -> Raw:
        connection: Raw = psycopg.connect(**login(config, folder), autocommit=True)
        connection.prepared_max = _PREPARED
        return connection

    return create_engine(
        "postgresql+psycopg://",
        creator=opened,
        poolclass=QueuePool,
        pool_size=config.pool,
        max_overflow=0,
        pool_timeout=POOL_SECONDS,
        query_cache_size=1_000,
        use_native_hstore=False,
        hide_parameters=True,
    )


def login(config: DatabaseConfig, folder: Path) -> dict[str, Any]:
    """What the driver is told, with the password as it is now.

    Raises:
        InvalidRequest: `configuration_invalid`: see `connection_parameters`.
        Unavailable: the password file cannot be read.
    """
    password = {"password": _password(folder / config.password_file)} if config.password_file else {}
    return {**connection_parameters(config.url), **password}


def connection_parameters(url: str) -> dict[str, Any]:
    """What the driver is told, without the password.

    Raises:
        InvalidRequest: `configuration_invalid`: the address is none, or holds a password.
    """
    if not url.startswith(("postgresql://", "postgres://")):
        raise _unfit("the address of a database begins with postgresql://")
    try:
        given = conninfo.conninfo_to_dict(url)
    except psycopg.Error:  # its text may repeat the address, and that may hold a password
        raise _unfit("the address of a database cannot be read") from None
    if "password" in given:
        raise _unfit("the address of a database holds a password")
    parameters: dict[str, Any] = {**_DEFAULTS, **given}
    if "sslmode" not in given and not _local(str(given.get("host") or given.get("hostaddr") or os.environ.get("PGHOST", ""))):
        parameters["sslmode"] = "verify-full"  # keys of customers do not travel to whoever answers first
    ours = " ".join(f"-c {name}={value}" for name, value in _SESSION.items())
    parameters["options"] = f"{ours} {given.get('options', '')}".strip()
    return parameters


def _local(hosts: str) -> bool:
    """Whether the server is on this machine: sockets, and loopback."""
    return all(host == "" or host.startswith(("/", "@", "127.")) or host in {"localhost", "::1"} for host in hosts.split(","))


def _password(file: Path) -> str:
    with translated_files(file.name):
        text = file.read_text()
    return text.partition("\n")[0].rstrip("\r")


def _unfit(what: str) -> InvalidRequest:
    return InvalidRequest(
        "configuration_invalid",
        what,
        "write it as postgresql://USER@HOST/NAME, or postgresql://USER@/NAME?host=FOLDER, and the password into a file (docs/settings.md)",
    )


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """One writing transaction: see `engine.writing`."""
    with translated(), _begun(engine, BEGIN_WRITING) as (connection, raw):
        yield connection
        _commit(raw)


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """One reading transaction: see `engine.reading`.

    It ends with COMMIT: after a rollback the driver forgets what it has prepared, and every statement would be parsed and planned anew.
    """
    with translated(), _begun(engine, BEGIN_READING) as (connection, raw):
        yield connection
        with suppress(psycopg.Error):  # what was read was read, whether or not this arrives
            raw.execute("COMMIT")


def glance(engine: Engine, query: str) -> tuple[Any, ...] | None:
    """See `engine.glance`. One round trip: the connections are in autocommit mode."""
    with translated():
        connection, _raw, answer = _connected(engine, query)
        try:
            return answer.fetchone()
        finally:
            connection.close()


@contextmanager
def _begun(engine: Engine, begin: str) -> Iterator[tuple[Connection, Raw]]:
    """A connection inside a transaction, which is gone at the end unless it was committed."""
    connection, raw, _answer = _connected(engine, begin)
    try:
        yield connection, raw
    finally:
        with suppress(psycopg.Error):  # whatever is the matter is on its way up already; the server forgets a lost transaction
            raw.rollback()
        if raw.closed or raw.pgconn.transaction_status != psycopg.pq.TransactionStatus.IDLE:  # lost, or interrupted amid a statement
            connection.invalidate()
        connection.close()


def _connected(engine: Engine, first: str) -> tuple[Connection, Raw, psycopg.Cursor[tuple[Any, ...]]]:
    """A connection that has answered its first statement: of those in the pool the first that still lives, or else a fresh one."""
    while True:
        connection = engine.connect()
        raw = cast("Raw", connection.connection.driver_connection)
        used = connection.info.get(_USED)
        try:
            answer = raw.execute(first)
        except BaseException as error:
            stale = used and raw.closed and isinstance(error, psycopg.Error)
            connection.invalidate()
            connection.close()
            if not stale:
                raise
        else:
            connection.info[_USED] = True
            return connection, raw, answer


def _commit(raw: Raw) -> None:
    """Make it last.

    Raises:
        Unavailable: `commit_unknown`: the answer was lost. `database_unavailable`: the server had given the transaction up.
    """
    try:
        answer = raw.execute("COMMIT").statusmessage
    except psycopg.Error as error:
        if raw.closed:
            raise Unavailable(
                "commit_unknown",
                "the connection to the database was lost at the commit: the change is stored, or it is not",
                "look whether it is there before you try again",
            ) from error
        raise
    if answer != "COMMIT":  # a statement failed, somebody caught the error and went on: the server answers ROLLBACK, without an error
        raise Unavailable("database_unavailable", "the database gave the transaction up after a statement failed", _TRY_AGAIN)


@contextmanager
def translated() -> Iterator[None]:
    """Database errors become Keystead's."""
    try:
        yield
    except IntegrityError:
        raise
    except DBAPIError as error:
        _raise_for(error, error.orig)
    except psycopg.Error as error:
        _raise_for(error, error)
    except PoolTimeout as error:
        raise Unavailable(
            "database_busy", "no connection to the database came free in time", "raise its `pool` in keystead.toml, or start more processes"
        ) from error


def _raise_for(error: Exception, cause: BaseException | None) -> NoReturn:
    """Raise what an error of the driver means; the error itself where it means a defect of ours."""
    state = getattr(cause, "sqlstate", None) or ""
    text = _first_line(cause)
    for states, raised in _MEANING:
        if state in states:
            raise raised(text) from error
    if isinstance(cause, psycopg.DataError):
        raise InvalidRequest(
            "value_unfit", f"the database does not take a value: {text}", "shorten it, and leave control characters out"
        ) from error
    if isinstance(cause, psycopg.OperationalError | psycopg.InterfaceError):
        raise Unavailable("database_unavailable", f"the database did not take the call: {text}", _TRY_AGAIN) from error
    raise error


def _first_line(cause: BaseException | None) -> str:
    """What the server said, without the hints and the statement that follow."""
    return str(cause).partition("\n")[0].strip()


def _full(text: str) -> Exception:
    return Unavailable("database_full", f"the database has no room: {text}", "make room on its disk, then try again")


def _read_only(text: str) -> Exception:
    return Unavailable(
        "database_read_only", f"the database server takes no changes: {text}", "it is a standby: name the primary, or wait for the switch"
    )


def _busy(text: str) -> Exception:
    return Unavailable("database_busy", f"the database did not get to the call in time: {text}", _TRY_AGAIN)


def _damaged(text: str) -> Exception:
    return IntegrityFailure("database_damaged", f"the database is damaged: {text}", "restore it from a backup")


def _lost(text: str) -> Exception:
    return Unavailable("database_lost", f"a table of the database is gone: {text}", "restore it from a backup, or run keystead db upgrade")


def _refused(text: str) -> Exception:
    return Unavailable("database_refused", f"the database user lacks a right: {text}", "keystead db check shows whose database it is")


_MEANING: tuple[tuple[set[str], Callable[[str], Exception]], ...] = (
    (_FULL, _full),
    (_READ_ONLY, _read_only),
    (_BUSY, _busy),
    (_DAMAGED, _damaged),
    (_NO_TABLE, _lost),
    (_NO_RIGHT, _refused),
)
