"""Ciphertext under random names, spread over several containers.

Implementations: folders (`adapters/objects/folder.py`, fsync before return), S3 buckets and Azure Blob containers
(`adapters/objects/remote.py`), several of these as one (`adapters/objects/containers.py`), and memory (`adapters/objects/memory.py`,
asserts that objects never change). Objects are written once and never changed.

Who retries: a remote store's adapter, for lost answers, a few times (`[objects] retries`), and once with new credentials after a refusal.
Nobody else below the service. What still fails is `Unavailable`; a `put` that raised it may have stored the object all the same, as one
that nobody refers to.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from keystead.core.ids import RandomBytes


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One stored object. `age_seconds` by the store's own clock: never the dev clock, which can be advanced under a running import."""

    ref: str
    size: int
    age_seconds: float


class ObjectStore(Protocol):
    """Raises, every method: `Unavailable` when the store cannot be reached or is full."""

    def new_ref(self, random: RandomBytes) -> str:
        """A fresh reference, CONTAINER/NAME, in a container chosen at random; at most 80 ASCII characters."""
        ...

    def put(self, ref: str, chunks: Iterable[bytes | memoryview]) -> int:
        """Store the chunks as one object; returns its size in bytes. Durable when it returns; a crash before leaves no object of that name.

        A large chunk costs a folder least in a buffer of `direct_io`, which begins on a page.

        Raises:
            Conflict: the name exists; objects are never overwritten.
        """
        ...

    def get(self, ref: str, offset: int, length: int) -> bytes:
        """Exactly `length` bytes from `offset`.

        Raises:
            NotFound: no such object.
            IntegrityFailure: the object ends before.
        """
        ...

    def delete(self, ref: str) -> None:
        """Remove an object; one that does not exist is passed over."""
        ...

    def all_objects(self) -> Iterator[ObjectInfo]:
        """Every object of every container, in no order, for the job that collects what a crash left behind. Memory stays flat."""
        ...

    def check(self) -> list[str]:
        """Names of containers that do not answer just now; a few seconds at most. Raises nothing."""
        ...
