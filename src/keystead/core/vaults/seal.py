"""What lies in a vault database under its *vault key*: private keys, token keys, release keys, backups (docs/spec/vault-seal.md).

The vault key is 32 random bytes that exist on disk only wrapped by the seal (`core/vaults/seal_record.py`). HKDF-SHA-256 (RFC 5869) gives
independent keys from it, told apart by their info text; none of them opens what another closed. Each rotation of the seal makes a new
vault key, of the next *generation*, and seals everything in the database again under it.

    private keys            AES-256-GCM, info "keystead vault private key 2" (1: before generations)
    token keys              AES-256-GCM, info "keystead vault token key 1"
    release keys            AES-256-GCM, info "keystead vault release key 1"
    backups                 AES-256-GCM, info "keystead vault key backup 1"
    former backup keys      AES-256-GCM, info "keystead vault former backup key 1": so that backups of earlier generations still open
    check value             32 bytes stored beside the keys, info "keystead vault seal check 1": tells a wrong vault key at once

A box in the database is: version byte, generation (u32), nonce (12 bytes), ciphertext and tag (16 bytes). Its associated data are the
version byte and the generation, then the context of what is inside, which is never empty. Nonces are random, 96 bits (NIST SP 800-38D
section 8.2.2); a vault key seals far fewer than 2^32 boxes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import constant_time, hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from keystead.core.door import key_bytes
from keystead.core.errors import IntegrityFailure, Unavailable
from keystead.core.secret import SecretKey

if TYPE_CHECKING:
    from collections.abc import Mapping

    from keystead.core.ids import RandomBytes

NONCE_BYTES = 12
GENERATION_BYTES = 4
MOST_GENERATIONS = 2**32 - 1
_GENERATION_AT = 1
_NONCE_AT = _GENERATION_AT + GENERATION_BYTES
_DATA_AT = _NONCE_AT + NONCE_BYTES
_OLD_PRIVATE, _PRIVATE, _TOKEN, _RELEASE, _FORMER = b"\x01", b"\x02", b"\x01", b"\x01", b"\x01"
"""Version bytes. What a version means depends on what is inside, and so does the key it opens with."""
_OLD_PRIVATE_INFO = b"keystead vault private key 1"
_PRIVATE_INFO = b"keystead vault private key 2"
_TOKEN_INFO = b"keystead vault token key 1"
_RELEASE_INFO = b"keystead vault release key 1"
_BACKUP_INFO = b"keystead vault key backup 1"
_FORMER_INFO = b"keystead vault former backup key 1"
_CHECK_INFO = b"keystead vault seal check 1"


class VaultSeal:
    """What an opened vault database closes and opens things with; holds derived keys, shows none, and is never pickled or copied.

    Args:
        vault_key: the vault key.
        generation: of that key; 0 in a database from before generations, whose seal file is the vault key.
        former: the sealed backup keys of earlier generations, by generation.

    Raises:
        IntegrityFailure: `vault_seal_damaged`: a former backup key does not open.
    """

    __slots__ = (
        "_backup",
        "_backup_key",
        "_former",
        "_former_keys",
        "_old_private",
        "_private",
        "_release",
        "_token",
        "check_value",
        "generation",
    )

    def __init__(self, vault_key: SecretKey, generation: int = 0, former: Mapping[int, bytes] | None = None) -> None:
        self.generation = generation
        self.check_value = _derived(vault_key, _CHECK_INFO)
        self._old_private = AESGCM(_derived(vault_key, _OLD_PRIVATE_INFO))
        self._private = AESGCM(_derived(vault_key, _PRIVATE_INFO))
        self._token = AESGCM(_derived(vault_key, _TOKEN_INFO))
        self._release = AESGCM(_derived(vault_key, _RELEASE_INFO))
        self._former = AESGCM(_derived(vault_key, _FORMER_INFO))
        self._backup_key = SecretKey(_derived(vault_key, _BACKUP_INFO))
        self._backup = AESGCM(key_bytes(self._backup_key))
        self._former_keys = {earlier: self._opened_former(earlier, box) for earlier, box in (former or {}).items()}

    def __repr__(self) -> str:
        return f"VaultSeal(generation {self.generation})"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("key material is never pickled or copied")

    def matches(self, check_value: bytes) -> bool:
        """Whether a stored check value was made from the same vault key."""
        return constant_time.bytes_eq(self.check_value, check_value)

    def close_private(self, pkcs8: bytes, context: bytes, random: RandomBytes) -> bytes:
        """Seal a private key (PKCS #8 DER)."""
        return self._close(self._private, _PRIVATE, pkcs8, context, random)

    def open_private(self, sealed: bytes, context: bytes) -> bytes:
        """Open what `close_private` returned, under the same context.

        Raises:
            IntegrityFailure: `private_key_damaged`.
            Unavailable: `vault_seal_rotated`: sealed under a later generation.
        """
        if sealed[:1] != _OLD_PRIVATE:
            return self._open(self._private, _PRIVATE, sealed, context, _PRIVATE_KEY)
        if self.generation:  # a database of a later generation holds none of these: somebody put it there
            raise _damaged(*_PRIVATE_KEY)
        try:
            return self._old_private.decrypt(sealed[1 : 1 + NONCE_BYTES], sealed[1 + NONCE_BYTES :], context)
        except (InvalidTag, ValueError):
            raise _damaged(*_PRIVATE_KEY) from None

    def close_token_key(self, private: bytes, context: bytes, random: RandomBytes) -> bytes:
        """Seal the private half of a key that access tokens are signed with (PKCS #8 DER); see `token_key_context`."""
        return self._close(self._token, _TOKEN, private, context, random)

    def open_token_key(self, sealed: bytes, context: bytes) -> bytes:
        """Open what `close_token_key` returned, under the same context.

        Raises:
            IntegrityFailure: `token_key_damaged`.
            Unavailable: `vault_seal_rotated`: sealed under a later generation.
        """
        return self._open(self._token, _TOKEN, sealed, context, ("token_key_damaged", "a key for access tokens in the vault database"))

    def close_release_key(self, private: bytes, context: bytes, random: RandomBytes) -> bytes:
        """Seal the private half of a key that released keys are signed with (PKCS #8 DER); see `release_key_context`."""
        return self._close(self._release, _RELEASE, private, context, random)

    def open_release_key(self, sealed: bytes, context: bytes) -> bytes:
        """Open what `close_release_key` returned, under the same context.

        Raises:
            IntegrityFailure: `release_key_damaged`.
            Unavailable: `vault_seal_rotated`: sealed under a later generation.
        """
        return self._open(self._release, _RELEASE, sealed, context, ("release_key_damaged", "a key for releases in the vault database"))

    def close_backup(self, payload: bytes, header: bytes, random: RandomBytes) -> bytes:
        """Seal the payload of a backup; returns nonce, ciphertext and tag. The header is authenticated, not encrypted."""
        nonce = random(NONCE_BYTES)
        return nonce + self._backup.encrypt(nonce, payload, header)

    def open_backup(self, box: bytes, header: bytes, generation: int) -> bytes:
        """Open what `close_backup` returned in a generation, this one or an earlier one.

        Raises:
            IntegrityFailure: `backup_damaged`: changed bytes, or made by another vault service (R-059).
        """
        try:
            key = self._backup if generation == self.generation else AESGCM(key_bytes(self._former_keys[generation]))
            return key.decrypt(box[:NONCE_BYTES], box[NONCE_BYTES:], header)
        except (KeyError, InvalidTag, ValueError):
            raise _damaged("backup_damaged", "the key backup") from None

    def keep_backups_of(self, old: VaultSeal, random: RandomBytes) -> dict[int, bytes]:
        """The backup keys of a seal that this one replaces, and of those before it, sealed: what `former` takes, by generation."""
        keys = {**old._former_keys, old.generation: old._backup_key}
        boxes = {}
        for earlier, key in sorted(keys.items()):
            boxes[earlier] = self._close(self._former, _FORMER, key_bytes(key), _former_context(earlier), random)
            self._former_keys[earlier] = key
        return boxes

    def _opened_former(self, earlier: int, box: bytes) -> SecretKey:
        what = ("vault_seal_damaged", f"the key for backups of generation {earlier} in the vault database")
        try:
            return SecretKey(self._open(self._former, _FORMER, box, _former_context(earlier), what))
        except (Unavailable, ValueError):  # read in one transaction with the seal record: of a later generation it cannot be
            raise _damaged(*what) from None

    def _close(self, key: AESGCM, version: bytes, plain: bytes, context: bytes, random: RandomBytes) -> bytes:
        header = version + self.generation.to_bytes(GENERATION_BYTES, "big")
        nonce = random(NONCE_BYTES)
        return header + nonce + key.encrypt(nonce, plain, header + context)

    def _open(self, key: AESGCM, version: bytes, sealed: bytes, context: bytes, what: tuple[str, str]) -> bytes:
        if sealed[:1] != version or len(sealed) < _DATA_AT:
            raise _damaged(*what)
        generation = sealed_generation(sealed)
        if generation > self.generation:
            raise seal_rotated()
        try:
            if generation < self.generation:  # whatever opens under an earlier generation is not of this database any more
                raise ValueError  # noqa: TRY301 - refused exactly like changed bytes
            return key.decrypt(sealed[_NONCE_AT:_DATA_AT], sealed[_DATA_AT:], sealed[:_NONCE_AT] + context)
        except (InvalidTag, ValueError):
            raise _damaged(*what) from None


_PRIVATE_KEY = ("private_key_damaged", "a private key in the vault database")


def sealed_generation(sealed: bytes) -> int:
    """The generation a box says it was sealed under; not authenticated before it has opened."""
    return int.from_bytes(sealed[_GENERATION_AT:_NONCE_AT], "big")


def seal_rotated() -> Unavailable:
    """What a process is told that opened the database before its seal was rotated: it must not write under the old vault key."""
    return Unavailable(
        "vault_seal_rotated",
        "the seal of the vault database was rotated while this process had it open",
        "restart the process, with the new seal in its settings",
    )


def private_key_context(tenant_id: str, vault: str, name: str, version: str) -> bytes:
    """Associated data of a sealed private key."""
    return length_prefixed(tenant_id.lower(), vault.lower(), name.lower(), version)


def token_key_context(key_id: str) -> bytes:
    """Associated data of a sealed key for access tokens."""
    return length_prefixed("token key", key_id.lower())


def release_key_context(key_id: str) -> bytes:
    """Associated data of a sealed key for releases."""
    return length_prefixed("release key", key_id.lower())


def length_prefixed(*fields: str) -> bytes:
    """The fields in UTF-8, each after its length in two bytes, big-endian: no two lists have the same encoding."""
    encoded = [field.encode() for field in fields]
    return b"".join(len(field).to_bytes(2, "big") + field for field in encoded)


def _former_context(earlier: int) -> bytes:
    return length_prefixed("former backup key", str(earlier))


def _derived(vault_key: SecretKey, info: bytes) -> bytes:
    return HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=info).derive(key_bytes(vault_key))


def _damaged(code: str, what: str) -> IntegrityFailure:
    return IntegrityFailure(
        code,
        f"{what} does not open under this vault's seal",
        "restore the bytes as they were written, and use the seal they were written under",
    )
