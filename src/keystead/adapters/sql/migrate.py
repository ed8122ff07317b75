"""Bringing a database to the schema this version of Keystead works with.

Each of the three databases has a family of numbered migrations in this package. Alembic is imported only when a database is new or behind:
at every other start one small read is all it costs. A home's files are upgraded when they are opened. A server's database is upgraded by
`keystead db upgrade` alone: other processes, perhaps of an older version, are at work on it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from keystead.adapters.sql.engine import is_server, reading, writing
from keystead.core.errors import Conflict, PreconditionFailed, Unavailable

if TYPE_CHECKING:
    from alembic.config import Config
    from sqlalchemy import Connection, Engine

MIGRATIONS = Path(__file__).parent / "migrations"
HEADS = {"keystead": "0007", "keys": "0001", "vault": "0005"}
"""The revision each family is at; a test compares it with the migration files."""
UPGRADE = "keystead db upgrade"


def version_table(family: str) -> str:
    """The table with the revision a database is at. Its name tells whose database it is."""
    return f"{family}_schema"


def present_revision(engine: Engine, family: str) -> str | None:
    """The revision a database is at; None for a new one."""
    try:
        with reading(engine) as connection:
            return connection.execute(text(f"SELECT version_num FROM {version_table(family)}")).scalar()  # noqa: S608 - one of three names
    except Unavailable as error:
        cause = error.__cause__
        if isinstance(cause, DBAPIError) and (getattr(cause.orig, "sqlstate", "") == "42P01" or "no such table" in str(cause.orig)):
            return None
        raise


def ensure_current(engine: Engine, family: str) -> None:
    """Upgrade a home's file that is new or behind; refuse a server's database that is.

    Raises:
        PreconditionFailed: `schema_too_new`: the database was written by a newer version of Keystead. `schema_behind`: a server's
            database was not upgraded yet. `database_collation`: it does not order text by its bytes.
    """
    revision = present_revision(engine, family)
    if is_server(engine):
        with reading(engine) as connection:
            check_ordering(connection)
    if revision == HEADS[family]:
        return
    _refuse_newer(revision, family)
    if is_server(engine):
        raise PreconditionFailed(
            "schema_behind",
            f"the {family} database is at revision {revision or 'none'}; this version of Keystead works with {HEADS[family]}",
            f"run {UPGRADE}, when no process of an older version is at work",
        )
    upgrade(engine, family)


def upgrade(engine: Engine, family: str) -> str | None:
    """Bring a database to the present revision, in one transaction; returns the one it was at.

    Two that do it at once take turns, and the second finds nothing to do.

    Raises:
        PreconditionFailed: see `ensure_current`.
        Conflict: `database_shared`: it is another family's database.
    """
    before = present_revision(engine, family)
    _refuse_newer(before, family)
    if before == HEADS[family]:
        return before
    from alembic import command  # noqa: PLC0415 - see the module's docstring

    with writing(engine) as connection:
        if is_server(engine):
            check_ordering(connection)
            _check_unshared(connection, family)
            connection.execute(text("SET LOCAL statement_timeout = 0"))
        if not connection.in_transaction():
            connection.begin()  # tells Alembic that the transaction is ours to end
        config = alembic_config(family)
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    return before


def check_ordering(connection: Connection) -> None:
    """Refuse a server's database that would sort, and page, names otherwise than by their bytes; or that holds other than UTF-8.

    Raises:
        PreconditionFailed: `database_collation`.
    """
    by_bytes, collation, encoding = connection.execute(
        text(
            "SELECT 'B' < 'a' AND 'a-b' < 'a.a' AND 'z' < U&'\\00E9', datcollate, pg_encoding_to_char(encoding)"
            " FROM pg_database WHERE datname = current_database()"
        )
    ).one()
    if not by_bytes or encoding != "UTF8":
        raise PreconditionFailed(
            "database_collation",
            f"the database orders text by {collation} in {encoding}; Keystead needs C in UTF8",
            "make it anew: CREATE DATABASE name OWNER user TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C'",
        )


def alembic_config(family: str) -> Config:
    """Alembic's configuration for one family, made here instead of in a file."""
    from alembic.config import Config  # noqa: PLC0415 - see the module's docstring

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS / family))
    config.set_main_option("path_separator", "os")
    config.attributes["version_table"] = version_table(family)
    return config


def _refuse_newer(revision: str | None, family: str) -> None:
    if revision is not None and revision > HEADS[family]:
        raise PreconditionFailed(
            "schema_too_new",
            f"the {family} database is at revision {revision}; this version of Keystead knows up to {HEADS[family]}",
            "use the newer version",
        )


def _check_unshared(connection: Connection, family: str) -> None:
    """The three stores never share credentials, so they never share a database."""
    for other in HEADS:
        if other != family and connection.execute(text(f"SELECT to_regclass('{version_table(other)}')")).scalar() is not None:
            raise Conflict(
                "database_shared",
                f"the database named for {family} is the {other} database",
                "give each of the three stores a database and a user of its own",
            )
