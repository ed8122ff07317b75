"""Key material: making, loading, wrapping. Private keys never leave the vault ring (R-025).

Wrap algorithms are those of RFC 7518 section 4.2 and 4.3: RSA1_5, RSA-OAEP (SHA-1), RSA-OAEP-256; the service itself uses the last one only.
"""

from __future__ import annotations

from enum import StrEnum

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA1, SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
    load_der_public_key,
    load_pem_private_key,
)

from keystead.core.errors import IntegrityFailure, InvalidRequest
from keystead.core.vaults.usage import KeyKind, key_kind

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey

PUBLIC_EXPONENT = 65_537
"""The only one made or imported (FIPS 186-5 section 5.4 asks for at least this)."""

_CURVES: dict[str, type[ec.EllipticCurve]] = {"P-256": ec.SECP256R1, "P-256K": ec.SECP256K1, "P-384": ec.SECP384R1, "P-521": ec.SECP521R1}
_CURVE_NAMES: dict[str, str] = {str(curve.name): name for name, curve in _CURVES.items()}


class WrapAlgorithm(StrEnum):
    """Algorithms of wrapKey and unwrapKey (R-026)."""

    RSA1_5 = "RSA1_5"
    RSA_OAEP = "RSA-OAEP"
    RSA_OAEP_256 = "RSA-OAEP-256"


def wrap_algorithm(name: str) -> WrapAlgorithm:
    """The named algorithm.

    Raises:
        InvalidRequest: `algorithm_not_supported`.
    """
    try:
        return WrapAlgorithm(name)
    except ValueError:
        raise InvalidRequest(
            "algorithm_not_supported", f"{name!r} is not a wrap algorithm", f"use one of {', '.join(WrapAlgorithm)}"
        ) from None


def generate(kind: KeyKind) -> PrivateKey:
    """A fresh key, from the operating system's generator by way of OpenSSL."""
    if kind.kty.is_rsa:
        return rsa.generate_private_key(PUBLIC_EXPONENT, kind.size)
    return ec.generate_private_key(_CURVES[kind.curve]())


def private_bytes(key: PrivateKey) -> bytes:
    """PKCS #8 DER (RFC 5958), to be sealed at once."""
    return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


def public_bytes(key: PrivateKey) -> bytes:
    """SubjectPublicKeyInfo DER."""
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def public_pem(der: bytes) -> str:
    """The same in PEM, for people."""
    return load_der_public_key(der).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def load(pkcs8: bytes) -> PrivateKey:
    """A key from bytes that our own seal has authenticated: primality tests (50 ms) would only repeat what was true when it was sealed."""
    return _supported(load_der_private_key(pkcs8, None, unsafe_skip_rsa_key_validation=True))


def load_import(pem: str, *, hsm: bool) -> tuple[PrivateKey, KeyKind]:
    """A key somebody brings, fully validated, and its kind.

    Args:
        pem: PKCS #8 in PEM, not encrypted.
        hsm: the caller asks for the `-HSM` type.

    Raises:
        InvalidRequest: `import_invalid`, or a size that is not supported. The text never repeats what was given.
    """
    refused = InvalidRequest(
        "import_invalid",
        "this is not a private key that can be imported",
        "give an RSA or EC private key as PKCS #8 PEM without a password",
    )
    try:
        key = _supported(load_pem_private_key(pem.encode(), None))
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise refused from None
    suffix = "-HSM" if hsm else ""
    if isinstance(key, rsa.RSAPrivateKey):
        if key.private_numbers().public_numbers.e != PUBLIC_EXPONENT:
            raise InvalidRequest(
                "import_invalid", "the RSA key has an unusual public exponent", f"import a key with public exponent {PUBLIC_EXPONENT}"
            )
        return key, key_kind(f"RSA{suffix}", key.key_size, None)
    return key, key_kind(f"EC{suffix}", None, _CURVE_NAMES.get(key.curve.name, key.curve.name))


def wrap(key: PrivateKey, algorithm: WrapAlgorithm, value: bytes) -> bytes:
    """Encrypt a value to a key's public half.

    Raises:
        InvalidRequest: `value_invalid`: empty, or longer than the algorithm takes (RFC 8017 sections 7.1.1 and 7.2.1).
    """
    try:
        if not value:
            raise ValueError  # noqa: TRY301 - an empty value is refused exactly as one that is too long
        return _rsa(key).public_key().encrypt(value, _padding(algorithm))
    except ValueError:
        raise InvalidRequest(
            "value_invalid", f"{len(value)} bytes cannot be wrapped with this key and {algorithm}", "wrap a key of 16 to 64 bytes"
        ) from None


def unwrap(key: PrivateKey, algorithm: WrapAlgorithm, value: bytes) -> bytes:
    """Decrypt a wrapped value.

    Raises:
        IntegrityFailure: `unwrap_failed`, always with the same text: why padding did not hold is what an attacker asks for (RFC 8017
            section 7.1.2 note). A wrong RSA1_5 value gives random bytes instead of an error: OpenSSL's implicit rejection.
    """
    try:
        return _rsa(key).decrypt(value, _padding(algorithm))
    except ValueError:
        raise IntegrityFailure(
            "unwrap_failed", "the value was not wrapped by this key version with this algorithm", "give the value as wrapKey returned it"
        ) from None


def _supported(key: object) -> PrivateKey:
    if isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
        return key
    raise ValueError("neither RSA nor EC")


def _rsa(key: PrivateKey) -> rsa.RSAPrivateKey:
    assert isinstance(key, rsa.RSAPrivateKey), "the usage decision let only RSA keys through"
    return key


def _padding(algorithm: WrapAlgorithm) -> padding.AsymmetricPadding:
    if algorithm is WrapAlgorithm.RSA1_5:
        return padding.PKCS1v15()
    digest = SHA256 if algorithm is WrapAlgorithm.RSA_OAEP_256 else SHA1
    return padding.OAEP(mgf=padding.MGF1(digest()), algorithm=digest(), label=None)
