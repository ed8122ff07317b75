"""One wrapped copy of a policy key, with what is needed to ask for its unwrapping (docs/spec/envelope.md).

This is the plaintext that the key store seals under the policy's shred key, with `envelope_context` as associated data.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import NoReturn

from keystead.core.errors import IntegrityFailure
from keystead.core.formats.aead import AES_256_GCM

MAGIC = b"KSEV"
VERSION = 1
MAX_ENVELOPE_BYTES = 2048
MAX_URI_BYTES = 1024
MAX_AVAILABILITY_BYTES = 512
RSA_BYTES = frozenset({256, 384, 512})
"""Sizes of RSA-OAEP-256 ciphertexts: the moduli of RSA 2048, 3072 and 4096."""
_PREFIX = MAGIC + bytes([VERSION, AES_256_GCM])
_URI = re.compile(rf"[\x21-\x7e]{{1,{MAX_URI_BYTES}}}")


class WrapAlgorithm(StrEnum):
    """What wrapped the copy."""

    RSA_OAEP_256 = "RSA-OAEP-256"
    AVAILABILITY = "AVAILABILITY"


@dataclass(frozen=True, slots=True)
class Envelope:
    """One copy.

    Attributes:
        algorithm: what wrapped it.
        key_uri: full URI of the key version that wrapped, or the availability key's id; 1 to 1,024 printable ASCII characters.
        wrapped: 256, 384 or 512 bytes from a vault; 1 to 512 bytes from the key store.

    Raises:
        ValueError: a value outside these limits.
    """

    algorithm: WrapAlgorithm
    key_uri: str
    wrapped: bytes

    def __post_init__(self) -> None:
        if not _URI.fullmatch(self.key_uri):
            raise ValueError(f"a key URI is 1 to {MAX_URI_BYTES} printable ASCII characters")
        if not _size_fits(self.algorithm, len(self.wrapped)):
            raise ValueError(f"{len(self.wrapped)} bytes are not a value wrapped by {self.algorithm}")


def encode(envelope: Envelope) -> bytes:
    """The envelope's bytes, at most 2,048."""
    name, uri = envelope.algorithm.value.encode(), envelope.key_uri.encode()
    return b"".join(
        (
            _PREFIX,
            len(name).to_bytes(1, "big"),
            name,
            len(uri).to_bytes(2, "big"),
            uri,
            len(envelope.wrapped).to_bytes(2, "big"),
            envelope.wrapped,
        )
    )


def decode(data: bytes, *, object_name: str) -> Envelope:
    """The envelope that `encode` turns into exactly these bytes.

    Args:
        data: an opened box.
        object_name: how an error names it, such as policy and role.

    Raises:
        IntegrityFailure: `envelope_damaged`, for whatever reason.
    """
    if len(data) > MAX_ENVELOPE_BYTES or not data.startswith(_PREFIX):
        _refuse(object_name)
    try:
        name, rest = _take(data[len(_PREFIX) :], 1)
        uri, rest = _take(rest, 2)
        wrapped, rest = _take(rest, 2)
        envelope = Envelope(WrapAlgorithm(name.decode("ascii")), uri.decode("ascii"), wrapped)
    except ValueError:
        _refuse(object_name)
    if rest:
        _refuse(object_name)
    return envelope


def _take(data: bytes, width: int) -> tuple[bytes, bytes]:
    """A length-prefixed value and what follows it; ValueError where the data is shorter than it says."""
    end = width + int.from_bytes(data[:width], "big")
    if len(data) < max(width, end):
        raise ValueError
    return data[width:end], data[end:]


def _size_fits(algorithm: WrapAlgorithm, size: int) -> bool:
    return size in RSA_BYTES if algorithm is WrapAlgorithm.RSA_OAEP_256 else 0 < size <= MAX_AVAILABILITY_BYTES


def _refuse(object_name: str) -> NoReturn:
    raise IntegrityFailure(
        "envelope_damaged",
        f"the envelope {object_name} is not what was sealed",
        "nothing was opened in its place; restore the database row from a backup",
    ) from None
