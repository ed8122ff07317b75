"""Counting acts that were refused because the database did not take their record.

No audit record, no act: when the database is full, gone or read-only, acts are refused, and the alert that should say so cannot be stored
either. So each is counted beside the database, and becomes an alert as soon as the database takes one (`services.alerting`).
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from keystead.core.errors import IntegrityFailure, Unavailable
from keystead.ports.notify import Unwritten
from keystead.services.tally import Counted, Tally

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from keystead.ports.clock import Clock
    from keystead.ports.notify import Ledger
    from keystead.ports.tx import Database, Tx

OF_THE_DATABASE = ("database_", "storage_", "audit_unwritable", "commit_unknown")
"""How the codes begin that say that a writing transaction did not come about, whatever was in it."""


class MemoryLedger:
    """Counts for one process; implements `Ledger`. What it holds is lost with the process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counted: Unwritten | None = None

    def note(self, now: int, code: str) -> None:
        """One more."""
        with self._lock:
            self._counted = Unwritten(1, now, now, code).plus(self._counted)

    @contextmanager
    def taking(self) -> Iterator[Unwritten | None]:
        """What was counted, and what comes in meanwhile is kept for the next time."""
        with self._lock:
            taken, self._counted = self._counted, None
        try:
            yield taken
        except BaseException:
            with self._lock:
                self._counted = taken.plus(self._counted) if taken else self._counted
            raise


class CountingDatabase:
    """A database whose failed writing transactions are counted; implements `Database`.

    Nearly every writing transaction holds an audit record, and nothing but the database can fail with these codes inside one: no vault,
    object or key store is called there.
    """

    def __init__(self, inner: Database, ledger: Ledger, clock: Clock, tally: Tally | None = None) -> None:
        self._inner = inner
        self._ledger = ledger
        self._clock = clock
        self._tally = tally or Tally()

    @contextmanager
    def write(self) -> Iterator[Tx]:
        """A writing transaction of the database behind."""
        try:
            with self._inner.write() as tx:
                yield tx
        except (Unavailable, IntegrityFailure) as error:
            if error.code.startswith(OF_THE_DATABASE):
                self._tally.count(Counted.AUDIT_UNWRITTEN)
                self._ledger.note(self._clock.now(), error.code)
            raise

    def read(self) -> AbstractContextManager[Tx]:
        """A reading transaction of the database behind."""
        return self._inner.read()
