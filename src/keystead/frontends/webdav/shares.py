"""How many requests run at once for one person and for one tenant: nobody holds all threads."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING

from keystead.core.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

OF_A_PERSON, OF_A_TENANT = 0.5, 0.75
"""Of the threads. A program that copies trees runs a dozen requests at once."""


class Shares:
    """Counts the requests under way of one process.

    Args:
        threads: how many there can be.
    """

    def __init__(self, threads: int) -> None:
        self._lock = Lock()
        self._person = max(1, int(threads * OF_A_PERSON))
        self._tenant = max(1, int(threads * OF_A_TENANT))
        self._running: Counter[str] = Counter()

    @contextmanager
    def taken(self, upn: str, tenant_id: str) -> Iterator[None]:
        """Around a request of somebody.

        Raises:
            Unavailable: `too_many_requests`: as many as there may be are under way.
        """
        with self._lock:
            if self._running[upn] >= self._person or self._running[tenant_id] >= self._tenant:
                raise Unavailable("too_many_requests", "as many requests as there may be at once are under way", "send fewer at a time")
            self._running.update((upn, tenant_id))
        try:
            yield
        finally:
            with self._lock:
                self._running.subtract((upn, tenant_id))
                self._running += Counter()  # drops those that are at nothing
