"""Seal records, boxes of later generations, and released keys: exactly the bytes of docs/spec/vault-seal.md and key-release.md.

The openers here share no code with Keystead, and no implementation of AES-GCM, HKDF or argon2id either.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import unicodedata
from base64 import urlsafe_b64decode
from pathlib import Path
from typing import Any

import pytest
from Crypto.Cipher import AES
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.keywrap import aes_key_unwrap_with_padding
from cryptography.hazmat.primitives.serialization import load_der_private_key

from keystead.core.errors import Forbidden, IntegrityFailure, InvalidRequest, Unavailable
from keystead.core.secret import SecretKey
from keystead.core.vaults import backup, release, seal_record
from keystead.core.vaults.seal import VaultSeal, private_key_context, release_key_context, token_key_context

HERE = Path(__file__).parent
SEALS: Any = json.loads((HERE / "vault_seal.json").read_text())
RELEASE: Any = json.loads((HERE / "key_release.json").read_text())
OPENED = VaultSeal(
    SecretKey(bytes.fromhex(SEALS["vault_key"])),
    SEALS["generation"],
    {int(generation): bytes.fromhex(box) for generation, box in SEALS["former_backup_keys"].items()},
)


def raw(text: str) -> bytes:
    return bytes.fromhex(text)


def hkdf(material: bytes, salt: bytes, info: bytes) -> bytes:
    """RFC 5869 with SHA-256, one block."""
    secret = hmac.digest(salt or bytes(32), material, hashlib.sha256)
    return hmac.digest(secret, info + b"\x01", hashlib.sha256)


def opened(key: bytes, nonce: bytes, box: bytes, aad: bytes) -> bytes:
    cipher = AES.new(key, AES.MODE_GCM, nonce=nonce)
    cipher.update(aad)
    return cipher.decrypt_and_verify(box[:-16], box[-16:])


def lp2(*texts: str) -> bytes:
    return b"".join(len(text.encode()).to_bytes(2, "big") + text.encode() for text in texts)


def vault_key_of(record: bytes, seal: bytes) -> bytes:
    """Section 1 and 2, read aloud."""
    salt = record[36:52]
    memory, passes, lanes = int.from_bytes(record[52:56], "big"), int.from_bytes(record[56:60], "big"), record[60]
    if record[7] == 1:
        material, info = seal, b"keystead vault seal by key file 1"
    else:
        material = Argon2id(salt=salt, length=32, iterations=passes, lanes=lanes, memory_cost=memory).derive(seal)
        info = b"keystead vault seal by passphrase 1"
    return opened(hkdf(material, salt, info), record[61:73], record[73:], record[:61])


def test_a_record_of_a_key_file_is_opened_by_others() -> None:
    case = SEALS["key_file"]
    assert vault_key_of(raw(case["record"]), raw(case["seal"])).hex() == SEALS["vault_key"]


def test_a_record_of_a_passphrase_is_opened_by_others() -> None:
    case = SEALS["passphrase"]
    assert vault_key_of(raw(case["record"]), unicodedata.normalize("NFC", case["seal"]).encode()).hex() == SEALS["vault_key"]


@pytest.mark.parametrize("kind", ["key_file", "passphrase"])
def test_records_have_these_bytes_and_open(kind: str) -> None:
    case = SEALS[kind]
    data = raw(case["record"])
    seal: seal_record.Seal = SecretKey(raw(case["seal"])) if kind == "key_file" else seal_record.Passphrase(case["seal"])
    drawn = iter((data[36:52], data[61:73]))
    made = seal_record.seal_vault_key(
        SecretKey(raw(SEALS["vault_key"])), seal, raw(case["database_id"]), SEALS["generation"], case["made"], lambda _size: next(drawn)
    )
    assert made.data == data
    assert seal_record.open_vault_key(seal_record.read_seal_record(data), seal) == SecretKey(raw(SEALS["vault_key"]))


def test_a_passphrase_opens_in_either_normal_form() -> None:
    case = SEALS["passphrase"]
    record = seal_record.read_seal_record(raw(case["record"]))
    decomposed = unicodedata.normalize("NFD", case["seal"])
    assert decomposed != unicodedata.normalize("NFC", case["seal"])
    assert seal_record.open_vault_key(record, seal_record.Passphrase(decomposed)) == SecretKey(raw(SEALS["vault_key"]))


@pytest.mark.parametrize("case", SEALS["invalid_records"], ids=lambda case: case["name"])
def test_records_that_are_refused(case: Any) -> None:
    with pytest.raises(IntegrityFailure) as refused:
        seal_record.open_vault_key(seal_record.read_seal_record(raw(case["record"])), SecretKey(raw(SEALS["key_file"]["seal"])))
    assert refused.value.code == case["code"]


def test_the_check_value_is_that_of_the_vault_key() -> None:
    assert hkdf(raw(SEALS["vault_key"]), b"", b"keystead vault seal check 1").hex() == SEALS["check_value"]
    assert OPENED.matches(raw(SEALS["check_value"]))


CONTEXTS = {
    "private_key": ("keystead vault private key 2", lp2("tenant", "vault", "key", "0" * 32)),
    "token_key": ("keystead vault token key 1", lp2("token key", "t")),
    "release_key": ("keystead vault release key 1", lp2("release key", "r")),
}


@pytest.mark.parametrize("kind", CONTEXTS)
def test_boxes_are_opened_by_others(kind: str) -> None:
    info, context = CONTEXTS[kind]
    box = raw(SEALS[kind])
    key = hkdf(raw(SEALS["vault_key"]), b"", info.encode())
    assert opened(key, box[5:17], box[17:], box[:5] + context).hex() == SEALS["inside"]


def test_former_backup_keys_are_opened_by_others() -> None:
    for generation, text in SEALS["former_backup_keys"].items():
        box = raw(text)
        key = hkdf(raw(SEALS["vault_key"]), b"", b"keystead vault former backup key 1")
        former = opened(key, box[5:17], box[17:], box[:5] + lp2("former backup key", generation))
        assert former == hkdf(raw(SEALS["former_vault_key"]), b"", b"keystead vault key backup 1")


def test_boxes_have_these_bytes_and_open() -> None:
    inside = raw(SEALS["inside"])

    def nonce(box: bytes) -> Any:
        return lambda _size: box[5:17]

    box, context = raw(SEALS["private_key"]), private_key_context("tenant", "vault", "key", "0" * 32)
    assert OPENED.close_private(inside, context, nonce(box)) == box
    assert OPENED.open_private(box, context) == inside
    box = raw(SEALS["token_key"])
    assert OPENED.close_token_key(inside, token_key_context("t"), nonce(box)) == box
    assert OPENED.open_token_key(box, token_key_context("t")) == inside
    box = raw(SEALS["release_key"])
    assert OPENED.close_release_key(inside, release_key_context("r"), nonce(box)) == box
    assert OPENED.open_release_key(box, release_key_context("r")) == inside


@pytest.mark.parametrize("case", SEALS["invalid_boxes"], ids=lambda case: case["name"])
def test_boxes_that_are_refused(case: Any) -> None:
    with pytest.raises((IntegrityFailure, Unavailable)) as refused:
        OPENED.open_private(raw(case["box"]), private_key_context("tenant", "vault", "key", "0" * 32))
    assert refused.value.code == case["code"]


@pytest.mark.parametrize("which", ["backup", "former_backup"])
def test_backups_of_this_and_of_an_earlier_generation_open(which: str) -> None:
    """R-058: version 2, which carries whether a key may be released."""
    blob = raw(SEALS[which])
    content = backup.open_backup(blob, OPENED)
    assert (content.name, content.rotation_policy) == ("Root", "{}")
    (version,) = content.versions
    assert (version.exportable, version.release_policy, version.private()) == (True, "{}", raw(SEALS["inside"]))
    length = int.from_bytes(blob[11:13], "big")
    assert blob[:7] == b"KSTDKB\x02"
    vault_key = raw(SEALS["vault_key" if which == "backup" else "former_vault_key"])
    key = hkdf(vault_key, b"", b"keystead vault key backup 1")
    payload = opened(key, blob[13 + length : 25 + length], blob[25 + length :], blob[: 13 + length])
    assert json.loads(payload)["versions"][0]["exportable"] is True
    if which == "backup":
        assert backup.close(content, OPENED, lambda _size: blob[13 + length : 25 + length]) == blob


# -- release --------------------------------------------------------------------------------------------------------------------------

OAEP = {
    "CKM_RSA_AES_KEY_WRAP": hashes.SHA1(),  # noqa: S303 - PKCS #11 says so, and OAEP needs no collision resistance
    "RSA_AES_KEY_WRAP_256": hashes.SHA256(),
    "RSA_AES_KEY_WRAP_384": hashes.SHA384(),
}


@pytest.mark.parametrize("way", OAEP)
def test_released_keys_open(way: str) -> None:
    private = load_der_private_key(raw(RELEASE["environment"]), None)
    assert isinstance(private, RSAPrivateKey)
    wrapped = raw(RELEASE["wrapped"][way])
    digest = OAEP[way]
    kek = private.decrypt(wrapped[:256], padding.OAEP(padding.MGF1(digest), digest, None))
    assert aes_key_unwrap_with_padding(kek, wrapped[256:]).hex() == RELEASE["inside"]
    assert release.unwrap_released(wrapped, private, release.Wrapping(way)).hex() == RELEASE["inside"]
    fresh = release.wrap_released(raw(RELEASE["inside"]), private.public_key(), release.Wrapping(way), lambda _size: kek)
    assert fresh[256:] == wrapped[256:], "AES-KWP is the same each time; RSA-OAEP never is"


@pytest.mark.parametrize("case", RELEASE["policies"], ids=lambda case: case["name"])
def test_policies_and_what_meets_them(case: Any) -> None:
    policy = release.release_policy(json.dumps(case["policy"]).encode())
    for claims in case["met"]:
        release.check_release(policy, case["authority"], claims)
    for claims in case["not_met"]:
        with pytest.raises(Forbidden, match="release_policy_not_met"):
            release.check_release(policy, case["authority"], claims)
    assert case["met"] or case["not_met"]


@pytest.mark.parametrize("case", RELEASE["invalid"], ids=lambda case: case["name"])
def test_documents_that_are_no_policies(case: Any) -> None:
    data = urlsafe_b64decode(case["data"] + "=" * (-len(case["data"]) % 4))
    with pytest.raises(InvalidRequest, match="release_policy_invalid"):
        release.release_policy(data)
