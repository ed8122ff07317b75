"""One AES-256-GCM box of content: header of 44 bytes, ciphertext, tag of 16 bytes (docs/spec/sealed-object.md).

- The associated data is the whole header followed by the context, so nothing in the header can be changed.
- A reader knows which key it expects; a box that names another is refused before anything is decrypted.
- Large data is never joined or copied: `seal_into` and `open_into` work on buffers that the caller uses again and again.
- Compressors are passed in: they may be used by one thread at a time, so the caller keeps one per thread.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from zstandard import ZstdCompressor, ZstdDecompressor, ZstdError, frame_content_size

from keystead.core.errors import IntegrityFailure
from keystead.core.formats.aead import AES_256_GCM, NONCE_BYTES, TAG_BYTES, Aes, Readable, TagMismatchError
from keystead.core.formats.key_ref import KEY_REF_BYTES, key_ref, read_key_ref

if TYPE_CHECKING:
    from keystead.core.formats.context import Context

MAGIC = b"KSOB"
VERSION = 1
FLAG_ZSTD = 1
ZSTD_LEVEL = 3
MAX_PLAINTEXT_BYTES = 16 * 1024 * 1024
_PREFIX = MAGIC + bytes([VERSION, AES_256_GCM])
_HEADER = struct.Struct(f">{len(_PREFIX)}sBB{KEY_REF_BYTES}sI{NONCE_BYTES}s")
HEADER_BYTES = _HEADER.size
_TOO_LARGE = f"a sealed object holds at most {MAX_PLAINTEXT_BYTES} bytes"
_TOO_SMALL = "the buffer is too small"
_pack_header = _HEADER.pack
_unpack_header = _HEADER.unpack_from
OVERHEAD_BYTES = HEADER_BYTES + TAG_BYTES


@dataclass(frozen=True, slots=True)
class Header:
    """What a box says about itself. Authenticated only once the box has been opened."""

    compressed: bool
    key_id: str
    key_version: int
    length: int
    """Plaintext bytes before compression."""
    nonce: bytes


def new_compressor() -> ZstdCompressor:
    """A compressor as the format wants it: level 3, content size in the frame. Keep one per thread."""
    return ZstdCompressor(level=ZSTD_LEVEL)


def seal(
    key: Aes,
    plaintext: Readable,
    *,
    key_id: str,
    key_version: int,
    context: Context,
    nonce: bytes,
    compressor: ZstdCompressor | None = None,
) -> bytes:
    """Seal one small object; for many or large ones use `seal_into`, which does not allocate.

    Args:
        key: the key, ready for use.
        plaintext: at most 16 MiB.
        key_id: id of the key, a UUID in lower case.
        key_version: its version, a u32.
        context: from `object_context`.
        nonce: 12 fresh random bytes.
        compressor: given, the plaintext is compressed if that saves at least 1/16.

    Returns:
        The box, at most `len(plaintext) + 60` bytes.

    Raises:
        ValueError: a plaintext over the limit, a malformed id, version or nonce, a compressor that does not state content sizes.
    """
    if len(plaintext) > MAX_PLAINTEXT_BYTES:
        raise ValueError(_TOO_LARGE)
    flags, body = _body(plaintext, compressor) if compressor else (0, plaintext)
    header = _pack_header(_PREFIX, flags, 0, key_ref(key_id, key_version), len(plaintext), nonce)
    return header + key.seal(nonce, body, header + context)


def seal_into(
    buffer: memoryview,
    key: Aes,
    plaintext: Readable,
    *,
    key_id: str,
    key_version: int,
    context: Context,
    nonce: bytes,
    offset: int = 0,
    compressor: ZstdCompressor | None = None,
) -> int:
    """Seal one object into a buffer, which must not overlap the plaintext.

    Args:
        buffer: a view of bytes with room for the box behind `offset`; make the view once and use it for many boxes.
        key: as for `seal`, like the other arguments.
        plaintext: at most 16 MiB.
        key_id: id of the key.
        key_version: its version.
        context: from `object_context`.
        nonce: 12 fresh random bytes.
        offset: where the box begins in the buffer.
        compressor: as for `seal`.

    Returns:
        Size of the box in bytes.

    Raises:
        ValueError: as for `seal`, or the box does not fit; the buffer then holds no plaintext.
    """
    if len(plaintext) > MAX_PLAINTEXT_BYTES:
        raise ValueError(_TOO_LARGE)
    flags, body = _body(plaintext, compressor) if compressor else (0, plaintext)
    header = _pack_header(_PREFIX, flags, 0, key_ref(key_id, key_version), len(plaintext), nonce)
    body_at = offset + HEADER_BYTES
    end = body_at + len(body) + TAG_BYTES
    if not 0 <= offset < end <= len(buffer):
        raise ValueError(_TOO_SMALL)
    key.seal_into(nonce, body, header + context, buffer[body_at:end])
    buffer[offset:body_at] = header
    return end - offset


def open_object(
    key: Aes,
    box: Readable,
    *,
    key_id: str,
    key_version: int,
    context: Context,
    object_name: str,
    decompressor: ZstdDecompressor | None = None,
) -> bytes:
    """Open what `seal` made, under the same key and context.

    Args:
        key: the key.
        box: exactly one sealed object.
        key_id: the key this box is expected to be sealed by.
        key_version: its expected version.
        context: from `object_context`.
        object_name: how an error names the object, such as its id.
        decompressor: the caller's own; without it one is made when needed.

    Raises:
        IntegrityFailure: `object_damaged`, for whatever reason.
    """
    view = memoryview(box)
    flags, length, nonce = _expected(view, key_ref(key_id, key_version), object_name)
    try:
        body = key.open(nonce, view[HEADER_BYTES:], bytes(view[:HEADER_BYTES]) + context)
    except TagMismatchError:
        _refuse(object_name)
    return _decompressed(body, length, decompressor, object_name) if flags else body


def open_into(
    buffer: memoryview,
    key: Aes,
    box: Readable,
    *,
    key_id: str,
    key_version: int,
    context: Context,
    object_name: str,
    offset: int = 0,
    decompressor: ZstdDecompressor | None = None,
) -> int:
    """Open one object into a buffer, which must not overlap the box.

    Args:
        buffer: a view of bytes with room for the plaintext behind `offset`. Where the box does not open, what was written is overwritten with zeros.
        key: as for `open_object`, like the other arguments.
        box: exactly one sealed object.
        key_id: the expected key.
        key_version: its expected version.
        context: from `object_context`.
        object_name: how an error names the object.
        offset: where the plaintext begins in the buffer.
        decompressor: as for `open_object`.

    Returns:
        Length of the plaintext in bytes.

    Raises:
        IntegrityFailure: `object_damaged`, for whatever reason.
        ValueError: the plaintext does not fit.
    """
    view = memoryview(box)
    flags, length, nonce = _expected(view, key_ref(key_id, key_version), object_name)
    end = offset + length
    if not 0 <= offset <= end <= len(buffer):
        raise ValueError(_TOO_SMALL)
    aad = bytes(view[:HEADER_BYTES]) + context
    try:
        if flags:
            buffer[offset:end] = _decompressed(key.open(nonce, view[HEADER_BYTES:], aad), length, decompressor, object_name)
        else:
            key.open_into(nonce, view[HEADER_BYTES:], aad, buffer[offset:end])
    except TagMismatchError:
        _refuse(object_name)
    return length


def reseal_into(
    buffer: memoryview,
    scratch: memoryview,
    box: Readable,
    *,
    old: Aes,
    old_id: str,
    old_version: int,
    old_context: Context,
    new: Aes,
    new_id: str,
    new_version: int,
    new_context: Context,
    nonce: bytes,
    object_name: str,
    offset: int = 0,
) -> int:
    """Move one object to another key without decompressing it: a mailbox move.

    Args:
        buffer: takes the new box, of the same size, behind `offset`.
        scratch: at least `len(box) - 60` bytes; holds content until it is used again. The three buffers do not overlap.
        box: the object under the old key.
        old: the key it is sealed by.
        old_id: its id.
        old_version: its version.
        old_context: the context it was sealed with.
        new: the key to seal it by.
        new_id: its id.
        new_version: its version.
        new_context: the context to seal it with.
        nonce: 12 fresh random bytes.
        object_name: how an error names the object.
        offset: where the new box begins in the buffer.

    Returns:
        Size of the new box in bytes.

    Raises:
        IntegrityFailure: `object_damaged`: the old box does not open; nothing was sealed.
        ValueError: a buffer is too small, a malformed id, version or nonce.
    """
    view = memoryview(box)
    flags, length, old_nonce = _expected(view, key_ref(old_id, old_version), object_name)
    size = len(view)
    header = _pack_header(_PREFIX, flags, 0, key_ref(new_id, new_version), length, nonce)
    if not 0 <= offset < offset + size <= len(buffer) or size - OVERHEAD_BYTES > len(scratch):
        raise ValueError(_TOO_SMALL)
    body = scratch[: size - OVERHEAD_BYTES]
    try:
        old.open_into(old_nonce, view[HEADER_BYTES:], bytes(view[:HEADER_BYTES]) + old_context, body)
    except TagMismatchError:
        _refuse(object_name)
    new.seal_into(nonce, body, header + new_context, buffer[offset + HEADER_BYTES : offset + size])
    buffer[offset : offset + HEADER_BYTES] = header
    return size


def parse_header(box: Readable, *, object_name: str) -> Header:
    """What a box says about itself, checked as far as it can be without the key.

    Args:
        box: exactly one sealed object.
        object_name: how an error names it.

    Raises:
        IntegrityFailure: `object_damaged`: not one whole sealed object.
    """
    flags, reference, length, nonce = _parsed(memoryview(box), object_name)
    key_id, key_version = read_key_ref(reference)
    return Header(bool(flags), key_id, key_version, length, nonce)


def _body(plaintext: Readable, compressor: ZstdCompressor) -> tuple[int, Readable]:
    length = len(plaintext)
    body = compressor.compress(plaintext)
    if not _saves_enough(len(body), length):
        return 0, plaintext
    if frame_content_size(body) != length:
        raise ValueError("the compressor does not state content sizes; make it with new_compressor()")
    return FLAG_ZSTD, body


def _saves_enough(size: int, length: int) -> bool:
    """At least 1/16: below that, opening costs more than the bytes are worth."""
    return size * 16 <= length * 15


def _decompressed(body: bytes, length: int, decompressor: ZstdDecompressor | None, object_name: str) -> bytes:
    """Memory is bounded: the frame's own statement, which the library allocates by, must be the authenticated length."""
    try:
        if frame_content_size(body) != length:
            _refuse(object_name)
        plaintext = (decompressor or ZstdDecompressor()).decompress(body, max_output_size=length, allow_extra_data=False)
    except ZstdError:
        _refuse(object_name)
    if len(plaintext) != length:
        _refuse(object_name)
    return plaintext


def _parsed(view: memoryview, object_name: str) -> tuple[int, bytes, int, bytes]:
    """Flags, key reference, plaintext length, nonce: everything docs/spec/sealed-object.md lets a reader check without the key."""
    size = len(view) - OVERHEAD_BYTES
    if size < 0:
        _refuse(object_name)
    prefix, flags, reserved, reference, length, nonce = _unpack_header(view)
    if prefix != _PREFIX or reserved or length > MAX_PLAINTEXT_BYTES:
        _refuse(object_name)
    whole = size == length if not flags else flags == FLAG_ZSTD and size > 0 and _saves_enough(size, length)
    if not whole:
        _refuse(object_name)
    return flags, reference, length, nonce


def _expected(view: memoryview, reference: bytes, object_name: str) -> tuple[int, int, bytes]:
    flags, found, length, nonce = _parsed(view, object_name)
    if found != reference:
        _refuse(object_name)
    return flags, length, nonce


def _refuse(object_name: str) -> NoReturn:
    """One text for every cause: which check failed would help whoever changed the bytes."""
    raise IntegrityFailure(
        "object_damaged",
        f"the object {object_name} does not open under the key and place it belongs to",
        "no other data was returned in its place; restore it from a backup",
    ) from None
