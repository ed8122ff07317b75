"""Objects in use, whoever's they are."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from sqlalchemy import delete, insert, select

from keystead.adapters.sql.keystead_schema import objects
from keystead.adapters.sql.rows import Many, chunks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from keystead.core.stores.objects import StoredObject

_NEW_OBJECT = Many(insert(objects))


class SqlObjectRows:
    """Implements ports.files.ObjectRows."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def insert(self, stored: Sequence[StoredObject]) -> None:
        _NEW_OBJECT.run(self._connection, [{**asdict(one), "due": None} for one in stored])

    def due(self, now: int, limit: int) -> list[str]:
        return list(self._connection.execute(select(objects.c.ref).where(objects.c.due <= now).limit(limit)).scalars())

    def forget(self, refs: Sequence[str]) -> None:
        for part in chunks(refs):
            self._connection.execute(delete(objects).where(objects.c.ref.in_(part)))

    def unknown(self, refs: Sequence[str]) -> list[str]:
        known: set[str] = set()
        for part in chunks(refs):
            known.update(self._connection.execute(select(objects.c.ref).where(objects.c.ref.in_(part))).scalars())
        return [ref for ref in refs if ref not in known]
