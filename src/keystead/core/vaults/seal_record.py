"""The seal of a vault database: what opens it, and the *seal record*, the vault key as it lies in the database (docs/spec/vault-seal.md).

A seal is either a key file of 32 bytes or a passphrase. It wraps one random vault key; everything else lies under that
(`core/vaults/seal.py`). A passphrase is stretched with argon2id (RFC 9106) first; salt and parameters stand in the record, and are held
to bounds when they are read: a record that somebody put there cannot ask for a terabyte, nor for less work than we would do.

    offset  bytes  field
    0       6      magic "KSTDVS"
    6       1      format version, 1
    7       1      kind of seal: 1 key file, 2 passphrase
    8       16     id of the database, a UUID: a record put into another database is told from its own
    24      4      generation of the vault key, from 1
    28      8      when it was made, milliseconds since the epoch
    36      16     salt
    52      4      argon2id: memory in KiB; 0 for a key file
    56      4      argon2id: passes; 0 for a key file
    60      1      argon2id: lanes; 0 for a key file
    61      12     nonce
    73      48     AES-256-GCM ciphertext and tag of the vault key; associated data: bytes 0 to 61

All integers are big-endian. The wrapping key is HKDF-SHA-256 of the key file, or of argon2id's 32 bytes, with the salt and an info that
names the kind.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, NoReturn

from argon2.exceptions import HashingError
from argon2.low_level import ARGON2_VERSION, Type, hash_secret_raw
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from keystead.core.door import key_bytes
from keystead.core.errors import IntegrityFailure, InvalidRequest, Unavailable
from keystead.core.secret import KEY_BYTES, SecretKey
from keystead.core.vaults.seal import MOST_GENERATIONS, NONCE_BYTES

if TYPE_CHECKING:
    from typing import TypeAlias

    from keystead.core.ids import RandomBytes

    Seal: TypeAlias = "SecretKey | Passphrase"
    """What opens a vault database: a key file's bytes, or a passphrase."""

SALT_BYTES = 16
MIN_PASSPHRASE, MAX_PASSPHRASE = 16, 1_024
"""Characters, after normalisation."""
_MAGIC = b"KSTDVS\x01"
_KIND_AT, _ID_AT, _GENERATION_AT, _MADE_AT, _SALT_AT, _MEMORY_AT, _PASSES_AT, _LANES_AT, _NONCE_AT = 7, 8, 24, 28, 36, 52, 56, 60, 61
_BOX_AT = _NONCE_AT + NONCE_BYTES
RECORD_BYTES = _BOX_AT + KEY_BYTES + 16


class SealKind(IntEnum):
    """What a vault key is wrapped with."""

    KEY_FILE = 1
    PASSPHRASE = 2

    @property
    def text(self) -> str:
        """For people."""
        return "key file" if self is SealKind.KEY_FILE else "passphrase"


_INFO = {SealKind.KEY_FILE: b"keystead vault seal by key file 1", SealKind.PASSPHRASE: b"keystead vault seal by passphrase 1"}


class Passphrase:
    """A passphrase: Unicode in NFC (UAX #15), so that two keyboards that write it differently open the same database. Shown nowhere.

    Raises:
        InvalidRequest: `seal_passphrase_unfit`: too short, too long, or with control characters.
    """

    __slots__ = ("__text",)

    def __init__(self, text: str) -> None:
        normal = unicodedata.normalize("NFC", text)
        if not MIN_PASSPHRASE <= len(normal) <= MAX_PASSPHRASE or any(unicodedata.category(letter) in {"Cc", "Cs"} for letter in normal):
            raise InvalidRequest(
                "seal_passphrase_unfit",
                f"the passphrase of the vault's seal is not {MIN_PASSPHRASE} to {MAX_PASSPHRASE} characters on one line",
                "choose six or more random words",
            )
        self.__text = normal.encode()

    def __repr__(self) -> str:
        return "Passphrase(...)"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("key material is never pickled or copied")

    def _stretched(self, salt: bytes, cost: Argon2) -> bytes:
        try:
            return hash_secret_raw(
                self.__text, salt, cost.passes, cost.memory, cost.lanes, hash_len=KEY_BYTES, type=Type.ID, version=ARGON2_VERSION
            )
        except (HashingError, MemoryError) as error:
            raise Unavailable(
                "seal_memory_short",
                f"the passphrase of the vault's seal cannot be stretched: that takes {cost.memory // 1_024} MiB of memory",
                "give the process more memory",
            ) from error


@dataclass(frozen=True, slots=True)
class Argon2:
    """What argon2id (RFC 9106) is to cost. `memory` in KiB."""

    memory: int
    passes: int
    lanes: int


RFC_9106_SECOND = Argon2(memory=64 * 1_024, passes=3, lanes=4)
"""RFC 9106 section 4, second recommended option: for where memory is short."""
_LEAST, _MOST = RFC_9106_SECOND, Argon2(memory=1_024 * 1_024, passes=16, lanes=16)


@dataclass(frozen=True, slots=True)
class SealRecord:
    """What a record says without being opened; the wrapped key is in `data`, the whole record."""

    kind: SealKind
    database_id: bytes
    generation: int
    made: int
    cost: Argon2 | None
    data: bytes

    @property
    def described(self) -> str:
        """For the text of an error: which seal it is, as far as anybody can say."""
        return f"generation {self.generation}, sealed with a {self.kind.text}"


def kind_of(seal: Seal) -> SealKind:
    """What a seal is."""
    return SealKind.PASSPHRASE if isinstance(seal, Passphrase) else SealKind.KEY_FILE


def seal_vault_key(
    vault_key: SecretKey, seal: Seal, database_id: bytes, generation: int, now: int, random: RandomBytes, cost: Argon2 = RFC_9106_SECOND
) -> SealRecord:
    """The record of a vault key under a seal.

    Args:
        vault_key: fresh random bytes.
        seal: what is to open it.
        database_id: 16 bytes.
        generation: from 1, one more than the last.
        now: milliseconds.
        random: nonce and salt.
        cost: of stretching a passphrase.
    """
    if not 1 <= generation <= MOST_GENERATIONS:
        raise ValueError("a generation is 1 to 2^32 - 1")
    kind, salt = kind_of(seal), random(SALT_BYTES)
    used = cost if kind is SealKind.PASSPHRASE else None
    numbers = used or Argon2(0, 0, 0)
    header = b"".join(
        (
            _MAGIC,
            bytes([kind]),
            database_id,
            generation.to_bytes(4, "big"),
            now.to_bytes(8, "big"),
            salt,
            numbers.memory.to_bytes(4, "big"),
            numbers.passes.to_bytes(4, "big"),
            bytes([numbers.lanes]),
        )
    )
    nonce = random(NONCE_BYTES)
    box = _wrapping(seal, salt, used).encrypt(nonce, key_bytes(vault_key), header)
    return SealRecord(kind, database_id, generation, now, used, header + nonce + box)


def read_seal_record(data: bytes) -> SealRecord:
    """Take a record apart. What it says is not proven before it has opened.

    Raises:
        IntegrityFailure: `vault_seal_damaged`: another length, version or kind, or numbers out of bounds.
    """
    if len(data) != RECORD_BYTES or not data.startswith(_MAGIC) or data[_KIND_AT] not in set(SealKind):
        raise _damaged()
    kind = SealKind(data[_KIND_AT])
    cost = Argon2(_number(data, _MEMORY_AT, _PASSES_AT), _number(data, _PASSES_AT, _LANES_AT), data[_LANES_AT])
    if kind is SealKind.KEY_FILE:
        fits = cost == Argon2(0, 0, 0)
    else:
        fits = (
            _LEAST.memory <= cost.memory <= _MOST.memory and _LEAST.passes <= cost.passes <= _MOST.passes and 1 <= cost.lanes <= _MOST.lanes
        )
    generation = _number(data, _GENERATION_AT, _MADE_AT)
    if not fits or not generation:
        raise _damaged()
    made = _number(data, _MADE_AT, _SALT_AT)
    return SealRecord(kind, data[_ID_AT:_GENERATION_AT], generation, made, cost if kind is SealKind.PASSPHRASE else None, data)


def open_vault_key(record: SealRecord, seal: Seal) -> SecretKey:
    """The vault key in a record.

    Raises:
        IntegrityFailure: `vault_seal_wrong`: another seal, or a record that was changed.
        Unavailable: `seal_memory_short`.
    """
    if kind_of(seal) is not record.kind:
        raise seal_wrong(record, f"and was given a {kind_of(seal).text}")
    data = record.data
    try:
        key = _wrapping(seal, data[_SALT_AT:_MEMORY_AT], record.cost).decrypt(data[_NONCE_AT:_BOX_AT], data[_BOX_AT:], data[:_NONCE_AT])
    except InvalidTag:
        raise seal_wrong(record, f"but not with this {record.kind.text}") from None
    return SecretKey(key)


def seal_wrong(record: SealRecord | None, found: str) -> IntegrityFailure:
    """What a process is told that starts with another seal than the database has."""
    if record is None:
        return IntegrityFailure(
            "vault_seal_wrong",
            "the vault database was made under another seal",
            "give the seal that belongs to this database, or restore both from the same backup",
        )
    return IntegrityFailure(
        "vault_seal_wrong",
        f"the vault database is of {record.described}, {found}",
        "name the seal it was last given as seal_file or seal_passphrase_file of [vault], or restore both from the same backup",
    )


def _wrapping(seal: Seal, salt: bytes, cost: Argon2 | None) -> AESGCM:
    if isinstance(seal, Passphrase):
        assert cost is not None, "a passphrase's record has parameters"
        material = seal._stretched(salt, cost)  # noqa: SLF001 - this function is the reason the method exists
    else:
        material = key_bytes(seal)
    derived = HKDF(algorithm=hashes.SHA256(), length=KEY_BYTES, salt=salt, info=_INFO[kind_of(seal)]).derive(material)
    return AESGCM(derived)


def _number(data: bytes, start: int, end: int) -> int:
    return int.from_bytes(data[start:end], "big")


def _damaged() -> IntegrityFailure:
    return IntegrityFailure(
        "vault_seal_damaged", "the seal record of the vault database is not one", "restore the vault database from a backup"
    )
