"""An attested environment for tests: its ephemeral key, the claims an authority makes of it, and opening what was released to it.

Shares no code with what it checks but the library of primitives.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.keywrap import aes_key_unwrap_with_padding

from support.tokens import Issuer, decoded, parts, public_jwk

if TYPE_CHECKING:
    from collections.abc import Mapping

AUTHORITY = "https://attest.contoso.example"
NOW = 1_767_225_600
"""Seconds; where the clocks of these tests start."""
_OAEP: Mapping[str, type[hashes.SHA1 | hashes.SHA256 | hashes.SHA384]] = {
    "CKM_RSA_AES_KEY_WRAP": hashes.SHA1,
    "RSA_AES_KEY_WRAP_256": hashes.SHA256,
    "RSA_AES_KEY_WRAP_384": hashes.SHA384,
}


def authority(name: str = AUTHORITY) -> Issuer:
    """An attestation service."""
    return Issuer(name, "RS256", {"one": rsa.generate_private_key(65_537, 2_048)}, "RS256")


@dataclass
class Enclave:
    """One environment with a key that nobody else has."""

    private: rsa.RSAPrivateKey = field(default_factory=lambda: rsa.generate_private_key(65_537, 2_048), repr=False)

    def key(self, **more: Any) -> dict[str, Any]:
        """Its encryption key, as a token carries it."""
        return {**public_jwk(self.private), "kid": "TpmEphemeralEncryptionKey", "key_ops": ["encrypt"], **more}

    def claims(self, **more: Any) -> dict[str, Any]:
        """What an authority says of it."""
        return {
            "iss": AUTHORITY,
            "iat": NOW,
            "nbf": NOW,
            "exp": NOW + 3_600,
            "x-ms-attestation-type": "azurevm",
            "x-ms-isolation-tee": {"x-ms-attestation-type": "sevsnpvm", "x-ms-compliance-status": "azure-compliant-cvm"},
            "x-ms-runtime": {"keys": [{"kid": "HCLAkPub", "kty": "RSA", "key_ops": ["sign"], "n": "AQAB", "e": "AQAB"}, self.key()]},
        } | more

    def opened(self, answer: str) -> bytes:
        """The released key, PKCS #8 DER."""
        key = answer_of(answer)["response"]["key"]["key"]
        token = json.loads(decoded(key["key_hsm"]))
        assert token["schema_version"] == "1.0"
        assert (token["header"]["kid"], token["header"]["alg"]) == ("TpmEphemeralEncryptionKey", "dir")
        data, size, digest = decoded(token["ciphertext"]), self.private.key_size // 8, _OAEP[token["header"]["enc"]]
        kek = self.private.decrypt(data[:size], padding.OAEP(padding.MGF1(digest()), digest(), None))
        assert len(kek) == 32
        return aes_key_unwrap_with_padding(kek, data[size:])


def answer_of(answer: str) -> dict[str, Any]:
    """What a vault signed, after its signature and its certificates were checked."""
    header, payload, signature = parts(answer)
    assert header["alg"] == "RS256"
    leaf, root = (x509.load_der_x509_certificate(base64.b64decode(text, validate=True)) for text in header["x5c"])
    leaf.verify_directly_issued_by(root)
    root.verify_directly_issued_by(root)
    public = leaf.public_key()
    assert isinstance(public, rsa.RSAPublicKey)
    public.verify(signature, answer.rpartition(".")[0].encode(), padding.PKCS1v15(), hashes.SHA256())
    return payload


def policy_document(*conditions: Mapping[str, Any], name: str = AUTHORITY) -> bytes:
    """A policy that wants all of these of an environment."""
    wanted = list(conditions) or [{"claim": "x-ms-isolation-tee.x-ms-attestation-type", "equals": "sevsnpvm"}]
    return json.dumps({"version": "1.0.0", "anyOf": [{"authority": name, "allOf": wanted}]}).encode()
