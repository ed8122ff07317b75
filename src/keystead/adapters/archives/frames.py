"""Tables to frames and back: the same bytes whatever kind of database they came from (docs/spec/home-archive.md)."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import Integer, func, insert, select, text
from sqlalchemy.exc import OperationalError, StatementError

from keystead.adapters.sql import keys_schema, keystead_schema, vault_schema
from keystead.adapters.sql.engine import is_server
from keystead.core.errors import IntegrityFailure

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlalchemy import Connection, MetaData, Table

ROWS_PER_FRAME = 5_000
FAMILIES: Mapping[str, MetaData] = {
    "keystead": keystead_schema.METADATA,
    "vault": vault_schema.METADATA,
    "keys": keys_schema.METADATA,
}
"""In the order they are read for an archive."""


def tables_of(family: str) -> list[Table]:
    """The tables of a family, each behind those its foreign keys name."""
    return FAMILIES[family].sorted_tables


def columns_of(table: Table) -> list[str]:
    """The names of a table's columns, as plain text: a name may be of a class of its own that says how it is quoted."""
    return [f"{column.name}" for column in table.c]


def frames_of(connection: Connection, table: Table, rows_per_frame: int = ROWS_PER_FRAME) -> Iterator[tuple[int, bytes]]:
    """The frames of a table: number of rows and bytes of each. Memory holds one frame."""
    statement = select(*table.c).order_by(*table.primary_key.columns)
    result = connection.execution_options(stream_results=True, yield_per=rows_per_frame).execute(statement)
    for rows in result.partitions(rows_per_frame):
        yield len(rows), msgspec.msgpack.encode([tuple(row) for row in rows])


def insert_frame(connection: Connection, table: Table, frame: bytes) -> int:
    """Insert the rows of a frame; returns how many.

    Raises:
        IntegrityFailure: it is no frame of this table.
    """
    try:
        rows = msgspec.msgpack.decode(frame, type=list[tuple[Any, ...]])
    except msgspec.DecodeError as error:
        raise IntegrityFailure("archive_damaged", f"a frame of {table.name} cannot be read", "export again") from error
    names = columns_of(table)
    if any(len(row) != len(names) for row in rows):
        raise IntegrityFailure("archive_damaged", f"a frame of {table.name} has rows of another shape", "export again")
    if rows:
        try:
            connection.execute(insert(table), [dict(zip(names, row, strict=True)) for row in rows])
        except StatementError as error:
            if isinstance(error, OperationalError):  # the database, and not what is to go into it
                raise
            # Without the driver's error: it repeats the rows.
            raise IntegrityFailure("archive_damaged", f"a frame of {table.name} has rows that do not fit", "export again") from None
    return len(rows)


def is_empty(connection: Connection, table: Table) -> bool:
    """Whether a table has no rows."""
    return connection.execute(select(text("1")).select_from(table).limit(1)).first() is None


def count_on(connection: Connection, table: Table) -> None:
    """Let a server's counter go on behind the rows that were inserted with numbers of their own."""
    column = table.autoincrement_column
    if column is None or not is_server(connection.engine) or not isinstance(column.type, Integer):
        return
    sequence = connection.execute(select(func.pg_get_serial_sequence(table.name, column.name))).scalar()
    if sequence is not None:
        highest = connection.execute(select(func.max(column))).scalar()
        connection.execute(select(func.setval(sequence, highest or 1, highest is not None)))


def digest(data: bytes) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(data).hexdigest()
