"""The boxes of the key store, byte for byte (docs/spec/keystore.md section 2). Pure.

One layout serves all but what an RSA key wraps: magic, version, algorithm, nonce, ciphertext, tag. The magic tells the kinds apart and is authenticated
with the rest of the header, so that a box of one kind never opens as another. Fields of the associated data carry their
lengths: no two lists of fields give the same bytes.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from keystead.core.formats.aead import AES_256_GCM, NONCE_BYTES, TAG_BYTES, TagMismatchError

if TYPE_CHECKING:
    from keystead.core.formats.aead import Aes
    from keystead.core.ids import RandomBytes

VERSION = 1
HEADER_BYTES = 6
"""Magic (4), version (1), algorithm (1)."""
OVERHEAD_BYTES = HEADER_BYTES + NONCE_BYTES + TAG_BYTES


class Kind(Enum):
    """What a box holds; the value is its magic."""

    EPOCH_KEY = b"KSKE"
    ENTRY_KEY = b"KSKN"
    VALUE = b"KSKB"


RSA_BOX_BYTES = 256
"""What an RSA-2048 key wraps: as many bytes as the modulus, and nothing around them."""


class WrongBox(Exception):
    """Another key, another kind, other fields, or changed bytes. It never leaves the key store, which says what did not open."""


def seal(cipher: Aes, kind: Kind, plaintext: bytes, fields: tuple[bytes, ...], random: RandomBytes) -> bytes:
    """Seal a plaintext; `fields` are what it belongs to, never empty.

    Nonces are random: safe up to 2^32 boxes under one key (SP 800-38D section 8.3).
    """
    nonce = random(NONCE_BYTES)
    header = _header(kind)
    return header + nonce + cipher.seal(nonce, plaintext, header + encoded(fields))


def unseal(cipher: Aes, kind: Kind, box: bytes, fields: tuple[bytes, ...]) -> bytes:
    """The plaintext of a box of exactly this kind, key and fields.

    Raises:
        WrongBox: it is not.
    """
    header = _header(kind)
    if len(box) < OVERHEAD_BYTES or box[:HEADER_BYTES] != header:
        raise WrongBox
    body = HEADER_BYTES + NONCE_BYTES
    try:
        return cipher.open(box[HEADER_BYTES:body], box[body:], header + encoded(fields))
    except TagMismatchError:
        raise WrongBox from None


def encoded(fields: tuple[bytes, ...]) -> bytes:
    """Each field behind its length as an unsigned 32-bit big-endian number."""
    assert all(fields), "every field says something"
    return b"".join(len(field).to_bytes(4, "big") + field for field in fields)


def epoch_fields(compartment: str, epoch: int) -> tuple[bytes, ...]:
    """What an epoch key belongs to: compartment, epoch as an unsigned 64-bit big-endian number."""
    return (compartment.encode(), epoch.to_bytes(8, "big"))


def entry_fields(compartment: str, key_id: str, epoch: int) -> tuple[bytes, ...]:
    """What an entry belongs to: compartment, key id, epoch."""
    return (compartment.encode(), key_id.encode(), epoch.to_bytes(8, "big"))


def value_fields(compartment: str, key_id: str, context: bytes) -> tuple[bytes, ...]:
    """What a sealed value belongs to: compartment, key id, the caller's context."""
    return (compartment.encode(), key_id.encode(), context)


def _header(kind: Kind) -> bytes:
    return kind.value + bytes((VERSION, AES_256_GCM))
