"""Which key made a box: key id (16 bytes) and key version (u32), 20 bytes, as headers carry them (docs/spec/README.md)."""

from __future__ import annotations

import re
from functools import lru_cache

KEY_REF_BYTES = 20
MAX_U32 = 2**32 - 1
_ID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}")


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
    return id_of(reference[:16]), int.from_bytes(reference[16:KEY_REF_BYTES], "big")


def raw_id(identifier: str) -> bytes:
    """The 16 bytes of an id.

    Raises:
        ValueError: not a UUID in lower case with hyphens.
    """
    if not _ID.fullmatch(identifier):
        raise ValueError(f"the id {identifier!r} is not written in lower case with hyphens")
    return bytes.fromhex(identifier.replace("-", ""))


def id_of(raw: bytes) -> str:
    """The id of 16 bytes: a tenth of what the library's class costs, and large things are made of thousands."""
    digits = raw.hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
