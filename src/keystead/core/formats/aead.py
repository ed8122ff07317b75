"""AES-256-GCM (NIST SP 800-38D) under one key: the only cipher of the formats.

Building the cipher object costs several times one small seal, so an `Aes` is made once per key and kept as long as the key may be used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn, TypeAlias

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from keystead.core.door import key_bytes

if TYPE_CHECKING:
    from keystead.core.secret import SecretKey

NONCE_BYTES = 12
TAG_BYTES = 16
AES_256_GCM = 1
"""The algorithm number in headers."""

Readable: TypeAlias = "bytes | bytearray | memoryview"
Writable: TypeAlias = "bytearray | memoryview"
"""Buffers of single bytes."""


_MISUSE = f"a nonce is {NONCE_BYTES} bytes and associated data is never empty"
"""The library itself would take nonces of 8 to 128 bytes, hashing those that are not 12 down to a counter block."""


class TagMismatchError(Exception):
    """A box did not open. Format modules turn it into `IntegrityFailure`; it says nothing by itself."""


class Aes:
    """One key, ready to seal and open.

    Nonces are 12 bytes straight from the operating system's generator, one for every box. Associated data is never empty. May be used
    by several threads at once. Like the key it is made of, it shows nothing and is never pickled or copied.
    """

    __slots__ = ("__gcm",)

    def __init__(self, key: SecretKey) -> None:
        self.__gcm = AESGCM(key_bytes(key))

    def __repr__(self) -> str:
        return "Aes(...)"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("key material is never pickled or copied")

    def seal(self, nonce: bytes, data: Readable, aad: bytes) -> bytes:
        """Ciphertext and tag: `len(data) + 16` bytes.

        Raises:
            ValueError: a nonce of another length, or no associated data.
        """
        if len(nonce) != NONCE_BYTES or not aad:
            raise ValueError(_MISUSE)
        return self.__gcm.encrypt(nonce, data, aad)

    def open(self, nonce: bytes, data: Readable, aad: bytes) -> bytes:
        """What `seal` was given.

        Raises:
            TagMismatchError: another key, nonce, associated data, or changed bytes.
            ValueError: as for `seal`.
        """
        if len(nonce) != NONCE_BYTES or not aad:
            raise ValueError(_MISUSE)
        try:
            return self.__gcm.decrypt(nonce, data, aad)
        except InvalidTag:
            raise TagMismatchError from None

    def seal_into(self, nonce: bytes, data: Readable, aad: bytes, out: Writable) -> None:
        """Like `seal`, into a buffer of exactly `len(data) + 16` bytes that does not overlap the data.

        Raises:
            ValueError: as for `seal`, or a buffer of another size.
        """
        if len(nonce) != NONCE_BYTES or not aad:
            raise ValueError(_MISUSE)
        self.__gcm.encrypt_into(nonce, data, aad, out)

    def open_into(self, nonce: bytes, data: Readable, aad: bytes, out: Writable) -> None:
        """Like `open`, into a buffer of exactly `len(data) - 16` bytes that does not overlap the data.

        When the box does not open the buffer is overwritten with zeros: the cipher leaves the unauthenticated plaintext in it.

        Raises:
            TagMismatchError: as for `open`.
            ValueError: as for `seal`, or a buffer of another size.
        """
        if len(nonce) != NONCE_BYTES or not aad:
            raise ValueError(_MISUSE)
        try:
            self.__gcm.decrypt_into(nonce, data, aad, out)
        except InvalidTag:
            out[:] = bytes(len(out))
            raise TagMismatchError from None
