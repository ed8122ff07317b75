"""Which databases a test's installation has: SQLite files in its folder, or databases of this process's PostgreSQL.

The fixture `database` (tests/conftest.py) says which, and `Stores` is the one thing that knows the difference: it opens engines, copies
a whole installation, and reads or changes rows past the service, as somebody with the database could.
"""

from __future__ import annotations

import sqlite3
import subprocess
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import psycopg
from psycopg import conninfo, sql

from keystead.adapters.sql.engine import open_engine
from keystead.adapters.sql.migrate import upgrade, version_table
from keystead.adapters.sql.sqlite import sqlite_engine
from keystead.core.configuration import DatabaseConfig
from support.disk import bytes_of
from support.postgres import ADMIN, USERS, Databases, cluster

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Engine

FAMILIES = tuple(USERS)
SQLITE, POSTGRESQL = "sqlite", "postgresql"
BOTH = (SQLITE, POSTGRESQL)


class Chosen:
    """What installations made from now on have; set by the fixture."""

    kind = SQLITE


class Stores(Protocol):
    """The three databases of an installation, by family: keystead, keys, vault."""

    def engine(self, family: str) -> Engine:
        """Open one, as a process of its own does; its schema is up to date."""
        ...

    def copy(self, folder: Path) -> Stores:
        """Make another installation's databases just like these; nobody may be using them."""
        ...

    def sql(self, family: str, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Run a statement of SQLite's with `?` for its values; its rows, if it has any."""
        ...

    def dump(self, *families: str) -> bytes:
        """All bytes of all rows; of files, what is left of older ones too."""
        ...

    def backup(self, family: str) -> Any:
        """What `restore` puts back; nobody may be using the database, now or then."""
        ...

    def restore(self, family: str, backup: Any) -> None:
        """Have what there was."""
        ...

    def lose(self, family: str) -> None:
        """Have an empty database, as if the old one had never been."""
        ...

    def refuse(self, family: str, table: str, *, allow: bool = False) -> None:
        """Let nobody insert into a table; `allow` ends it."""
        ...

    def close(self) -> None:
        """Remove what does not lie in the installation's folder."""
        ...


def make_stores(folder: Path, kind: str = "") -> Stores:
    """Fresh databases, of the kind the fixture says or of this one."""
    return _pooled() if (kind or Chosen.kind) == POSTGRESQL else SqliteStores(folder)


class SqliteStores:
    """Files of the installation's folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, family: str) -> Path:
        """The file."""
        return self._folder / f"{family}.db"

    def engine(self, family: str) -> Engine:
        return sqlite_engine(self.path(family))

    def copy(self, folder: Path) -> Stores:
        # By another process: closing a database file in this one would drop the locks SQLite holds on it.
        subprocess.run(["cp", *map(str, self._folder.glob("*.db*")), str(folder)], check=True)
        return SqliteStores(folder)

    def sql(self, family: str, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.path(family), timeout=30)) as connection, connection:
            return connection.execute(statement, values).fetchall()

    def dump(self, *families: str) -> bytes:
        return bytes_of(path for family in families for path in sorted(self._folder.glob(f"{family}.db*")))

    def backup(self, family: str) -> Any:
        return {path: path.read_bytes() for path in self._folder.glob(f"{family}.db*")}

    def restore(self, family: str, backup: Any) -> None:
        self.lose(family)
        for path, data in backup.items():
            path.write_bytes(data)

    def lose(self, family: str) -> None:
        for path in self._folder.glob(f"{family}.db*"):
            path.unlink()

    def refuse(self, family: str, table: str, *, allow: bool = False) -> None:
        refusal = f"CREATE TRIGGER refused BEFORE INSERT ON {table} BEGIN SELECT RAISE(ABORT, 'not allowed'); END"
        self.sql(family, "DROP TRIGGER refused" if allow else refusal)

    def close(self) -> None:
        """They go with the folder."""


class PostgresStores:
    """Databases of the process's PostgreSQL. Making one takes a fifth of a second: they are emptied and used again."""

    def __init__(self, databases: Databases) -> None:
        self.databases = databases
        self._connections: dict[str, psycopg.Connection[tuple[Any, ...]]] = {}

    def url(self, family: str) -> str:
        """Where it is."""
        url: str = getattr(self.databases, f"{family}_url")
        return url

    def name(self, family: str) -> str:
        """What PostgreSQL calls it."""
        return str(conninfo.conninfo_to_dict(self.url(family))["dbname"])

    def engine(self, family: str) -> Engine:
        return server_engine(self.url(family))

    def copy(self, folder: Path) -> Stores:
        copy = _pooled()
        for family in FAMILIES:
            copy.fill(family, self.rows(family), self.counted(family))
        return copy

    def sql(self, family: str, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        text = sql.SQL(statement.replace("%", "%%").replace("?", "%s") if values else statement)
        cursor = self.connection(family).execute(text, values or None)
        return cursor.fetchall() if cursor.description else []

    def dump(self, *families: str) -> bytes:
        return b"".join(data for family in families for data in self.rows(family).values())

    def backup(self, family: str) -> Any:
        return self.rows(family), self.counted(family)

    def restore(self, family: str, backup: Any) -> None:
        self.fill(family, *backup)

    def lose(self, family: str) -> None:
        self.fill(family, {}, [])

    def refuse(self, family: str, table: str, *, allow: bool = False) -> None:
        self.sql(family, f"{'GRANT' if allow else 'REVOKE'} INSERT ON {table} {'TO' if allow else 'FROM'} {USERS[family]}")

    def close(self) -> None:
        for family in FAMILIES:
            cluster().disconnect(self.name(family), keep=self.connection(family).info.backend_pid)
            self.fill(family, {}, [])
        _POOL.append(self)

    def connection(self, family: str) -> psycopg.Connection[tuple[Any, ...]]:
        """The superuser's, which is kept. Nothing checks what it writes."""
        known = self._connections.get(family)
        if known is not None:
            try:
                known.execute("SELECT 1")
            except psycopg.OperationalError:  # the server was restarted, by a test
                known = None
        if known is None:
            known = psycopg.connect(cluster().url(ADMIN, self.name(family)), autocommit=True)
            known.execute("SET session_replication_role = replica")
            self._connections[family] = known
        return known

    def rows(self, family: str) -> dict[str, bytes]:
        """What is in each table, as PostgreSQL copies it."""
        connection = self.connection(family)
        found = {}
        for table in self._tables(family):
            with connection.cursor().copy(sql.SQL("COPY {} TO STDOUT (FORMAT binary)").format(sql.Identifier(table))) as rows:
                found[table] = b"".join(bytes(part) for part in rows)
        return found

    def counted(self, family: str) -> list[tuple[Any, ...]]:
        """How far each of the numbers that PostgreSQL counts has come."""
        return self.connection(family).execute("SELECT sequencename, last_value FROM pg_sequences WHERE last_value IS NOT NULL").fetchall()

    def fill(self, family: str, rows: Mapping[str, bytes], counted: Sequence[tuple[Any, ...]]) -> None:
        """Have these rows and no others."""
        connection = self.connection(family)
        connection.execute(sql.SQL(";").join(sql.SQL("DELETE FROM {}").format(sql.Identifier(table)) for table in self._tables(family)))
        for table, data in rows.items():
            with connection.cursor().copy(sql.SQL("COPY {} FROM STDIN (FORMAT binary)").format(sql.Identifier(table))) as copy:
                copy.write(data)
        for name, last in counted:
            connection.execute("SELECT setval(%s, %s)", (name, last))

    def _tables(self, family: str) -> list[str]:
        found = self.connection(family).execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1")
        return [str(table) for (table,) in found if table != version_table(family)]


_POOL: list[PostgresStores] = []
"""Empty ones that nobody uses."""


def _pooled() -> PostgresStores:
    return _POOL.pop() if _POOL else PostgresStores(cluster().copied(_migrated()))


def server_engine(url: str, **more: Any) -> Engine:
    """An engine on a PostgreSQL database, as a member of a fleet opens it."""
    return open_engine(DatabaseConfig(url=url, **more), Path(), Path())


def fresh() -> Databases:
    """Three databases of the caller's own, at the present schema and empty."""
    return cluster().copied(_migrated())


@cache
def _migrated() -> Databases:
    """What fresh databases are copies of."""
    databases = cluster().databases()
    for family in FAMILIES:
        engine = server_engine(getattr(databases, f"{family}_url"))
        upgrade(engine, family)
        engine.dispose()
    return databases
