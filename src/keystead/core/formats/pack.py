"""Several sealed objects of one parent key in one stored object of at most 8 MiB (docs/spec/pack.md).

Each item opens alone, by offset and length. The sealed index at the end lists them, so that a pack can be checked without a database.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from keystead.core.errors import IntegrityFailure
from keystead.core.formats import sealed_object
from keystead.core.formats.aead import NONCE_BYTES, Aes, Readable
from keystead.core.formats.context import Context, object_context
from keystead.core.formats.key_ref import id_of, raw_id

if TYPE_CHECKING:
    from zstandard import ZstdCompressor

    from keystead.core.ids import RandomBytes

MAGIC = b"KSPK"
END_MAGIC = b"KPSK"
VERSION = 1
MAX_PACK_BYTES = 8 * 1024 * 1024
INDEX_KIND = "pack-index"
_HEADER = MAGIC + bytes([VERSION, 0, 0, 0])
_FOOTER = struct.Struct(">I4s")
_ENTRY = struct.Struct(">16sII")
HEADER_BYTES = len(_HEADER)
FOOTER_BYTES = _FOOTER.size
_MIN_PACK_BYTES = HEADER_BYTES + 2 * sealed_object.OVERHEAD_BYTES + _ENTRY.size + FOOTER_BYTES


class PackEntry(NamedTuple):
    """Where an item's sealed object lies in its pack."""

    item_id: str
    offset: int
    length: int


class PackWriter:
    """Builds one pack in a buffer; another writer may use the buffer again once the pack has been stored.

    Args:
        buffer: at most the first 8 MiB are used.
        key: the parent key of all items.
        tenant_id: whose items.
        key_id: id of the key.
        key_version: its version.
        random: asked for one nonce per box.
    """

    __slots__ = ("_buffer", "_finished", "_items", "_key", "_key_id", "_key_version", "_limit", "_random", "_tenant_id", "_used")

    def __init__(self, buffer: bytearray, key: Aes, *, tenant_id: str, key_id: str, key_version: int, random: RandomBytes) -> None:
        self._buffer = memoryview(buffer)
        self._key = key
        self._tenant_id = tenant_id
        self._key_id = key_id
        self._key_version = key_version
        self._random = random
        self._limit = min(len(buffer), MAX_PACK_BYTES)
        self._items: dict[bytes, PackEntry] = {}
        self._used = HEADER_BYTES
        self._finished = False

    @property
    def entries(self) -> list[PackEntry]:
        """Items so far, in order."""
        return list(self._items.values())

    def fits(self, plaintext_bytes: int) -> bool:
        """Whether an item of that many plaintext bytes, uncompressed, still fits beside the index."""
        return self._fits(plaintext_bytes + sealed_object.OVERHEAD_BYTES)

    def add(self, item_id: str, plaintext: Readable, *, context: Context, compressor: ZstdCompressor | None = None) -> PackEntry:
        """Seal an item straight into the pack.

        Args:
            item_id: its id.
            plaintext: content for which `fits` is true.
            context: of the item, from `object_context`.
            compressor: as for `sealed_object.seal`.

        Raises:
            ValueError: it does not fit, a malformed or repeated id, or the pack is finished. The pack is as before.
        """
        raw = self._accept(item_id, len(plaintext) + sealed_object.OVERHEAD_BYTES)
        length = sealed_object.seal_into(
            self._buffer,
            self._key,
            plaintext,
            key_id=self._key_id,
            key_version=self._key_version,
            context=context,
            nonce=self._random(NONCE_BYTES),
            offset=self._used,
            compressor=compressor,
        )
        return self._added(item_id, raw, length)

    def add_resealed(
        self,
        item_id: str,
        box: Readable,
        *,
        scratch: memoryview,
        old: Aes,
        old_id: str,
        old_version: int,
        old_context: Context,
        new_context: Context,
    ) -> PackEntry:
        """Move an item from another key straight into the pack; arguments as for `sealed_object.reseal_into`.

        Raises:
            IntegrityFailure: `object_damaged`: the box does not open. The pack is as before.
            ValueError: as for `add`.
        """
        raw = self._accept(item_id, len(box))
        length = sealed_object.reseal_into(
            self._buffer,
            scratch,
            box,
            old=old,
            old_id=old_id,
            old_version=old_version,
            old_context=old_context,
            new=self._key,
            new_id=self._key_id,
            new_version=self._key_version,
            new_context=new_context,
            nonce=self._random(NONCE_BYTES),
            object_name=item_id,
            offset=self._used,
        )
        return self._added(item_id, raw, length)

    def add_sealed(self, item_id: str, box: Readable) -> PackEntry:
        """Copy an item that is already sealed by this pack's key.

        Raises:
            IntegrityFailure: `object_damaged`: not one whole sealed object. The pack is as before.
            ValueError: as for `add`, or the box names another key.
        """
        raw = self._accept(item_id, len(box))
        header = sealed_object.parse_header(box, object_name=item_id)
        if (header.key_id, header.key_version) != (self._key_id, self._key_version):
            raise ValueError(f"the item {item_id} is sealed by another key than the pack's")
        self._buffer[self._used : self._used + len(box)] = box
        return self._added(item_id, raw, len(box))

    def finish(self, pack_id: str) -> memoryview:
        """Write header, sealed index and footer.

        Returns:
            The whole pack: a view of the buffer, good until the buffer is used again.

        Raises:
            ValueError: there are no items, or the pack is finished already.
        """
        if self._finished or not self._items:
            raise ValueError("a pack is finished once, and holds at least one item")
        self._finished = True
        plaintext = b"".join(_ENTRY.pack(raw, entry.offset, entry.length) for raw, entry in self._items.items())
        self._buffer[:HEADER_BYTES] = _HEADER
        index_bytes = sealed_object.seal_into(
            self._buffer,
            self._key,
            plaintext,
            key_id=self._key_id,
            key_version=self._key_version,
            context=index_context(self._tenant_id, pack_id),
            nonce=self._random(NONCE_BYTES),
            offset=self._used,
        )
        _FOOTER.pack_into(self._buffer, self._used + index_bytes, index_bytes, END_MAGIC)
        return self._buffer[: self._used + index_bytes + FOOTER_BYTES]

    def _fits(self, box_bytes: int) -> bool:
        index_bytes = sealed_object.OVERHEAD_BYTES + _ENTRY.size * (len(self._items) + 1)
        return self._used + box_bytes + index_bytes + FOOTER_BYTES <= self._limit

    def _accept(self, item_id: str, box_bytes: int) -> bytes:
        if self._finished:
            raise ValueError("the pack is finished")
        if not self._fits(box_bytes):
            raise ValueError(f"the item {item_id} does not fit into the pack")
        raw = raw_id(item_id)
        if raw in self._items:
            raise ValueError(f"the item {item_id} is in the pack already")
        return raw

    def _added(self, item_id: str, raw: bytes, length: int) -> PackEntry:
        entry = PackEntry(item_id, self._used, length)
        self._items[raw] = entry
        self._used += length
        return entry


def index_context(tenant_id: str, pack_id: str) -> Context:
    """The context of a pack's index."""
    return object_context(tenant_id, INDEX_KIND, pack_id, 0, last=True)


def index_range(footer: Readable, pack_bytes: int, *, pack_id: str) -> tuple[int, int]:
    """Offset and length of the index, from the last 8 bytes of a pack and its size.

    Raises:
        IntegrityFailure: `pack_damaged`: there can be no such pack.
    """
    if len(footer) != FOOTER_BYTES or not _MIN_PACK_BYTES <= pack_bytes <= MAX_PACK_BYTES:
        _refuse(pack_id)
    length, magic = _FOOTER.unpack(footer)
    offset = pack_bytes - FOOTER_BYTES - length
    if magic != END_MAGIC or length < sealed_object.OVERHEAD_BYTES + _ENTRY.size or offset < HEADER_BYTES + sealed_object.OVERHEAD_BYTES:
        _refuse(pack_id)
    return offset, length


def open_index(
    key: Aes, box: Readable, index_offset: int, *, tenant_id: str, pack_id: str, key_id: str, key_version: int
) -> list[PackEntry]:
    """The items of a pack, from its sealed index alone.

    Args:
        key: the parent key.
        box: the index, read by `index_range`.
        index_offset: where it began.
        tenant_id: whose pack.
        pack_id: the pack.
        key_id: the expected key.
        key_version: its expected version.

    Raises:
        IntegrityFailure: `pack_damaged`, for whatever reason.
    """
    try:
        plaintext = sealed_object.open_object(
            key, box, key_id=key_id, key_version=key_version, context=index_context(tenant_id, pack_id), object_name=pack_id
        )
    except IntegrityFailure:
        _refuse(pack_id)
    if not plaintext or len(plaintext) % _ENTRY.size or sealed_object.parse_header(box, object_name=pack_id).compressed:
        _refuse(pack_id)
    entries = [PackEntry(id_of(raw), offset, length) for raw, offset, length in _ENTRY.iter_unpack(plaintext)]
    end = HEADER_BYTES
    for entry in entries:
        if entry.offset != end or entry.length < sealed_object.OVERHEAD_BYTES:
            _refuse(pack_id)
        end += entry.length
    if end != index_offset or len({entry.item_id for entry in entries}) != len(entries):
        _refuse(pack_id)
    return entries


def read_index(key: Aes, pack: Readable, *, tenant_id: str, pack_id: str, key_id: str, key_version: int) -> list[PackEntry]:
    """The items of a whole pack in memory.

    Raises:
        IntegrityFailure: `pack_damaged`, for whatever reason.
    """
    view = memoryview(pack)
    offset, length = index_range(view[-FOOTER_BYTES:], len(view), pack_id=pack_id)
    if view[:HEADER_BYTES] != _HEADER:
        _refuse(pack_id)
    return open_index(
        key, view[offset : offset + length], offset, tenant_id=tenant_id, pack_id=pack_id, key_id=key_id, key_version=key_version
    )


def _refuse(pack_id: str) -> NoReturn:
    """One text for every cause: which check failed would help whoever changed the bytes."""
    raise IntegrityFailure(
        "pack_damaged",
        f"the pack {pack_id} is not what was written",
        "no other data was returned in its place; restore the object from a backup",
    ) from None
