"""What a process remembers for a while of those who sign in, to the service or to a vault; for threads. Nothing here is stored."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Generic, TypeVar

from keystead.core.access.throttle import Failures, more, wait

if TYPE_CHECKING:
    from keystead.core.access.throttle import Pace

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)

MINUTE = 60_000
MOST_SOURCES = 20_000
"""Whose failures are told apart at one time."""
MOST_REPORTED = 200
"""Those with a record of their own in one minute; those beyond share one, so that many addresses do not flood a log."""


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


@dataclass(frozen=True, slots=True)
class Report(Generic[K]):
    """Failures from one source that go into one record; `codes` says how often each."""

    source: K
    codes: tuple[tuple[str, int], ...]


class FailureLog(Generic[K]):
    """Gathers failures so that a source gets at most one record a minute: the first at once, then one for what came since."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._written: OrderedDict[K, int] = OrderedDict()
        self._gathered: dict[K, Counter[str]] = {}
        self._minute = 0
        self._reported = 0

    def note(self, source: K, many: K, code: str, now: int) -> list[Report[K]]:
        """Count a failure.

        Args:
            source: where it came from: an address, and what it was about.
            many: what stands for it where too many sources have records of their own.
            code: of the error.
            now: milliseconds.

        Returns:
            What is to be recorded now.
        """
        with self._lock:
            if source not in self._written and self._room(now):
                self._written[source] = now
                while len(self._written) > MOST_SOURCES:
                    self._written.popitem(last=False)
                return [*self._due(now), Report(source, ((code, 1),))]
            self._gathered.setdefault(source if source in self._written else many, Counter())[code] += 1
            return self._due(now)

    def due(self, now: int, *, all_of_it: bool = False) -> list[Report[K]]:
        """What was gathered long enough ago to be recorded; or everything, when the process ends."""
        if not self._gathered:  # nearly always: without a lock, because an answer a moment late costs nothing
            return []
        with self._lock:
            return self._due(now, all_of_it=all_of_it)

    def _due(self, now: int, *, all_of_it: bool = False) -> list[Report[K]]:
        ready = [one for one in self._gathered if all_of_it or now - self._written.get(one, self._minute) >= MINUTE]
        found = [Report(one, tuple(sorted(self._gathered.pop(one).items()))) for one in ready]
        for one in ready:
            self._written[one] = now
        for one in [one for one, at in self._written.items() if now - at >= MINUTE and one not in self._gathered]:
            del self._written[one]
        return found

    def _room(self, now: int) -> bool:
        if now - self._minute >= MINUTE:
            self._minute, self._reported = now, 0
        self._reported += 1
        return self._reported <= MOST_REPORTED
