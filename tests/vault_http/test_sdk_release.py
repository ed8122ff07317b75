"""A key released through the unmodified SDK, and opened by the environment it was released to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from azure.core.exceptions import HttpResponseError
from azure.keyvault.keys import KeyExportEncryptionAlgorithm, KeyReleasePolicy
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_private_key

from keystead.core.vaults.access import Permission
from support.enclave import Enclave, answer_of, authority, policy_document
from support.tokens import PretendedIssuers
from vault_http.face import EVERYTHING

if TYPE_CHECKING:
    from azure.keyvault.keys import KeyVaultKey

    from vault_http.face import Face

pytestmark = pytest.mark.xdist_group("vault-face-release")

SERVICE = authority()
ENCLAVE = Enclave()


@pytest.fixture(scope="module", autouse=True)
def _listed(face: Face) -> None:
    """The operator lists one authority; the services are made without any, and nothing else of them changes."""
    object.__setattr__(face.world.vault, "authorities", PretendedIssuers({SERVICE.name: SERVICE}))


@pytest.fixture(scope="module")
def made(face: Face) -> KeyVaultKey:
    return face.keys().create_rsa_key(
        "released", hardware_protected=True, exportable=True, release_policy=KeyReleasePolicy(policy_document())
    )


@pytest.mark.parametrize("algorithm", [None, *KeyExportEncryptionAlgorithm])
def test_the_environment_signs_with_the_key_it_was_given(
    face: Face, made: KeyVaultKey, algorithm: KeyExportEncryptionAlgorithm | None
) -> None:
    keys = face.keys()
    answer = keys.release_key("released", SERVICE.token(ENCLAVE.claims()), algorithm=algorithm, nonce="n-1").value
    told = answer_of(answer)
    assert (told["request"]["kid"], told["request"]["nonce"]) == (face.uri("released"), "n-1")
    assert told["request"]["enc"] == ("CKM_RSA_AES_KEY_WRAP" if algorithm is None else algorithm.value)
    assert told["response"]["key"]["key"]["kid"] == made.id
    private = load_der_private_key(ENCLAVE.opened(answer), None)
    assert isinstance(private, rsa.RSAPrivateKey)
    wrapped = keys.get_cryptography_client("released").wrap_key("RSA-OAEP-256", b"k" * 32)  # type: ignore[arg-type]  # takes the name too
    oaep = padding.OAEP(padding.MGF1(SHA256()), SHA256(), None)
    assert private.decrypt(wrapped.encrypted_key, oaep) == b"k" * 32


def test_an_environment_that_does_not_meet_the_policy_is_refused_as_the_service_does(face: Face, made: KeyVaultKey) -> None:
    claims = ENCLAVE.claims(**{"x-ms-isolation-tee": {"x-ms-attestation-type": "none"}})
    with pytest.raises(HttpResponseError) as refused:
        face.keys().release_key("released", SERVICE.token(claims))
    assert refused.value.status_code == 403


def test_R_037_release_takes_its_permission(face: Face, made: KeyVaultKey) -> None:
    who = face.client_of("no-release", EVERYTHING - {Permission.RELEASE})
    with pytest.raises(HttpResponseError) as refused:
        face.keys(who).release_key("released", SERVICE.token(ENCLAVE.claims()))
    assert refused.value.status_code == 403


def test_random_bytes(face: Face) -> None:
    assert len(face.keys().get_random_bytes(128)) == 128
