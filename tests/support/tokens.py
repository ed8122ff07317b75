"""Tokens for tests: taken apart, forged, and issued by a pretended provider."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from keystead.core.errors import Unavailable
from keystead.ports.issuers import IssuerKey

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

    Signer = Callable[[bytes], bytes]


def encoded(data: bytes) -> str:
    """Base64url without padding."""
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def decoded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def parts(token: str) -> tuple[dict[str, Any], dict[str, Any], bytes]:
    """Header, claims and signature of a token."""
    header, claims, signature = token.split(".")
    return json.loads(decoded(header)), json.loads(decoded(claims)), decoded(signature)


def jwt(header: Mapping[str, Any] | bytes, claims: Mapping[str, Any] | bytes, sign: Signer | bytes = b"nothing") -> str:
    """A token of exactly these parts."""
    texts = [encoded(part if isinstance(part, bytes) else json.dumps(part).encode()) for part in (header, claims)]
    message = ".".join(texts)
    return f"{message}.{encoded(sign if isinstance(sign, bytes) else sign(message.encode()))}"


def number(value: int) -> str:
    return encoded(value.to_bytes((value.bit_length() + 7) // 8, "big"))


def signer(key: PrivateKeyTypes, algorithm: str) -> Signer:
    """Signs the way an algorithm of RFC 7518 says; by the library below joserfc, so that joserfc does not check itself."""
    if isinstance(key, Ed25519PrivateKey):
        return key.sign
    if isinstance(key, ec.EllipticCurvePrivateKey):
        curve = key

        def by_curve(message: bytes) -> bytes:
            r, s = decode_dss_signature(curve.sign(message, ec.ECDSA(hashes.SHA256())))
            return r.to_bytes(32, "big") + s.to_bytes(32, "big")

        return by_curve
    assert isinstance(key, rsa.RSAPrivateKey)
    pad: padding.PKCS1v15 | padding.PSS = (
        padding.PKCS1v15() if algorithm == "RS256" else padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.DIGEST_LENGTH)
    )
    return lambda message: key.sign(message, pad, hashes.SHA256())


def public_jwk(key: PrivateKeyTypes) -> dict[str, str]:
    """The public half as JSON (RFC 7517)."""
    if isinstance(key, Ed25519PrivateKey):
        return {"kty": "OKP", "crv": "Ed25519", "x": encoded(key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))}
    if isinstance(key, ec.EllipticCurvePrivateKey):
        point = key.public_key().public_numbers()
        return {"kty": "EC", "crv": "P-256", "x": encoded(point.x.to_bytes(32, "big")), "y": encoded(point.y.to_bytes(32, "big"))}
    assert isinstance(key, rsa.RSAPrivateKey)
    numbers = key.public_key().public_numbers()
    return {"kty": "RSA", "n": number(numbers.n), "e": number(numbers.e)}


@dataclass
class Issuer:
    """A provider without a network: signs tokens, and gives its keys to `PretendedIssuers`."""

    name: str
    algorithm: str = "ES256"
    keys: dict[str, PrivateKeyTypes] = field(default_factory=lambda: {"one": ec.generate_private_key(ec.SECP256R1())})
    key_algorithm: str = ""

    def token(self, claims: Mapping[str, Any], *, kid: str = "one", **header: Any) -> str:
        return jwt({"alg": self.algorithm, "kid": kid, "typ": "JWT"} | header, claims, signer(self.keys[kid], self.algorithm))

    def key(self, key_id: str) -> IssuerKey | None:
        key = self.keys.get(key_id)
        return None if key is None else IssuerKey(key_id, self.key_algorithm, json.dumps(public_jwk(key), sort_keys=True))


@dataclass
class PretendedIssuers:
    """Implements ports.issuers.Issuers with issuers of a test."""

    issuers: dict[str, Issuer] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    away: bool = False

    def add(self, issuer: Issuer) -> Issuer:
        self.issuers[issuer.name] = issuer
        return issuer

    def allows(self, issuer: str) -> bool:
        return issuer in self.issuers

    def key(self, issuer: str, key_id: str) -> IssuerKey | None:
        self.asked.append((issuer, key_id))
        if self.away:
            raise Unavailable("sign_in_provider_unavailable", "the issuer is away", "")
        return self.issuers[issuer].key(key_id)
