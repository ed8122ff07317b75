"""Tables to frames and back: the same bytes whatever kind of database they came from (docs/spec/home-archive.md)."""

from __future__ import annotations

import hashlib
import struct
from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import Integer, LargeBinary, func, insert, select, text
from sqlalchemy.exc import OperationalError, StatementError

from keystead.adapters.sql import keys_schema, keystead_schema, vault_schema
from keystead.adapters.sql.engine import is_server
from keystead.core.errors import IntegrityFailure

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sqlalchemy import Connection, MetaData, Table

ROWS_PER_FRAME = 5_000
FRAME_BYTES = 16 * 1024 * 1024
"""Of the rows in one frame; a single row may be larger, as the manifest of a very large file is."""
FETCHED, LARGE_FETCHED = 1_000, 32
"""Rows that are fetched at a time: of tables that may hold large values, few."""
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
    large = any(isinstance(column.type, LargeBinary) and column.type.length is None for column in table.c)
    statement = select(*table.c).order_by(*table.primary_key.columns)
    result = connection.execution_options(stream_results=True, yield_per=LARGE_FETCHED if large else FETCHED).execute(statement)
    encoder = msgspec.msgpack.Encoder()
    rows: list[bytes] = []
    size = 0
    for row in result:
        encoded = encoder.encode(tuple(row))
        if rows and (len(rows) == rows_per_frame or size + len(encoded) > FRAME_BYTES):
            yield len(rows), _array(rows)
            rows, size = [], 0
        rows.append(encoded)
        size += len(encoded)
    if rows:
        yield len(rows), _array(rows)


def _array(encoded: Sequence[bytes]) -> bytes:
    """A MessagePack array of things that are encoded, in the shortest form, as the encoder itself would write it."""
    count = len(encoded)
    header = bytes([0x90 | count]) if count < 16 else struct.pack(">BH", 0xDC, count) if count < 65_536 else struct.pack(">BI", 0xDD, count)
    return b"".join((header, *encoded))


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
