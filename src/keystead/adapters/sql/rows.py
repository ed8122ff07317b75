"""Helpers that all tables share."""

from __future__ import annotations

from contextlib import contextmanager
from operator import itemgetter
from typing import TYPE_CHECKING, TypeVar

from sqlalchemy import Insert
from sqlalchemy.exc import IntegrityError

from keystead.core.errors import Conflict

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Compiled, Connection, Update


_T = TypeVar("_T")

IN_LIMIT = 500
"""Values in one IN list: SQLite takes at most 32,766 variables a statement, and short lists keep the statement cache useful."""


class Many:
    """One statement for many rows, handed to the driver as they are: going through SQLAlchemy costs more a row than SQLite does.

    For columns whose values the driver takes unchanged: text, numbers and bytes. Every bound value has a name.
    """

    def __init__(self, statement: Insert | Update) -> None:
        self._statement = statement
        self._compiled: dict[str, Compiled] = {}

    def run(self, connection: Connection, rows: Sequence[dict[str, object]]) -> int:
        """How many rows the statement met."""
        if not rows:
            return 0
        dialect = connection.dialect
        compiled = self._compiled.get(dialect.name)
        if compiled is None:
            names = list(rows[0]) if isinstance(self._statement, Insert) else None
            compiled = self._compiled[dialect.name] = self._statement.compile(dialect=dialect, column_keys=names)
        order = getattr(compiled, "positiontup", None)
        values = list(map(itemgetter(*order), rows)) if order else [dict(row) for row in rows]
        return connection.exec_driver_sql(str(compiled), values).rowcount


@contextmanager
def conflict(code: str, detail: str, mend: str) -> Iterator[None]:
    """A violated uniqueness becomes a Conflict that names what is taken."""
    try:
        yield
    except IntegrityError as error:
        raise Conflict(code, detail, mend) from error


def chunks(values: Sequence[_T], size: int = IN_LIMIT) -> Iterator[Sequence[_T]]:
    """The values, at most `size` at a time."""
    for start in range(0, len(values), size):
        yield values[start : start + size]
