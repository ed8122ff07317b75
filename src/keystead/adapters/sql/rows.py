"""Helpers that all tables share."""

from __future__ import annotations

from collections import namedtuple
from contextlib import contextmanager
from operator import itemgetter
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import Insert
from sqlalchemy.exc import IntegrityError

from keystead.core.errors import Conflict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from sqlalchemy import Compiled, Connection, Delete, Select, Update


_T = TypeVar("_T")

IN_LIMIT = 500
"""Values in one IN list: SQLite takes at most 32,766 variables a statement, and short lists keep the statement cache useful."""


class Many:
    """One statement for many rows, handed to the driver as they are: going through SQLAlchemy costs more a row than SQLite does.

    For columns whose values the driver takes unchanged: text, numbers and bytes. Every bound value has a name.
    """

    def __init__(self, statement: Insert | Update | Delete) -> None:
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
        return connection.exec_driver_sql(str(compiled), values[0] if len(values) == 1 else values).rowcount


class Lookup:
    """One query of every call, handed to the driver as it is: SQLAlchemy's way round takes several times as long as SQLite does.

    Rows come as tuples with the columns' names, their values as the driver gives them: on SQLite a boolean is a number. Every bound value
    has a name. Errors are the driver's, which `reading` and `writing` translate like SQLAlchemy's.
    """

    def __init__(self, statement: Select[Any]) -> None:
        self._statement = statement
        names = [str(column.key) for column in statement.selected_columns]
        self._row: Any = namedtuple("Row", names)  # type: ignore[misc]  # noqa: PYI024 - its names are the statement's
        self._compiled: dict[str, tuple[str, Callable[[dict[str, object]], tuple[object, ...]] | None]] = {}

    def first(self, connection: Connection, **values: object) -> Any:  # noqa: ANN401 - columns of any statement
        """The first row; None for none."""
        found = self._cursor(connection, values).fetchone()
        return self._row._make(found) if found is not None else None

    def all(self, connection: Connection, **values: object) -> list[Any]:
        """Every row."""
        return [self._row._make(found) for found in self._cursor(connection, values)]

    def _cursor(self, connection: Connection, values: dict[str, object]) -> Any:  # noqa: ANN401 - either driver's
        text, ordered = self._compiled.get(connection.dialect.name) or self._compile(connection)
        raw: Any = connection.connection.driver_connection
        return raw.execute(text, values if ordered is None else ordered(values))

    def _compile(self, connection: Connection) -> tuple[str, Callable[[dict[str, object]], tuple[object, ...]] | None]:
        compiled = self._statement.compile(dialect=connection.dialect)
        names = getattr(compiled, "positiontup", None)
        made = str(compiled), (None if names is None else _in_order(names, compiled.params))
        self._compiled[connection.dialect.name] = made
        return made


def _in_order(names: Sequence[str], own: Mapping[str, object]) -> Callable[[dict[str, object]], tuple[object, ...]]:
    """The values for a statement whose parameters go by position; SQLAlchemy gives one with a LIMIT an offset of its own."""
    ours = {name: value for name, value in own.items() if value is not None}
    return lambda values: tuple(values[name] if name in values else ours[name] for name in names)


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
