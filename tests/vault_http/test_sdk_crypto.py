"""The unmodified SDK's CryptographyClient. Operations that it could do itself are done by clients that may not get the key, so the vault does them."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

import pytest
from azure.core.exceptions import HttpResponseError
from azure.keyvault.keys.crypto import CryptographyClient, EncryptionAlgorithm, KeyWrapAlgorithm, SignatureAlgorithm

from keystead.core.vaults.access import Permission
from vault_http.face import Token

if TYPE_CHECKING:
    from keystead.api.types.vaults import KeyView
    from vault_http.face import Face

pytestmark = pytest.mark.xdist_group("vault-face-sdk")

WITHOUT_GET = frozenset(Permission) - {Permission.GET}
HASHES = {"256": hashlib.sha256, "384": hashlib.sha384, "512": hashlib.sha512}


@pytest.fixture(scope="module")
def key(face: Face) -> KeyView:
    return face.new_key("worker")


def crypto(face: Face, uri: str, permissions: frozenset[Permission] = WITHOUT_GET) -> CryptographyClient:
    who = face.client_of(f"worker-{os.urandom(4).hex()}", permissions)
    made = CryptographyClient(uri, Token(face, who), verify_challenge_resource=False, connection_verify=face.ca_file, retry_total=0)
    face.open.append(made)
    return made


@pytest.mark.parametrize("algorithm", [EncryptionAlgorithm.rsa_oaep_256, EncryptionAlgorithm.rsa_oaep, EncryptionAlgorithm.rsa1_5])
def test_encrypt_and_decrypt_at_the_vault_R_026(face: Face, key: KeyView, algorithm: EncryptionAlgorithm) -> None:
    client = crypto(face, face.uri("worker", key.version))
    closed = client.encrypt(algorithm, b"plain")
    assert len(closed.ciphertext) == 256
    assert client.decrypt(algorithm, closed.ciphertext).plaintext == b"plain"


@pytest.mark.parametrize("algorithm", [KeyWrapAlgorithm.rsa_oaep_256, KeyWrapAlgorithm.rsa_oaep, KeyWrapAlgorithm.rsa1_5])
def test_wrap_and_unwrap_at_the_vault_R_026_R_027(face: Face, key: KeyView, algorithm: KeyWrapAlgorithm) -> None:
    client, value = crypto(face, face.uri("worker", key.version)), os.urandom(32)
    wrapped = client.wrap_key(algorithm, value)
    face.new_key("worker")  # from here on another version is the current one
    assert client.unwrap_key(algorithm, wrapped.encrypted_key).key == value
    operations = [entry.operation_name for entry in face.world.log()]
    assert operations.index("KeyWrap") < operations.index("KeyUnwrap")


def test_what_was_wrapped_locally_is_unwrapped_at_the_vault(face: Face) -> None:
    made = face.new_key("local")
    client = face.keys().get_cryptography_client("local", key_version=made.version)
    before = len([entry for entry in face.world.log() if entry.operation_name == "KeyWrap"])
    wrapped = client.wrap_key(KeyWrapAlgorithm.rsa_oaep_256, b"k" * 32)
    assert len([entry for entry in face.world.log() if entry.operation_name == "KeyWrap"]) == before
    assert client.unwrap_key(KeyWrapAlgorithm.rsa_oaep_256, wrapped.encrypted_key).key == b"k" * 32


@pytest.mark.parametrize("algorithm", ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"])
def test_rsa_signatures_of_the_vault_verify_there_and_locally(face: Face, key: KeyView, algorithm: str) -> None:
    chosen, digest = SignatureAlgorithm(algorithm), HASHES[algorithm[2:]](b"data").digest()
    remote, local = crypto(face, face.uri("worker", key.version)), face.keys().get_cryptography_client("worker", key_version=key.version)
    signed = remote.sign(chosen, digest)
    assert remote.verify(chosen, digest, signed.signature).is_valid is True
    assert local.verify(chosen, digest, signed.signature).is_valid is True
    assert remote.verify(chosen, HASHES[algorithm[2:]](b"other").digest(), signed.signature).is_valid is False


@pytest.mark.parametrize(("algorithm", "curve"), [("ES256", "P-256"), ("ES384", "P-384"), ("ES512", "P-521"), ("ES256K", "P-256K")])
def test_ec_signatures_of_the_vault_verify_there_and_locally(face: Face, algorithm: str, curve: str) -> None:
    made = face.new_key(f"signer-{curve}", kty="EC", curve=curve)
    chosen, digest = SignatureAlgorithm(algorithm), HASHES[algorithm[2:5]](b"data").digest()
    remote, local = crypto(face, face.uri(made.name, made.version)), face.keys().get_cryptography_client(made.name)
    signed = remote.sign(chosen, digest)
    assert remote.verify(chosen, digest, signed.signature).is_valid is True
    assert local.verify(chosen, digest, signed.signature).is_valid is True


def test_a_key_without_version_is_the_current_one_R_022(face: Face) -> None:
    face.new_key("unversioned")
    current = face.new_key("unversioned")
    wrapped = face.ask("POST", "/keys/unversioned//wrapkey", {"alg": "RSA-OAEP-256", "value": "AAAA"})
    assert wrapped.body["kid"] == face.uri("unversioned", current.version)
    assert face.ask("POST", "/keys/unversioned/wrapkey", {"alg": "RSA-OAEP-256", "value": "AAAA"}).body["kid"] == wrapped.body["kid"]
    client = crypto(face, face.uri("unversioned"))
    assert (
        client.decrypt(EncryptionAlgorithm.rsa_oaep_256, client.encrypt(EncryptionAlgorithm.rsa_oaep_256, b"x").ciphertext).plaintext
        == b"x"
    )


@pytest.mark.parametrize(
    ("verb", "permission"),
    [("encrypt", "encrypt"), ("decrypt", "decrypt"), ("wrapkey", "wrapKey"), ("unwrapkey", "unwrapKey"), ("sign", "sign")],
)
def test_each_operation_needs_its_permission_R_037(face: Face, key: KeyView, verb: str, permission: str) -> None:
    who = face.client_of(f"without-{verb}", frozenset(Permission) - {Permission(permission)})
    refused = face.ask("POST", f"/keys/worker/{key.version}/{verb}", {"alg": "RSA-OAEP", "value": "AAAA"}, who=who)
    assert (refused.status, refused.code, refused.inner) == (403, "Forbidden", "AccessDenied")


def test_a_disabled_key_R_029_and_one_outside_its_dates_R_030(face: Face) -> None:
    keys = face.keys()
    made = keys.create_rsa_key("resting")
    client = crypto(face, made.id)
    wrapped = client.wrap_key(KeyWrapAlgorithm.rsa_oaep_256, b"k" * 32).encrypted_key
    body = {"alg": "RSA-OAEP-256", "value": "AAAA"}
    face.ask("PATCH", f"/keys/resting/{made.properties.version}", {"attributes": {"exp": 1_700_000_000}})
    refused = face.ask("POST", "/keys/resting/wrapkey", body)
    assert (refused.status, refused.inner) == (403, "KeyExpired")
    assert client.unwrap_key(KeyWrapAlgorithm.rsa_oaep_256, wrapped).key == b"k" * 32
    keys.update_key_properties("resting", enabled=False)
    with pytest.raises(HttpResponseError) as raised:
        client.unwrap_key(KeyWrapAlgorithm.rsa_oaep_256, wrapped)
    assert raised.value.error is not None
    assert (raised.value.status_code, raised.value.error.innererror) == (403, {"code": "KeyDisabled"})


def test_ec_keys_do_not_wrap_R_024_and_key_ops_restrict_R_028(face: Face) -> None:
    face.new_key("curved", kty="EC")
    face.new_key("narrow", ops=["wrapKey"])
    body = {"alg": "RSA-OAEP-256", "value": "AAAA"}
    for name in ("curved", "narrow"):
        refused = face.ask("POST", f"/keys/{name}/unwrapkey", body)
        assert (refused.status, refused.inner) == (403, "KeyOperationForbidden")
