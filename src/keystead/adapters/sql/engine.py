"""Opening a database and its transactions: SQLite for a home, PostgreSQL for a fleet.

Both keep the same two promises, on which the use cases build (docs/adr/0021-one-writer-at-a-time.md):

- *Writing* transactions of a database never overlap, in any process on any machine: what one reads is so until it commits, and what it
  commits is on the disk when `writing` returns.
- *Reading* transactions see one snapshot and never wait for a writer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from keystead.adapters.sql import sqlite

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

    from sqlalchemy import Connection, Engine

    from keystead.core.configuration import DatabaseConfig


def open_engine(config: DatabaseConfig, default: Path, folder: Path) -> Engine:
    """An engine on the database that is configured. Nothing is asked of a server yet.

    Args:
        config: where it is.
        default: the SQLite file when no server is named; made when it does not exist.
        folder: what a relative path of the configuration counts from.

    Raises:
        InvalidRequest: `configuration_invalid`: the address is none, or holds a password.
        Unavailable: the file cannot be made.
    """
    if not config.url:
        return sqlite.sqlite_engine(default)
    from keystead.adapters.sql.postgresql import postgresql_engine  # noqa: PLC0415 - a home does without the driver

    return postgresql_engine(config, folder)


def is_server(engine: Engine) -> bool:
    """Whether the database is a server's, and no file of a home."""
    return engine.dialect.name != "sqlite"


def writing(engine: Engine) -> AbstractContextManager[Connection]:
    """One writing transaction: committed when the block ends, rolled back when it raises.

    Raises:
        Unavailable: the database did not take it. With `commit_unknown` nobody knows whether it did; with any other code nothing is stored.
        IntegrityFailure: the database is damaged.
        InvalidRequest: a value does not fit in its column.
    """
    if is_server(engine):
        from keystead.adapters.sql import postgresql  # noqa: PLC0415 - a home does without the driver

        return postgresql.writing(engine)
    return sqlite.writing(engine)


def reading(engine: Engine) -> AbstractContextManager[Connection]:
    """One reading transaction: a single snapshot.

    Raises:
        Unavailable: the database does not answer.
        IntegrityFailure: the database is damaged.
    """
    if is_server(engine):
        from keystead.adapters.sql import postgresql  # noqa: PLC0415 - a home does without the driver

        return postgresql.reading(engine)
    return sqlite.reading(engine)


def glance(engine: Engine, query: str) -> tuple[Any, ...] | None:
    """The one row of a query without values, as everything committed so far has made it; None for none. For what every call asks.

    Raises:
        Unavailable: the database does not answer.
        IntegrityFailure: the database is damaged.
    """
    if is_server(engine):
        from keystead.adapters.sql import postgresql  # noqa: PLC0415 - a home does without the driver

        return postgresql.glance(engine, query)
    return sqlite.glance(engine, query)
