"""Which key made a box: key id (16 bytes) and key version (u32), 20 bytes, as headers carry them (docs/spec/README.md)."""

from __future__ import annotations

from functools import lru_cache
from uuid import UUID

from keystead.core.ids import id_bytes

KEY_REF_BYTES = 20
MAX_U32 = 2**32 - 1


@lru_cache(maxsize=4096)  # callers seal many boxes under one key; ids are not secret
def key_ref(key_id: str, key_version: int) -> bytes:
    """The 20 bytes of a key reference.

    Raises:
        ValueError: the id is not in its one spelling (contexts carry the text, so a second spelling would be a second key),
            or the version is not a u32.
    """
    if not 0 <= key_version <= MAX_U32:
        raise ValueError(f"key version {key_version} is not between 0 and {MAX_U32}")
    return raw_id(key_id) + key_version.to_bytes(4, "big")


def read_key_ref(reference: bytes) -> tuple[str, int]:
    """Key id and version of 20 bytes."""
    return str(UUID(bytes=reference[:16])), int.from_bytes(reference[16:KEY_REF_BYTES], "big")


def raw_id(identifier: str) -> bytes:
    """The 16 bytes of an id.

    Raises:
        ValueError: not a UUID in lower case with hyphens.
    """
    raw = id_bytes(identifier)
    if str(UUID(bytes=raw)) != identifier:
        raise ValueError(f"the id {identifier!r} is not written in lower case with hyphens")
    return raw
