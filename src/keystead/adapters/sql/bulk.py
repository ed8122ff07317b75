"""Statements about many rows at once, by lists of values: each database is given them the way it takes them quickest."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from sqlalchemy import BigInteger, Boolean, Integer, LargeBinary, bindparam
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import NullType

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from sqlalchemy import Column, Connection, Table
    from sqlalchemy.sql.compiler import SQLCompiler

HASH_BYTES = 32
SERVER_FROM = 4
"""Rows from which on PostgreSQL is sent arrays; fewer go as they are."""


class Among(FunctionElement[bool]):
    """Whether a column is one of a list of texts of any length, which is one value: `listed` makes it."""

    inherit_cache = True

    def __init__(self, column: Column[Any], name: str) -> None:
        super().__init__(column, bindparam(name, type_=NullType()))


@compiles(Among, "sqlite")
def _among_sqlite(element: Among, compiler: SQLCompiler, **options: Any) -> str:  # noqa: ANN401 - passed on
    column, values = (compiler.process(part, **options) for part in element.clauses)
    return f"{column} IN (SELECT value FROM json_each({values}))"  # noqa: S608 - what SQLAlchemy made of a column and a parameter


@compiles(Among, "postgresql")
def _among_postgresql(element: Among, compiler: SQLCompiler, **options: Any) -> str:  # noqa: ANN401 - passed on
    column, values = (compiler.process(part, **options) for part in element.clauses)
    return f"{column} = ANY({values})"


class AmongHashes(FunctionElement[bool]):
    """Whether a column of 32 bytes is one of a list of such: `hashed` makes the values."""

    inherit_cache = True

    def __init__(self, column: Column[Any], name: str) -> None:
        super().__init__(column, bindparam(name, type_=NullType()), bindparam(f"{name}_at", type_=NullType()))


@compiles(AmongHashes, "sqlite")
def _hashes_sqlite(element: AmongHashes, compiler: SQLCompiler, **options: Any) -> str:  # noqa: ANN401 - passed on
    column, values, places = (compiler.process(part, **options) for part in element.clauses)
    return f"{column} IN (SELECT substr({values}, value, {HASH_BYTES}) FROM json_each({places}))"  # noqa: S608 - as above


@compiles(AmongHashes, "postgresql")
def _hashes_postgresql(element: AmongHashes, compiler: SQLCompiler, **options: Any) -> str:  # noqa: ANN401 - passed on
    column, values, _places = (compiler.process(part, **options) for part in element.clauses)
    return f"{column} = ANY({values})"


def hashed(connection: Connection, name: str, hashes: Collection[bytes]) -> dict[str, object]:
    """The values of an `AmongHashes`: SQLite's arrays hold no bytes, so it gets them in one piece, and where each begins."""
    if connection.dialect.name != "sqlite":
        return {name: list(hashes)}
    return {name: b"".join(hashes), f"{name}_at": json.dumps(list(range(1, len(hashes) * HASH_BYTES, HASH_BYTES)))}


def listed(connection: Connection, values: Collection[str]) -> object:
    """The value of an `Among`."""
    return json.dumps(list(values)) if connection.dialect.name == "sqlite" else list(values)


class Bulk:
    """One INSERT or UPDATE of many rows, given as tuples. SQLite takes them one by one; PostgreSQL gets an array for each column.

    For columns whose values the driver takes unchanged.
    """

    def __init__(
        self, table: Table, columns: Sequence[str], *, keys: Sequence[str] = (), same: Sequence[str] = (), or_nothing: bool = False
    ) -> None:
        """Prepare it.

        Args:
            table: whose rows.
            columns: whose values the tuples hold, in this order.
            keys: those of the columns that say which row is meant; given, the others are changed in it; none for new rows.
            same: those that only a row is changed that has these values: compared through a function, so that no plan finds rows by them.
            or_nothing: leave a new row out if there is one of its primary key.
        """
        names = ", ".join(f'"{name}"' for name in columns)
        arrays = ", ".join(f"%s::{_type(table.c[name])}[]" for name in columns)
        given = f"unnest({arrays}) AS given({names})"
        self._order: list[int] | None = None
        if keys:
            changed = [name for name in columns if name not in {*keys, *same}]
            one = [*_equal(keys), *(f"coalesce(\"{name}\", '') = %s" for name in same)]
            every = [f'{table.name}."{name}" = given."{name}"' for name in keys]
            every += [f'coalesce({table.name}."{name}", \'\') = given."{name}"' for name in same]
            self._one = _said(f"UPDATE {table.name} SET", ", ".join(_equal(changed)), "WHERE", " AND ".join(one))
            sources = ", ".join(f'"{name}" = given."{name}"' for name in changed)
            self._all = _said(f"UPDATE {table.name} SET", sources, "FROM", given, "WHERE", " AND ".join(every))
            self._order = [list(columns).index(name) for name in (*changed, *keys, *same)]
        else:
            into, end = f"INSERT INTO {table.name} ({names})", "ON CONFLICT DO NOTHING" if or_nothing else ""
            self._one = _said(into, f"VALUES ({', '.join(['%s'] * len(columns))})", end)
            self._all = _said(into, "SELECT * FROM", given, end)
        self._sqlite = self._one.replace("%s", "?")

    def run(self, connection: Connection, rows: Iterable[tuple[object, ...]]) -> int:
        """How many rows were met. Errors of uniqueness are SQLAlchemy's."""
        rows = list(rows)
        if not rows:
            return 0
        server = connection.dialect.name != "sqlite"
        if server and len(rows) >= SERVER_FROM:
            return connection.exec_driver_sql(self._all, tuple(map(list, zip(*rows, strict=True)))).rowcount
        if self._order is not None:
            order = self._order
            rows = [tuple(row[place] for place in order) for row in rows]
        return connection.exec_driver_sql(self._one if server else self._sqlite, rows[0] if len(rows) == 1 else rows).rowcount


def _said(*parts: str) -> str:
    """A statement, of names of our own tables and columns."""
    return " ".join(parts)


def _equal(names: Sequence[str]) -> list[str]:
    return [f'"{name}" = %s' for name in names]


def _type(column: Column[Any]) -> str:
    """PostgreSQL's type without a length: a cast to one with a length would cut what is too long, where the column refuses it."""
    for kind, name in ((BigInteger, "bigint"), (Integer, "integer"), (Boolean, "boolean"), (LargeBinary, "bytea")):
        if isinstance(column.type, kind):
            return name
    return "text"
