"""Private keys and key backups at rest: AES-256-GCM under keys derived from the vault's seal.

The seal is 32 random bytes. HKDF-SHA-256 (RFC 5869) gives three independent values from it, told apart by their info text:

    private keys     AES-256-GCM, info "keystead vault private key 1"
    backups          AES-256-GCM, info "keystead vault key backup 1"
    check value      32 bytes stored beside the keys, info "keystead vault seal check 1": tells a wrong seal at once

A sealed private key is: version byte 1, nonce (12 bytes), ciphertext and tag (16 bytes). Its associated data are tenant, vault, key
name and key version, each preceded by its length in two bytes, so no two contexts have the same encoding and none is empty.
Nonces are random, 96 bits (NIST SP 800-38D section 8.2.2); a vault seals far fewer than 2^32 private keys.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import constant_time, hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from keystead.core.door import key_bytes
from keystead.core.errors import IntegrityFailure

if TYPE_CHECKING:
    from keystead.core.ids import RandomBytes
    from keystead.core.secret import SecretKey

NONCE_BYTES = 12
_VERSION = b"\x01"
_PRIVATE_KEY_INFO = b"keystead vault private key 1"
_BACKUP_INFO = b"keystead vault key backup 1"
_CHECK_INFO = b"keystead vault seal check 1"


class VaultSeal:
    """What the seal of a vault database opens and closes; holds derived keys and shows none."""

    __slots__ = ("_backup", "_private", "check_value")

    def __init__(self, seal: SecretKey) -> None:
        self._private = AESGCM(_derive(seal, _PRIVATE_KEY_INFO))
        self._backup = AESGCM(_derive(seal, _BACKUP_INFO))
        self.check_value = _derive(seal, _CHECK_INFO)

    def matches(self, check_value: bytes) -> bool:
        """Whether a stored check value was made from the same seal."""
        return constant_time.bytes_eq(self.check_value, check_value)

    def close_private(self, pkcs8: bytes, context: bytes, random: RandomBytes) -> bytes:
        """Seal a private key (PKCS #8 DER)."""
        nonce = random(NONCE_BYTES)
        return _VERSION + nonce + self._private.encrypt(nonce, pkcs8, context)

    def open_private(self, sealed: bytes, context: bytes) -> bytes:
        """Open what `close_private` returned, under the same context.

        Raises:
            IntegrityFailure: `private_key_damaged`.
        """
        if sealed[:1] != _VERSION:
            raise _damaged("private_key_damaged", "a private key in the vault database")
        try:
            return self._private.decrypt(sealed[1 : 1 + NONCE_BYTES], sealed[1 + NONCE_BYTES :], context)
        except (InvalidTag, ValueError):
            raise _damaged("private_key_damaged", "a private key in the vault database") from None

    def close_backup(self, payload: bytes, header: bytes, random: RandomBytes) -> bytes:
        """Seal the payload of a backup; returns nonce, ciphertext and tag. The header is authenticated, not encrypted."""
        nonce = random(NONCE_BYTES)
        return nonce + self._backup.encrypt(nonce, payload, header)

    def open_backup(self, box: bytes, header: bytes) -> bytes:
        """Open what `close_backup` returned.

        Raises:
            IntegrityFailure: `backup_damaged`: changed bytes, or made by another vault service (R-059).
        """
        try:
            return self._backup.decrypt(box[:NONCE_BYTES], box[NONCE_BYTES:], header)
        except (InvalidTag, ValueError):
            raise _damaged("backup_damaged", "the key backup") from None


def private_key_context(tenant_id: str, vault: str, name: str, version: str) -> bytes:
    """Associated data of a sealed private key."""
    return length_prefixed(tenant_id.lower(), vault.lower(), name.lower(), version)


def length_prefixed(*fields: str) -> bytes:
    """The fields in UTF-8, each after its length in two bytes, big-endian: no two lists have the same encoding."""
    encoded = [field.encode() for field in fields]
    return b"".join(len(field).to_bytes(2, "big") + field for field in encoded)


def _derive(seal: SecretKey, info: bytes) -> bytes:
    return HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=info).derive(key_bytes(seal))


def _damaged(code: str, what: str) -> IntegrityFailure:
    return IntegrityFailure(
        code,
        f"{what} does not open under this vault's seal",
        "restore the bytes as they were written, and use the seal they were written under",
    )
