"""What a process remembers for a while of those who sign in, to the service or to a vault; for threads. Nothing here is stored."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock
from typing import TYPE_CHECKING, Generic, TypeVar

from keystead.core.access.throttle import Failures, more, wait

if TYPE_CHECKING:
    from keystead.core.access.throttle import Pace

T = TypeVar("T")


class Recent(Generic[T]):
    """The latest few things by the SHA-256 of a token."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = Lock()
        self._kept: OrderedDict[bytes, T] = OrderedDict()

    def __repr__(self) -> str:
        return f"Recent({len(self._kept)} of {self._most})"

    def get(self, key: bytes) -> T | None:
        """What was put there; it counts as fresh again."""
        with self._lock:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
            return found

    def put(self, key: bytes, value: T) -> None:
        """Keep it, and drop the oldest if there are too many."""
        with self._lock:
            self._kept[key] = value
            self._kept.move_to_end(key)
            if len(self._kept) > self._most:
                self._kept.popitem(last=False)

    def drop(self, key: bytes) -> None:
        """Forget it."""
        with self._lock:
            self._kept.pop(key, None)


class Attempts:
    """Failures by address, and by token or client, of at most so many of them: each process counts for itself."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = Lock()
        self._failures: OrderedDict[str, Failures] = OrderedDict()

    def waiting(self, names: tuple[str, ...], now: int, pace: Pace) -> int:
        """Milliseconds until any of these may try again; 0 for now."""
        with self._lock:
            return max((wait(self._failures.get(name, Failures()), now, pace) for name in names), default=0)

    def failed(self, names: tuple[str, ...], now: int, pace: Pace) -> None:
        """Count a failure for each."""
        with self._lock:
            for name in names:
                self._failures[name] = more(self._failures.get(name, Failures()), now, pace)
                self._failures.move_to_end(name)
            while len(self._failures) > self._most:
                self._failures.popitem(last=False)
