"""What the store said, remembered for as long as nothing in it has changed (docs/adr/0026-what-is-seen-under-one-stamp.md).

Rows are remembered under the store's stamp, which every call reads anew; under another stamp they are forgotten. So a permission that was
taken away, by whichever process, is gone at the next call (R-042). Only rows are remembered, never a decision: what depends on the time or
on the caller is decided at each call.

Where calls wait for their turn, one look at the stamp does for all that had come before it: it is younger than any of them.
"""

from __future__ import annotations

from threading import Lock
from time import monotonic
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Hashable

    from keystead.ports.vault_store import VaultStore

T = TypeVar("T")


class Seen(Generic[T]):
    """Rows of one kind. Safe to use from several threads.

    Args:
        most: rows kept; one more, and all are forgotten. Looking them up again costs what every call cost before.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = Lock()
        self._kept: tuple[int | None, dict[Hashable, T]] = (None, {})

    def __repr__(self) -> str:
        return f"Seen({len(self._kept[1])} of {self._most})"

    def get(self, stamp: int | None, key: Hashable) -> T | None:
        """What was seen under this stamp."""
        seen, rows = self._kept  # both at once: another thread replaces the pair, and never changes which stamp a dict belongs to
        return rows.get(key) if seen == stamp and stamp is not None else None

    def put(self, stamp: int | None, key: Hashable, row: T) -> None:
        """Remember what one snapshot said, of which the stamp is a part."""
        if stamp is None:
            return
        with self._lock:
            seen, rows = self._kept
            if seen != stamp or len(rows) >= self._most:
                rows = {}
                self._kept = (stamp, rows)
            rows[key] = row


class Stamps:
    """Looks at a store's stamp. Safe to use from several threads."""

    def __init__(self, store: VaultStore) -> None:
        self._store = store
        self._last: tuple[float, int | None] = (0.0, None)

    def current(self, came: float | None = None) -> int | None:
        """The stamp after a call had come.

        Args:
            came: when, by `time.monotonic`: before anything of it was looked at. None: just now.

        Raises:
            Unavailable: the store does not answer.
        """
        asked, stamp = self._last
        if came is None or came >= asked:
            asked = monotonic()  # before the look, which sees what is committed in between; a call that comes in between asks again
            stamp = self._store.stamp()
            self._last = (asked, stamp)
        return stamp
