"""The backup of a key: one sealed blob with every version and all metadata, the name included (R-058 to R-062).

Layout, version 2:

    offset  bytes  field
    0       6      magic "KSTDKB"
    6       1      format version, 2
    7       4      generation of the vault key it is sealed under, big-endian: a rotated seal still opens it
    11      2      length n of the header fields, big-endian
    13      n      header fields: tenant id, subscription id, geography; each after its length in two bytes
    13+n    12     nonce
    25+n    rest   AES-256-GCM ciphertext and tag of the payload; associated data: bytes 0 to 13+n

Version 1, which is read and never written, has no generation (it is 0) and fewer fields in its payload.

The payload is JSON (RFC 8259) in UTF-8 with sorted keys; private keys in it are PKCS #8 DER in base64. The header is in the clear so that
a blob's owner can be told without opening it; it is authenticated with the payload, which repeats it.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from keystead.core.errors import InvalidRequest
from keystead.core.vaults.seal import GENERATION_BYTES, length_prefixed

if TYPE_CHECKING:
    from keystead.core.ids import RandomBytes
    from keystead.core.vaults.seal import VaultSeal

MAX_VERSIONS = 500
"""A key with more past versions is not backed up (R-063)."""
MAX_BLOB = 6_000_000
"""Bytes of a blob. In base64 it fits into the 8 MiB that every way to restore one takes: a backup that cannot be restored is none. 500 past
versions of RSA-4096 take 1.9 MB; the rest is for tags and policies."""
_OLD_MAGIC = b"KSTDKB\x01"
_MAGIC = b"KSTDKB\x02"
_GENERATION_AT = len(_MAGIC)


@dataclass(frozen=True, slots=True)
class BackedUpVersion:
    """One version. Times in milliseconds since the epoch."""

    version: str
    kty: str
    size: int
    curve: str
    key_ops: list[str]
    enabled: bool
    not_before: int | None
    expires: int | None
    created: int
    updated: int
    tags: dict[str, str]
    pkcs8: str = field(repr=False)
    """PKCS #8 DER in base64; never shown."""
    exportable: bool = False
    release_policy: str = ""
    """As `core.vaults.release` writes it."""

    @staticmethod
    def encode_private(pkcs8: bytes) -> str:
        """Private key bytes as the payload carries them."""
        return b64encode(pkcs8).decode()

    def private(self) -> bytes:
        """PKCS #8 DER."""
        return b64decode(self.pkcs8)


@dataclass(frozen=True, slots=True)
class KeyBackup:
    """A whole key, oldest version first."""

    tenant_id: str
    subscription_id: str
    geography: str
    name: str
    created: int
    versions: list[BackedUpVersion]
    rotation_policy: str = ""
    """As `core.vaults.rotation` writes it."""


def close(backup: KeyBackup, seal: VaultSeal, random: RandomBytes) -> bytes:
    """The blob of a key."""
    fields = length_prefixed(backup.tenant_id, backup.subscription_id, backup.geography)
    header = _MAGIC + seal.generation.to_bytes(GENERATION_BYTES, "big") + len(fields).to_bytes(2, "big") + fields
    payload = json.dumps(asdict(backup), sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()
    return header + seal.close_backup(payload, header, random)


def open_backup(blob: bytes, seal: VaultSeal) -> KeyBackup:
    """The key in a blob.

    Raises:
        InvalidRequest: `backup_invalid`: not a key backup at all.
        IntegrityFailure: `backup_damaged`: changed, or sealed by another vault service.
    """
    length_at = _GENERATION_AT + (GENERATION_BYTES if blob.startswith(_MAGIC) else 0)
    if not blob.startswith((_MAGIC, _OLD_MAGIC)) or len(blob) < length_at + 2:
        raise InvalidRequest("backup_invalid", "this is not a key backup", "give a file that `keystead key backup` wrote")
    generation = int.from_bytes(blob[_GENERATION_AT:length_at], "big")
    end = length_at + 2 + int.from_bytes(blob[length_at : length_at + 2], "big")
    # Only our own seal can have made a payload that opens, so its JSON is ours and needs no second validation.
    document = json.loads(seal.open_backup(blob[end:], blob[:end], generation))
    versions = [BackedUpVersion(**version) for version in document.pop("versions")]
    return KeyBackup(**document, versions=versions)
