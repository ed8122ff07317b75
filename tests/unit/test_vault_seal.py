"""Private keys and backups at rest."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from keystead.core.errors import IntegrityFailure, InvalidRequest, Unavailable
from keystead.core.secret import SecretKey
from keystead.core.vaults.backup import BackedUpVersion, KeyBackup, close, open_backup
from keystead.core.vaults.seal import VaultSeal, length_prefixed, private_key_context

SEAL = VaultSeal(SecretKey(bytes(range(32))))
OTHER = VaultSeal(SecretKey(bytes(32)))
CONTEXT = private_key_context("tenant", "Vault", "Key", "0" * 32)


def counted(length: int) -> bytes:
    return bytes(range(length))


def test_a_sealed_private_key_opens_with_anybodys_aes() -> None:
    sealed = VaultSeal(SecretKey(bytes(range(32))), 7).close_private(b"pkcs8", CONTEXT, counted)
    key = HKDF(algorithm=SHA256(), length=32, salt=None, info=b"keystead vault private key 2").derive(bytes(range(32)))
    aad = b"\x02\x00\x00\x00\x07" + b"\x00\x06tenant\x00\x05vault\x00\x03key\x00\x20" + b"0" * 32
    assert sealed[:17] == b"\x02\x00\x00\x00\x07" + bytes(range(12))
    assert AESGCM(key).decrypt(sealed[5:17], sealed[17:], aad) == b"pkcs8"


def test_a_private_key_opens_only_in_its_place_and_unchanged() -> None:
    sealed = SEAL.close_private(b"pkcs8", CONTEXT, counted)
    assert SEAL.open_private(sealed, CONTEXT) == b"pkcs8"
    elsewhere = [
        private_key_context(*place)
        for place in (
            ("tenant2", "Vault", "Key", "0" * 32),
            ("tenant", "Vault2", "Key", "0" * 32),
            ("tenant", "Vault", "Key2", "0" * 32),
            ("tenant", "Vault", "Key", "1" * 32),
        )
    ]
    wrong = [(sealed, context) for context in elsewhere] + [
        (sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :], CONTEXT) for at in range(len(sealed))
    ]
    wrong += [(sealed[:length], CONTEXT) for length in range(len(sealed))]
    for box, context in wrong:
        with pytest.raises((IntegrityFailure, Unavailable)) as refused:
            SEAL.open_private(box, context)
        assert refused.value.code in {"private_key_damaged", "vault_seal_rotated"}, "a changed generation looks like a later one"
    with pytest.raises(IntegrityFailure):
        OTHER.open_private(sealed, CONTEXT)


def test_contexts_of_different_fields_differ() -> None:
    assert length_prefixed("ab", "c") != length_prefixed("a", "bc")
    assert private_key_context("T", "V", "K", "0") == private_key_context("t", "v", "k", "0")


def test_the_check_value_tells_seals_apart_and_is_no_key() -> None:
    assert SEAL.matches(SEAL.check_value)
    assert not OTHER.matches(SEAL.check_value)


def backup() -> KeyBackup:
    version = BackedUpVersion(
        version="0" * 32,
        kty="RSA",
        size=2_048,
        curve="",
        key_ops=["wrapKey"],
        enabled=True,
        not_before=None,
        expires=5,
        created=1,
        updated=2,
        tags={"team": "ü"},
        pkcs8=BackedUpVersion.encode_private(b"pkcs8"),
    )
    return KeyBackup("tenant", "subscription", "Europe", "Root", 1, [version])


def test_a_backup_brings_back_everything() -> None:
    """R-058."""
    blob = close(backup(), SEAL, counted)
    assert open_backup(blob, SEAL) == backup()
    assert backup().versions[0].private() == b"pkcs8"
    assert "pkcs8" not in repr(backup())


def test_a_changed_or_foreign_backup_does_not_open() -> None:
    """R-059."""
    blob = close(backup(), SEAL, counted)
    assert b"pkcs8" not in blob
    for at in range(len(blob)):
        changed = blob[:at] + bytes([blob[at] ^ 1]) + blob[at + 1 :]
        with pytest.raises((IntegrityFailure, InvalidRequest)):
            open_backup(changed, SEAL)
    for length in (0, 7, 9, 40, len(blob) - 1):
        with pytest.raises((IntegrityFailure, InvalidRequest)):
            open_backup(blob[:length], SEAL)
    with pytest.raises(IntegrityFailure):
        open_backup(blob, OTHER)
