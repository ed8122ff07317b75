"""Key material: making, loading, using. Private keys never leave the vault ring (R-025).

Which algorithm fits which key is decided in `core.vaults.algorithms`, before anything here is called.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA1, SHA256, SHA384, SHA512
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
from keystead.core.vaults.algorithms import Encryption, Signature, der_signature, raw_signature
from keystead.core.vaults.usage import KeyKind, key_kind

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey

PUBLIC_EXPONENT = 65_537
"""The only one made or imported (FIPS 186-5 section 5.4 asks for at least this)."""

_CURVES: dict[str, type[ec.EllipticCurve]] = {"P-256": ec.SECP256R1, "P-256K": ec.SECP256K1, "P-384": ec.SECP384R1, "P-521": ec.SECP521R1}
_CURVE_NAMES: dict[str, str] = {str(curve.name): name for name, curve in _CURVES.items()}

_ENCRYPTION: dict[Encryption, padding.AsymmetricPadding] = {
    Encryption.RSA1_5: padding.PKCS1v15(),
    # RFC 7518 section 4.3 fixes SHA-1 here; what OAEP asks of its hash is not what SHA-1 lacks.
    Encryption.RSA_OAEP: padding.OAEP(mgf=padding.MGF1(SHA1()), algorithm=SHA1(), label=None),  # noqa: S303 - the algorithm's own
    Encryption.RSA_OAEP_256: padding.OAEP(mgf=padding.MGF1(SHA256()), algorithm=SHA256(), label=None),
}
_HASHES = {32: SHA256(), 48: SHA384(), 64: SHA512()}


def _scheme(algorithm: Signature) -> tuple[padding.AsymmetricPadding, Prehashed]:
    """How RSA pads, and of which hash the digest is; EC takes the second alone."""
    digest = _HASHES[algorithm.fit.digest_bytes]
    if algorithm.startswith("PS"):
        return padding.PSS(mgf=padding.MGF1(digest), salt_length=padding.PSS.DIGEST_LENGTH), Prehashed(digest)
    return padding.PKCS1v15(), Prehashed(digest)


_SIGNATURE = {algorithm: _scheme(algorithm) for algorithm in Signature}
"""Made once: they hold no state, and making them takes longer than looking them up."""


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


def encrypt(key: PrivateKey, algorithm: Encryption, value: bytes) -> bytes:
    """Close a value for a key's public half: encrypt and wrapKey are one thing. The length was looked at by `check_plain`."""
    return _rsa(key).public_key().encrypt(value, _ENCRYPTION[algorithm])


def decrypt(key: PrivateKey, algorithm: Encryption, value: bytes) -> bytes:
    """Open a closed value: decrypt and unwrapKey are one thing.

    Raises:
        IntegrityFailure: `unwrap_failed`, always with the same text: why padding did not hold is what an attacker asks for (RFC 8017
            section 7.1.2 note). A wrong RSA1_5 value gives random bytes instead of an error: OpenSSL's implicit rejection.
    """
    try:
        return _rsa(key).decrypt(value, _ENCRYPTION[algorithm])
    except ValueError:
        raise IntegrityFailure(
            "unwrap_failed", "the value was not wrapped by this key version with this algorithm", "give the value as wrapKey returned it"
        ) from None


def sign(key: PrivateKey, algorithm: Signature, digest: bytes) -> bytes:
    """Sign a digest. RSA: as long as the modulus; PSS with a salt as long as the digest (RFC 7518 section 3.5). EC: R and S."""
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(digest, *_SIGNATURE[algorithm])
    return raw_signature(key.sign(digest, ec.ECDSA(_SIGNATURE[algorithm][1])), algorithm.fit.half)


def verify(key: PrivateKey, algorithm: Signature, digest: bytes, signature: bytes) -> bool:
    """Whether a signature over a digest is this key's."""
    try:
        if isinstance(key, rsa.RSAPrivateKey):
            key.public_key().verify(signature, digest, *_SIGNATURE[algorithm])
            return True
        der = der_signature(signature, algorithm.fit.half)
        if der is None:
            return False
        key.public_key().verify(der, digest, ec.ECDSA(_SIGNATURE[algorithm][1]))
    except InvalidSignature:
        return False
    return True


def _supported(key: object) -> PrivateKey:
    if isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
        return key
    raise ValueError("neither RSA nor EC")


def _rsa(key: PrivateKey) -> rsa.RSAPrivateKey:
    assert isinstance(key, rsa.RSAPrivateKey), "only RSA keys have an encryption algorithm"
    return key
