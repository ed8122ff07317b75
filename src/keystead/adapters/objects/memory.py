"""Objects in memory, for tests of what is built on object stores. It asserts what callers must never do.

- A stored object never changes: it is kept as immutable bytes, a copy of what was given, and its name is never given twice.
- A deleted object never returns: storing under its reference again is a caller that mixes references up.
"""

from __future__ import annotations

import time
from threading import Lock
from typing import TYPE_CHECKING

from keystead.adapters.objects import references
from keystead.ports.objects import ObjectInfo

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from keystead.core.ids import RandomBytes


class MemoryObjects:
    """Implements `ObjectStore`.

    Attributes:
        fail_before_store: raised once by the next `put`, before anything is stored.
        fail_after_store: raised once by the next `put`, when the object is stored: the answer was lost.
    """

    def __init__(self, containers: int = 4) -> None:
        self._containers = references.names(containers)
        self._lock = Lock()
        self._objects: dict[str, tuple[bytes, float]] = {}
        self._deleted: set[str] = set()
        self.fail_before_store: Exception | None = None
        self.fail_after_store: Exception | None = None

    def new_ref(self, random: RandomBytes) -> str:
        """A fresh reference in a container chosen at random."""
        return references.new_ref(random, self._containers)

    def put(self, ref: str, chunks: Iterable[bytes | memoryview]) -> int:
        """Store the chunks as one object."""
        references.parts(ref)
        data = b"".join(bytes(chunk) for chunk in chunks)  # each copied before the next: the source may fill the same buffer again
        with self._lock:
            failure, self.fail_before_store = self.fail_before_store, None
            if failure is not None:
                raise failure
            assert ref not in self._deleted, f"{ref} was deleted and must not come back"
            if ref in self._objects:
                raise references.exists(ref)
            self._objects[ref] = (data, time.monotonic())
            failure, self.fail_after_store = self.fail_after_store, None
            if failure is not None:
                raise failure
        return len(data)

    def get(self, ref: str, offset: int, length: int) -> bytes:
        """Exactly `length` bytes from `offset`."""
        references.parts(ref)
        references.check_range(ref, offset, length)
        with self._lock:
            found = self._objects.get(ref)
        if found is None:
            raise references.missing(ref)
        data, _ = found
        part = data[offset : offset + length]
        if len(part) != length:
            raise references.truncated(ref, offset, length)
        return part

    def delete(self, ref: str) -> None:
        """Remove an object."""
        references.stored_parts(ref)
        with self._lock:
            if self._objects.pop(ref, None) is not None:
                self._deleted.add(ref)

    def all_objects(self) -> Iterator[ObjectInfo]:
        """Every object."""
        with self._lock:
            found = list(self._objects.items())
        now = time.monotonic()
        for ref, (data, stored) in found:
            yield ObjectInfo(ref, len(data), now - stored)

    def check(self) -> list[str]:
        """Memory always answers."""
        return []
