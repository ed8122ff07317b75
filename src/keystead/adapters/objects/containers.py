"""Objects spread over several containers, each with a store and credentials of its own (R-113, R-114)."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Protocol

from keystead.adapters.objects import references
from keystead.core.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from keystead.core.ids import RandomBytes
    from keystead.ports.objects import ObjectInfo

CHECKED_AT_ONCE = 8


class Container(Protocol):
    """What keeps the objects of one container: as `ObjectStore`, for references into it."""

    def put(self, ref: str, chunks: Iterable[bytes | memoryview]) -> int:
        """Store an object."""
        ...

    def get(self, ref: str, offset: int, length: int) -> bytes:
        """Read a range."""
        ...

    def delete(self, ref: str) -> None:
        """Remove an object."""
        ...

    def all_objects(self) -> Iterator[ObjectInfo]:
        """List objects."""
        ...

    def check(self) -> list[str]:
        """Anything at all, if it does not answer."""
        ...


class Containers:
    """Implements `ObjectStore`. A reference names its container for ever; where new objects go may change.

    Args:
        containers: what keeps each, by name.
        accepting: where new objects go; at least one.
    """

    def __init__(self, containers: Mapping[str, Container], accepting: Sequence[str]) -> None:
        self._containers = containers
        self._accepting = tuple(accepting)

    def new_ref(self, random: RandomBytes) -> str:
        """A fresh reference in one of the accepting containers, chosen at random."""
        return references.new_ref(random, self._accepting)

    def put(self, ref: str, chunks: Iterable[bytes | memoryview]) -> int:
        """Store the chunks as one object."""
        return self._of(references.parts(ref)[0]).put(ref, chunks)

    def get(self, ref: str, offset: int, length: int) -> bytes:
        """Exactly `length` bytes from `offset`."""
        return self._of(references.parts(ref)[0]).get(ref, offset, length)

    def delete(self, ref: str) -> None:
        """Remove an object."""
        self._of(references.stored_parts(ref)[0]).delete(ref)

    def all_objects(self) -> Iterator[ObjectInfo]:
        """Every object of every container. Two containers may lie in one folder; each lists its own."""
        for name, container in self._containers.items():
            for found in container.all_objects():
                if found.ref.startswith(f"{name}/"):
                    yield found

    def check(self) -> list[str]:
        """Names of containers that do not answer; they are asked at the same time."""
        names = list(self._containers)
        with ThreadPoolExecutor(min(CHECKED_AT_ONCE, len(names))) as pool:
            answers = list(pool.map(lambda name: self._containers[name].check(), names))
        return [name for name, silent in zip(names, answers, strict=True) if silent]

    def _of(self, name: str) -> Container:
        """What keeps a container.

        Raises:
            Unavailable: there is none of that name. Not an integrity failure: the object is where it was, and only the configuration
                has lost its place.
        """
        found = self._containers.get(name)
        if found is None:
            raise Unavailable(
                "object_container_unknown",
                f"objects lie in container {name}, which keystead.toml does not name",
                f"put container {name} back under [[objects.containers]], with accepts_new = false if nothing new is to go there",
            )
        return found
