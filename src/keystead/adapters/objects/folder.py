"""Objects as files: ROOT/CONTAINER/AB/NAME, where AB are the first two digits of the name.

An object is written under a temporary name in its own folder, reaches the disk, and is then linked to its name, which fails if the
name is taken. A crash before the link leaves a temporary file, which `all_objects` lists once it is an hour old; a crash after it,
an object that nobody refers to. The job that collects the unreferenced deletes both.

Large chunks in buffers of `direct_io` go to the disk past the page cache.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from itertools import pairwise
from typing import TYPE_CHECKING

from keystead import direct_io
from keystead.adapters.files import sync_folder, translated
from keystead.adapters.objects import references
from keystead.ports.objects import ObjectInfo

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from keystead.core.ids import RandomBytes

TEMPORARY_SECONDS = 3_600
"""A temporary file younger than this may still be being written."""
SURE_BYTES = 16 * 1024 * 1024
"""Reads of at most this many bytes are tried without asking how long the object is."""


class FolderObjects:
    """Implements `ObjectStore`. Threads and processes may share one root.

    Args:
        root: made when first written to; its parent must exist.
        containers: over how many containers new objects are spread, 1 to 100. Objects in others stay readable.
        only: the one container to use and list, where others may share the root.
    """

    def __init__(self, root: Path, containers: int = 4, *, only: str = "") -> None:
        if not 1 <= containers <= references.MAX_CONTAINERS:
            raise ValueError(f"there are 1 to {references.MAX_CONTAINERS} containers, not {containers}")
        self._root = str(root.absolute())  # text, not Path: a range read takes ten microseconds, of which paths would be half
        self._containers = (only,) if only else references.names(containers)
        self._only = only
        self._lasting: set[str] = set()
        """Folders whose own names this process knows to be on the disk."""

    def new_ref(self, random: RandomBytes) -> str:
        """A fresh reference in a container chosen at random."""
        return references.new_ref(random, self._containers)

    def put(self, ref: str, chunks: Iterable[bytes | memoryview]) -> int:
        """Store the chunks as one object."""
        container, name = references.parts(ref)
        with translated(ref):
            folder = self._folder(container, name[:2])
            temporary = f"{folder}/{name}.{os.urandom(8).hex()}.tmp"
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            try:
                size = 0
                for chunk in chunks:
                    view = memoryview(chunk).cast("B")
                    with translated(ref):
                        direct_io.write(descriptor, view)
                    size += len(view)
                with translated(ref):
                    os.fsync(descriptor)
            finally:
                os.close(descriptor)
            with translated(ref):
                try:
                    os.link(temporary, f"{folder}/{name}")
                except FileExistsError:
                    raise references.exists(ref) from None
        finally:
            with suppress(OSError):  # what stays is collected; the first error says more
                os.unlink(temporary)  # noqa: PTH108 - text paths, see __init__
        with translated(ref):
            sync_folder(folder)
        return size

    def get(self, ref: str, offset: int, length: int) -> bytes:
        """Exactly `length` bytes from `offset`."""
        references.check_range(ref, offset, length)
        path = self._path(*references.parts(ref))
        with translated(ref):
            try:
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                raise references.missing(ref) from None
            try:
                # The system reserves what it is asked for: a length that no object has, from a damaged record, must not reach it.
                whole = length <= SURE_BYTES or os.fstat(descriptor).st_size >= offset + length
                data = _read(descriptor, offset, length) if whole else b""
            finally:
                os.close(descriptor)
        if len(data) != length:
            raise references.truncated(ref, offset, length)
        return data

    def delete(self, ref: str) -> None:
        """Remove an object, or a temporary file that `all_objects` listed.

        The folder is not synced: a power cut may bring the object back, as one that nobody refers to.
        """
        path = self._path(*references.stored_parts(ref))
        with translated(ref), suppress(FileNotFoundError):
            os.unlink(path)  # noqa: PTH108 - text paths, see __init__

    def all_objects(self) -> Iterator[ObjectInfo]:
        """Every object, and temporary files older than an hour. Those stored or deleted meanwhile may be listed or not."""
        for container in (self._only,) if self._only else filter(references.is_container, _names(self._root)):
            for first in _names(f"{self._root}/{container}"):
                yield from self._listed(container, first)

    def check(self) -> list[str]:
        """All its containers, if the folder cannot be read and written. One that is yet to be made is looked for where it will be."""
        place = self._root if os.path.exists(self._root) else os.path.dirname(self._root)  # noqa: PTH110, PTH120 - see __init__
        usable = os.path.isdir(place) and os.access(place, os.R_OK | os.W_OK | os.X_OK)  # noqa: PTH112 - as above
        return [] if usable else list(self._containers)

    def _listed(self, container: str, first: str) -> Iterator[ObjectInfo]:
        folder = f"{self._root}/{container}/{first}"
        for name in _names(folder):
            with translated(f"{container}/{name}"):
                try:
                    found = os.stat(f"{folder}/{name}")  # noqa: PTH116 - text paths, see __init__
                except FileNotFoundError:
                    continue  # deleted since the folder was read
            age = max(0.0, time.time() - found.st_mtime)
            if age >= TEMPORARY_SECONDS or not name.endswith(".tmp"):
                yield ObjectInfo(f"{container}/{name}", found.st_size, age)

    def _path(self, container: str, name: str) -> str:
        return f"{self._root}/{container}/{name[:2]}/{name}"

    def _folder(self, container: str, first: str) -> str:
        """The folder of an object, made if need be, its name and its parents' names on the disk.

        Whoever stores into a folder for the first time syncs its parents, even when another process made it: that process may not
        have come to it yet, and our object must not be lost with the name of its folder.
        """
        folder = f"{self._root}/{container}/{first}"
        if folder not in self._lasting:
            parents = (os.path.dirname(self._root), self._root, f"{self._root}/{container}", folder)  # noqa: PTH120 - see __init__
            for parent, child in pairwise(parents):
                with suppress(FileExistsError):
                    os.mkdir(child, mode=0o700)  # noqa: PTH102 - see __init__
                sync_folder(parent)
            self._lasting.add(folder)
        return folder


def _read(descriptor: int, offset: int, length: int) -> bytes:
    """Up to `length` bytes; fewer only at the end of the file. One call may give less than was asked for (Linux: at most 2 GiB)."""
    data = os.pread(descriptor, length, offset)
    if len(data) in (0, length):
        return data
    pieces = [data]
    missing = length - len(data)
    while missing and (piece := os.pread(descriptor, missing, offset + length - missing)):
        pieces.append(piece)
        missing -= len(piece)
    return b"".join(pieces)


def _names(folder: str) -> list[str]:
    """Names in a folder; none when it is not there (yet)."""
    with translated("the object folder"):
        try:
            return os.listdir(folder)  # noqa: PTH208 - text paths
        except FileNotFoundError:
            return []
