"""A 32-byte key under its parent key, 86 bytes (docs/spec/wrapped-key.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from keystead.core.door import key_bytes
from keystead.core.errors import IntegrityFailure
from keystead.core.formats.aead import AES_256_GCM, NONCE_BYTES, TAG_BYTES, Aes, TagMismatchError
from keystead.core.formats.context import Context, key_context
from keystead.core.formats.key_ref import KEY_REF_BYTES, key_ref, read_key_ref
from keystead.core.secret import KEY_BYTES, SecretKey

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from keystead.core.ids import RandomBytes

MAGIC = b"KSWK"
VERSION = 1
_PREFIX = MAGIC + bytes([VERSION, AES_256_GCM])
_NONCE_AT = len(_PREFIX) + KEY_REF_BYTES
_BODY_AT = _NONCE_AT + NONCE_BYTES
WRAPPED_BYTES = _BODY_AT + KEY_BYTES + TAG_BYTES


def wrap(parent: Aes, key: SecretKey, *, parent_id: str, parent_version: int, context: Context, nonce: bytes) -> bytes:
    """Seal a key under its parent.

    Args:
        parent: the parent key, ready for use.
        key: the key to wrap.
        parent_id: id of the parent key, a UUID in lower case.
        parent_version: its version, a u32.
        context: from `key_context`, of the same parent.
        nonce: 12 fresh random bytes.

    Returns:
        86 bytes.

    Raises:
        ValueError: a malformed id, version or nonce.
    """
    return _seal(parent, key_bytes(key), _PREFIX + key_ref(parent_id, parent_version), context, nonce)


def unwrap(parent: Aes, blob: bytes, *, parent_id: str, parent_version: int, context: Context, object_name: str) -> SecretKey:
    """Open what `wrap` returned, under the same parent and context.

    Args:
        parent: the parent key.
        blob: the wrapped key.
        parent_id: the parent this key is expected to be wrapped by.
        parent_version: its expected version.
        context: from `key_context`.
        object_name: how an error names the key, such as its id.

    Raises:
        IntegrityFailure: `wrapped_key_damaged`, for whatever reason.
    """
    return SecretKey(_open(parent, blob, _PREFIX + key_ref(parent_id, parent_version), context, object_name))


def parent_of(blob: bytes, *, object_name: str) -> tuple[str, int]:
    """Id and version of the parent a wrapped key names; not authenticated, good for choosing a parent to try `unwrap` with.

    Raises:
        IntegrityFailure: `wrapped_key_damaged`: not a wrapped key.
    """
    if len(blob) != WRAPPED_BYTES or not blob.startswith(_PREFIX):
        _refuse(object_name)
    return read_key_ref(blob[len(_PREFIX) : _NONCE_AT])


def rewrap_all(
    keys: Iterable[tuple[str, bytes]],
    *,
    tenant_id: str,
    kind: str,
    old: Aes,
    old_id: str,
    old_version: int,
    new: Aes,
    new_id: str,
    new_version: int,
    random: RandomBytes,
) -> Iterator[tuple[str, bytes]]:
    """Move many keys of one tenant and kind from one parent to another.

    The key inside goes from one box to the other without being kept anywhere.

    Args:
        keys: pairs of key id and wrapped key under the old parent.
        tenant_id: whose keys.
        kind: as for `key_context`.
        old: the parent they are wrapped by.
        old_id: its id.
        old_version: its version.
        new: the parent to wrap them by.
        new_id: its id.
        new_version: its version.
        random: asked for one nonce per key.

    Yields:
        Pairs of key id and wrapped key under the new parent, in order.

    Raises:
        IntegrityFailure: `wrapped_key_damaged` naming the first key that does not open; those before it were yielded.
        ValueError: a malformed id or version.
    """
    old_start = _PREFIX + key_ref(old_id, old_version)
    new_start = _PREFIX + key_ref(new_id, new_version)
    for key_id, blob in keys:
        material = _open(old, blob, old_start, key_context(tenant_id, kind, key_id, old_id, old_version), key_id)
        yield key_id, _seal(new, material, new_start, key_context(tenant_id, kind, key_id, new_id, new_version), random(NONCE_BYTES))


def _seal(parent: Aes, material: bytes, start: bytes, context: Context, nonce: bytes) -> bytes:
    header = start + nonce
    return header + parent.seal(nonce, material, header + context)


def _open(parent: Aes, blob: bytes, start: bytes, context: Context, object_name: str) -> bytes:
    if len(blob) != WRAPPED_BYTES or not blob.startswith(start):
        _refuse(object_name)
    try:
        return parent.open(blob[_NONCE_AT:_BODY_AT], blob[_BODY_AT:], blob[:_BODY_AT] + context)
    except TagMismatchError:
        _refuse(object_name)


def _refuse(object_name: str) -> NoReturn:
    """One text for every cause: which check failed would help whoever changed the bytes."""
    raise IntegrityFailure(
        "wrapped_key_damaged",
        f"the wrapped key {object_name} does not open under the key and place it belongs to",
        "nothing was opened in its place; restore the database row from a backup",
    ) from None
