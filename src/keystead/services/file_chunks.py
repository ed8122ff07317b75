"""The content of files: cut into chunks, sealed each under a key of its own, stored while the next is sealed; and opened again (R-112).

Storing a chunk waits for the disk and needs no processor, so a sealed chunk goes to a thread, and the next is sealed into another buffer. A
buffer is used again only when what was in it is durable. Large chunks have an object each, small ones share objects of up to 8 MiB.

Nothing here knows of transactions: what was stored is named by no row until its caller commits, and `collect-orphans` removes what no row
names, though not before it is `orphan_grace` old twice over. So nothing is committed that took longer than that once.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from typing import TYPE_CHECKING, Self

from keystead.core.errors import Conflict, IntegrityFailure, KeysteadError, NotFound
from keystead.core.formats.aead import NONCE_BYTES, Aes
from keystead.core.formats.files import ManifestEntry, chunk_context, chunk_key_context, damaged
from keystead.core.formats.sealed_object import OVERHEAD_BYTES, open_object, seal_into
from keystead.core.formats.wrapped_key import unwrap, wrap
from keystead.core.ids import ordered_id
from keystead.core.secret import KEY_BYTES, SecretKey
from keystead.core.stores.files import CHUNK_BYTES, Chunk
from keystead.core.stores.objects import StoredObject
from keystead.direct_io import Buffers
from keystead.ports.clock import HOUR

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from concurrent.futures import Future

    from keystead.core.formats.aead import Readable
    from keystead.services.context import Services
    from keystead.services.sites import OpenSite

OBJECT_BYTES = 8 * 1024 * 1024
"""Of an object that several small chunks share."""
ALONE = 1024 * 1024
"""Chunks of at least this many bytes have an object each."""
UNDER_WAY = 5
"""Objects of one writer on their way to the disk, while the next is sealed."""
STORES = 8
"""Threads that store, of all writers of the process."""
KEPT_BUFFERS = 8

AHEAD = 2
"""Chunks of one reader that are fetched and opened while one is given away."""
FETCHES = 8
"""Threads that fetch, for all readers of the process."""

_stores = ThreadPoolExecutor(STORES, thread_name_prefix="store-chunks")
_fetches = ThreadPoolExecutor(FETCHES, thread_name_prefix="fetch-chunks")


_buffers = Buffers(OBJECT_BYTES, KEPT_BUFFERS)


def cut(body: Iterable[Readable], size: int | None = None) -> Iterator[memoryview]:
    """A stream in pieces of exactly a chunk, the last one shorter; nothing is copied that comes whole.

    Args:
        body: pieces of any sizes.
        size: how many bytes there are, where that is known: then the last piece need not be copied to see whether more comes. Who says a
            wrong one gets other pieces, and has to refuse them all in the end.

    Yields:
        Views that are good until the next one is asked for.
    """
    buffer: memoryview | None = None  # what comes whole needs none
    used = came = 0
    try:
        for piece in body:
            view = memoryview(piece).cast("B")
            came += len(view)
            while len(view):
                if not used and (len(view) >= CHUNK_BYTES or came == size):
                    yield view[:CHUNK_BYTES]
                    view = view[CHUNK_BYTES:]
                    continue
                if buffer is None:
                    buffer = _buffers.take()
                taken = min(CHUNK_BYTES - used, len(view))
                buffer[used : used + taken] = view[:taken]
                used, view = used + taken, view[taken:]
                if used == CHUNK_BYTES:
                    yield buffer[:used]
                    used = 0
        if buffer is not None and used:
            yield buffer[:used]
    finally:
        if buffer is not None:
            _buffers.give(buffer)


class ChunkWriter:
    """Seals chunks and stores them; one for each act. Use it as a context: what was stored is removed when the block raises.

    Attributes:
        chunks: rows of what was added; `node_id` as given.
        objects: what is durable, complete after `finish`.
    """

    def __init__(self, services: Services, opened: OpenSite) -> None:
        self._services = services
        self._opened = opened
        self._now = services.clock.now()
        self._under_way: deque[tuple[memoryview, Future[StoredObject]]] = deque()
        self._shared: memoryview | None = None
        self._shared_ref = ""
        self._used = 0
        self._count = 0
        self._refs: list[str] = []
        self._since: int | None = None
        self._kept = False
        self.chunks: list[Chunk] = []
        self.objects: list[StoredObject] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, _error: object, _trace: object) -> None:
        self._settle()
        if kind is not None and not self._kept:
            self.discard()

    def keep(self) -> None:
        """From now on rows may name what was stored: it stays, whatever happens."""
        self._kept = True

    def add(self, node_id: str, data: Readable, digest: bytes) -> ManifestEntry:
        """Seal a chunk, and store it or put it beside others.

        Args:
            node_id: the file.
            data: 1 byte to a whole chunk; it may be used again when this returns.
            digest: of it.

        Raises:
            Unavailable: an earlier one could not be stored.
            Conflict: `upload_too_slow`.
        """
        size = len(data)
        length = size + OVERHEAD_BYTES
        if size >= ALONE:
            ref, buffer = self._begun()
            chunk = self._sealed(node_id, data, buffer, ref, 0)
            self._submit(ref, buffer, length, 1, large=True)
        else:
            if self._shared is not None and self._used + length > OBJECT_BYTES:
                self._flush()
            if self._shared is None:
                self._shared_ref, self._shared = self._begun()
            chunk = self._sealed(node_id, data, self._shared, self._shared_ref, self._used)
            self._used += length
            self._count += 1
        self.chunks.append(chunk)
        return ManifestEntry(chunk.id, size, digest)

    def finish(self) -> None:
        """Store what is left; all objects are durable when this returns.

        Raises:
            Unavailable: one of them could not be stored.
            Conflict: `upload_too_slow`.
        """
        self._flush()
        while self._under_way:
            self._collect()
        self.check_age()

    def check_age(self) -> None:
        """Refuse to name by rows what `collect-orphans` may be about to remove: the commit asks, when nothing can come between any more.

        Raises:
            Conflict: `upload_too_slow`.
        """
        grace = self._services.settings.orphan_grace
        if self._since is not None and self._services.clock.now() - self._since >= grace:
            raise Conflict(
                "upload_too_slow",
                f"it took more than {grace // HOUR} hours, and what came first may be removed by now",
                "send it again over a faster line; the setting orphan_grace decides how long it may take",
            )

    def discard(self) -> None:
        """Remove what was stored, which no row names. What cannot be removed now is an orphan."""
        for ref in self._refs:
            with suppress(KeysteadError):
                self._services.objects.delete(ref)

    def _begun(self) -> tuple[str, memoryview]:
        """A fresh object, and a buffer for it."""
        while len(self._under_way) >= UNDER_WAY:
            self._collect()
        self.check_age()  # here too: who is too slow hears of it as soon as it is known
        return self._services.objects.new_ref(self._services.random), _buffers.take()

    def _sealed(self, node_id: str, data: Readable, buffer: memoryview, ref: str, offset: int) -> Chunk:
        site, random = self._opened.site, self._services.random
        chunk_id = ordered_id(random, self._now)
        key = SecretKey(random(KEY_BYTES))
        wrapped = wrap(
            self._opened.keys.wrap,
            key,
            parent_id=site.id,
            parent_version=site.key_version,
            context=chunk_key_context(site.tenant_id, chunk_id, site.id, site.key_version),
            nonce=random(NONCE_BYTES),
        )
        length = seal_into(
            buffer,
            Aes(key),
            data,
            key_id=chunk_id,
            key_version=0,
            context=chunk_context(site.tenant_id, site.id, chunk_id),
            nonce=random(NONCE_BYTES),
            offset=offset,
        )
        return Chunk(chunk_id, site.id, node_id, site.key_version, wrapped, ref, offset, length, len(data), None, "")

    def _flush(self) -> None:
        if self._shared is not None:
            self._submit(self._shared_ref, self._shared, self._used, self._count, large=False)
        self._shared, self._used, self._count = None, 0, 0

    def _submit(self, ref: str, buffer: memoryview, length: int, count: int, *, large: bool) -> None:
        if self._since is None:
            self._since = self._services.clock.now()
        self._refs.append(ref)
        self._under_way.append((buffer, _stores.submit(self._put, ref, buffer[:length], count, large)))

    def _put(self, ref: str, box: memoryview, count: int, large: bool) -> StoredObject:  # noqa: FBT001 - what the row says
        size = self._services.objects.put(ref, [box])
        return StoredObject(ref, self._opened.site.id, self._opened.site.key_version, size, count, large)

    def _collect(self) -> None:
        """Take the oldest object under way as stored, and its buffer back."""
        buffer, stored = self._under_way[0]
        self.objects.append(stored.result())
        self._under_way.popleft()
        _buffers.give(buffer)

    def _settle(self) -> None:
        """Wait until nothing is under way, whether it went well or not: only then may the buffers be used again."""
        wait([stored for _buffer, stored in self._under_way])
        for buffer, _stored in self._under_way:
            _buffers.give(buffer)
        self._under_way.clear()
        if self._shared is not None:
            _buffers.give(self._shared)
            self._shared = None


class ChunkGone(Exception):
    """The object of a chunk is not there: a move may have put the content elsewhere."""


def open_chunk(services: Services, opened: OpenSite, chunk: Chunk, entry: ManifestEntry, what: str) -> bytes:
    """The bytes of a chunk. Arguments and errors as `chunk_box` and `opened_box`."""
    return opened_box(opened, chunk, entry, chunk_box(services, chunk, entry, what), what)


class Ahead:
    """Fetches and opens what is read next while what is there is given away.

    A store waits for the disk or the network, and the cipher lets other threads go on. Whether a chunk may be given away is asked when it is
    taken.
    """

    def __init__(self, services: Services) -> None:
        self._services = services
        self._under_way: dict[str, Future[bytes]] = {}

    def want(self, opened: OpenSite, chunk: Chunk, entry: ManifestEntry, what: str) -> None:
        """Begin with a chunk that will be taken soon."""
        if chunk.id not in self._under_way:
            self._under_way[chunk.id] = _fetches.submit(open_chunk, self._services, opened, chunk, entry, what)

    def take(self, opened: OpenSite, chunk: Chunk, entry: ManifestEntry, what: str) -> bytes:
        """The bytes of a chunk. Raises: as `open_chunk`."""
        begun = self._under_way.pop(chunk.id, None)
        return begun.result() if begun is not None else open_chunk(self._services, opened, chunk, entry, what)


def in_advance(acts: Iterable[Callable[[], bytes | None] | None]) -> Iterator[bytes | None]:
    """What each of them gives, in their order, the next ones being done meanwhile; None for None."""
    waiting: deque[Future[bytes | None] | None] = deque()
    for act in acts:
        waiting.append(_fetches.submit(act) if act is not None else None)
        if len(waiting) > AHEAD:
            yield _given(waiting.popleft())
    while waiting:
        yield _given(waiting.popleft())


def _given(begun: Future[bytes | None] | None) -> bytes | None:
    return begun.result() if begun is not None else None


def part_of_object(services: Services, ref: str, offset: int, length: int) -> bytes | None:
    """Some bytes of an object; None where they cannot be had whole."""
    if length <= 0 or offset < 0:
        return None
    try:
        return services.objects.get(ref, offset, length)
    except (NotFound, IntegrityFailure):
        return None


def chunk_box(services: Services, chunk: Chunk, entry: ManifestEntry, what: str) -> bytes:
    """A chunk as it is stored.

    Args:
        services: the service.
        chunk: its row.
        entry: what the manifest says of it.
        what: how errors name it: the file's id, the version, which chunk.

    Raises:
        IntegrityFailure: `file_damaged`: it is not there whole.
        ChunkGone: the object is not there.
    """
    if chunk.length != entry.size + OVERHEAD_BYTES or chunk.offset < 0:
        raise damaged(what)
    try:
        return services.objects.get(chunk.object_ref, chunk.offset, chunk.length)
    except NotFound as error:
        raise ChunkGone from error
    except IntegrityFailure as error:
        raise damaged(what) from error


def opened_box(opened: OpenSite, chunk: Chunk, entry: ManifestEntry, box: Readable, what: str) -> bytes:
    """The bytes of a chunk that was fetched.

    Raises:
        IntegrityFailure: `file_damaged`, `wrapped_key_damaged`: it is not what was written; never other data.
    """
    site = opened.site
    key = unwrap(
        opened.keys_of(chunk.key_version, f"file {what}").wrap,
        chunk.wrapped,
        parent_id=site.id,
        parent_version=chunk.key_version,
        context=chunk_key_context(site.tenant_id, entry.chunk_id, site.id, chunk.key_version),
        object_name=f"of file {what}",
    )
    context = chunk_context(site.tenant_id, site.id, entry.chunk_id)
    try:
        return open_object(Aes(key), box, key_id=entry.chunk_id, key_version=0, context=context, object_name=what)
    except IntegrityFailure as error:
        raise damaged(what) from error
