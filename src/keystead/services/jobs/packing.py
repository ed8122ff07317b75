"""Packs that are stored while the next one is filled: the disk and the processor work at the same time.

Writing and syncing an 8 MiB pack takes about as long as re-encrypting one, and waits for the disk only. So a pack that is full goes to a
thread of its own, and the next is filled in another buffer. A buffer is used again only when its pack is durable.
"""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import TYPE_CHECKING

from keystead.core.formats.mailbox_items import pack_id
from keystead.core.formats.pack import MAX_PACK_BYTES, PackWriter
from keystead.core.stores.objects import StoredObject

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Future

    from keystead.core.keys.hierarchy import MailboxKeys
    from keystead.services.context import Services

BUFFERS = 3
"""One being filled, the others on their way to the disk."""


class _Tools(threading.local):
    """One set for every thread that fills packs."""

    def __init__(self) -> None:
        self.buffers = [bytearray(MAX_PACK_BYTES) for _ in range(BUFFERS)]
        self.stores = ThreadPoolExecutor(BUFFERS - 1, thread_name_prefix="store-packs")


_tools = _Tools()


class Packs:
    """Packs under one mailbox key, each stored when it is full.

    Args:
        services: the service.
        keys: what the packs are sealed under.
        tenant_id: whose.
        mailbox_id: the mailbox.
        key_version: of its key.
    """

    def __init__(self, services: Services, keys: MailboxKeys, *, tenant_id: str, mailbox_id: str, key_version: int) -> None:
        self._services = services
        self._keys = keys
        self._tenant_id = tenant_id
        self._mailbox_id = mailbox_id
        self._key_version = key_version
        self._free = deque(_tools.buffers)
        self._under_way: deque[tuple[bytearray, Future[StoredObject]]] = deque()
        self._objects: list[StoredObject] = []
        self._writer: PackWriter | None = None
        self._buffer = bytearray()
        self._ref = ""

    def writer(self, plaintext_bytes: int) -> tuple[str, PackWriter]:
        """The object and writer that the next item of at most that many bytes goes to.

        Raises:
            Unavailable: an earlier pack could not be stored.
        """
        if self._writer is not None and not self._writer.fits(plaintext_bytes):
            self._store()
        if self._writer is None:
            if not self._free:
                self._collect()
            self._buffer = self._free.popleft()
            self._ref = self._services.objects.new_ref(self._services.random)
            self._writer = PackWriter(
                self._buffer,
                self._keys.seal,
                tenant_id=self._tenant_id,
                key_id=self._mailbox_id,
                key_version=self._key_version,
                random=self._services.random,
            )
        return self._ref, self._writer

    def finish(self) -> list[StoredObject]:
        """Store what is left; all objects, durable when this returns.

        Raises:
            Unavailable: one of them could not be stored.
        """
        self._store()
        while self._under_way:
            self._collect()
        return self._objects

    def settle(self) -> None:
        """Wait until nothing is under way, whether it went well or not: only then may the buffers be used again."""
        wait([stored for _buffer, stored in self._under_way])

    def _store(self) -> None:
        if self._writer is not None:
            pack, count = self._writer.finish(pack_id(self._ref)), len(self._writer.entries)
            self._under_way.append((self._buffer, _tools.stores.submit(self._put, self._ref, pack, count)))
        self._writer = None

    def _put(self, ref: str, pack: memoryview, count: int) -> StoredObject:
        size = self._services.objects.put(ref, [pack])
        return StoredObject(ref, self._mailbox_id, self._key_version, size, count, large=False)

    def _collect(self) -> None:
        """Take the oldest pack under way as stored, and its buffer back."""
        buffer, stored = self._under_way[0]
        self._objects.append(stored.result())
        self._under_way.popleft()
        self._free.append(buffer)


@contextmanager
def packs_for(services: Services, keys: MailboxKeys, *, tenant_id: str, mailbox_id: str, key_version: int) -> Iterator[Packs]:
    """Packs to fill until the block ends. What was stored before an error stays, as objects that no row names."""
    packs = Packs(services, keys, tenant_id=tenant_id, mailbox_id=mailbox_id, key_version=key_version)
    try:
        yield packs
    finally:
        packs.settle()
