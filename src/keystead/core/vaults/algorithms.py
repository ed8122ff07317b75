"""The algorithms of the cryptographic calls, and what each fits (RFC 7518 sections 3 and 4; ES256K: RFC 8812 section 3.2).

    encrypt, decrypt, wrapKey, unwrapKey    RSA1_5, RSA-OAEP (SHA-1), RSA-OAEP-256                    any RSA key
    sign, verify                            RS256 RS384 RS512, PS256 PS384 PS512                      any RSA key
                                            ES256 (P-256), ES256K (P-256K), ES384 (P-384), ES512 (P-521)

Names compare exactly. What is signed is a digest that the caller has made: of 32, 48 or 64 bytes, as the algorithm says. An EC signature is
R and S one after the other, each in the full length of the curve's order (RFC 7518 section 3.4), and never DER.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from keystead.core.errors import InvalidRequest

if TYPE_CHECKING:
    from keystead.core.vaults.usage import KeyKind

MAX_VALUE_BYTES = 1_024
"""Of any value, digest or signature that is handed in: twice what the largest key works on."""


class Encryption(StrEnum):
    """Algorithms of encrypt, decrypt, wrapKey and unwrapKey (R-026)."""

    RSA1_5 = "RSA1_5"
    RSA_OAEP = "RSA-OAEP"
    RSA_OAEP_256 = "RSA-OAEP-256"

    @property
    def overhead(self) -> int:
        """Bytes of the modulus that the padding takes (RFC 8017 sections 7.1.1 and 7.2.1)."""
        return _OVERHEAD[self]


_OVERHEAD = {Encryption.RSA1_5: 11, Encryption.RSA_OAEP: 2 + 2 * 20, Encryption.RSA_OAEP_256: 2 + 2 * 32}


class Signature(StrEnum):
    """Algorithms of sign and verify."""

    RS256 = "RS256"
    RS384 = "RS384"
    RS512 = "RS512"
    PS256 = "PS256"
    PS384 = "PS384"
    PS512 = "PS512"
    ES256 = "ES256"
    ES256K = "ES256K"
    ES384 = "ES384"
    ES512 = "ES512"

    @property
    def fit(self) -> Fit:
        """What it signs, and with which keys."""
        return _FITS[self]


@dataclass(frozen=True, slots=True)
class Fit:
    """What a signature algorithm fits.

    Attributes:
        digest_bytes: length of the digest that is signed: SHA-256, SHA-384 or SHA-512.
        curve: of the EC key; empty for RSA.
        half: bytes of R and of S each; 0 for RSA, whose signature is as long as the modulus.
    """

    digest_bytes: int
    curve: str = ""
    half: int = 0


_FITS = {
    **{Signature(f"{family}{bits}"): Fit(bits // 8) for family in ("RS", "PS") for bits in (256, 384, 512)},
    Signature.ES256: Fit(32, "P-256", 32),
    Signature.ES256K: Fit(32, "P-256K", 32),
    Signature.ES384: Fit(48, "P-384", 48),
    Signature.ES512: Fit(64, "P-521", 66),
}


def encryption(name: str, kind: KeyKind) -> Encryption:
    """The named algorithm, for a key of that kind.

    Raises:
        InvalidRequest: `algorithm_not_supported`; `algorithm_key_mismatch`: not for keys of that kind.
    """
    try:
        algorithm = Encryption(name)
    except ValueError:
        raise InvalidRequest(
            "algorithm_not_supported", f"{name[:64]!r} is not a wrap algorithm", f"use one of {', '.join(Encryption)}"
        ) from None
    if not kind.kty.is_rsa:
        raise _mismatch(algorithm, kind)
    return algorithm


def signature(name: str, kind: KeyKind) -> Signature:
    """The named algorithm, for a key of that kind.

    Raises:
        InvalidRequest: `algorithm_not_supported`; `algorithm_key_mismatch`: not for keys of that kind.
    """
    try:
        algorithm = Signature(name)
    except ValueError:
        raise InvalidRequest(
            "algorithm_not_supported", f"{name[:64]!r} is not a signature algorithm", f"use one of {', '.join(Signature)}"
        ) from None
    if algorithm.fit.curve != kind.curve:
        raise _mismatch(algorithm, kind)
    return algorithm


def check_plain(algorithm: Encryption, kind: KeyKind, value: bytes) -> None:
    """Let a value through that an RSA key of that size can close.

    Raises:
        InvalidRequest: `value_invalid`: empty, or longer than the algorithm takes.
    """
    most = kind.size // 8 - algorithm.overhead
    if not 0 < len(value) <= most:
        raise InvalidRequest(
            "value_invalid", f"{len(value)} bytes cannot be wrapped with this key and {algorithm}", f"give 1 to {most} bytes, such as a key"
        )


def check_digest(algorithm: Signature, digest: bytes) -> None:
    """Let a digest through that is as long as the algorithm's.

    Raises:
        InvalidRequest: `digest_invalid`.
    """
    if len(digest) != algorithm.fit.digest_bytes:
        raise InvalidRequest(
            "digest_invalid",
            f"{len(digest)} bytes are not the digest that {algorithm} signs",
            f"give the {algorithm.fit.digest_bytes} bytes of a SHA-{algorithm.fit.digest_bytes * 8} digest",
        )


def check_signature(value: bytes) -> None:
    """Let a signature through that is there and not beyond measure; one of the wrong length is simply not valid.

    Raises:
        InvalidRequest: `signature_invalid`.
    """
    if not 0 < len(value) <= MAX_VALUE_BYTES:
        raise InvalidRequest("signature_invalid", f"{len(value)} bytes are no signature", "give the signature as sign returned it")


def raw_signature(der: bytes, half: int) -> bytes:
    """R and S of an ECDSA signature, each in `half` bytes."""
    r, s = decode_dss_signature(der)
    return r.to_bytes(half, "big") + s.to_bytes(half, "big")


def der_signature(raw: bytes, half: int) -> bytes | None:
    """The same in DER, as libraries take it; None for a signature of another length."""
    if len(raw) != 2 * half:
        return None
    return encode_dss_signature(int.from_bytes(raw[:half], "big"), int.from_bytes(raw[half:], "big"))


def _mismatch(algorithm: Encryption | Signature, kind: KeyKind) -> InvalidRequest:
    key_type = f"{kind.kty} {kind.curve}".strip()
    return InvalidRequest(
        "algorithm_key_mismatch",
        f"{algorithm} is not an algorithm of a key of type {key_type}",
        "use an algorithm of that key type and curve",
    )
