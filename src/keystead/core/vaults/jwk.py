"""JSON Web Keys (RFC 7517): the public half of a key as callers see it, and private keys that somebody brings.

    RSA    public n, e; private d, p, q, dp, dq, qi (RFC 7518 section 6.3). All of them: a key is never completed by guessing.
    EC     public crv, x, y; private d (RFC 7518 section 6.2); P-256K is secp256k1 (RFC 8812 calls it otherwise)

Every number is base64url without padding (RFC 7515 section 2), one encoding only; of a coordinate in the full length of the curve, of all
others at most as long as the modulus. No error repeats what was given.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import TYPE_CHECKING

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key

from keystead.core.errors import InvalidRequest
from keystead.core.vaults.usage import RSA_SIZES, KeyKind, KeyType, key_kind

if TYPE_CHECKING:
    from collections.abc import Mapping

    PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey

PUBLIC_EXPONENT = 65_537
"""The only one made or imported (FIPS 186-5 section 5.4 asks for at least this)."""
PUBLIC_MEMBERS = ("n", "e", "crv", "x", "y")
PRIVATE_MEMBERS = ("d", "p", "q", "dp", "dq", "qi")

_CURVES: dict[str, ec.EllipticCurve] = {"P-256": ec.SECP256R1(), "P-256K": ec.SECP256K1(), "P-384": ec.SECP384R1(), "P-521": ec.SECP521R1()}
_NAMES = {curve.name: name for name, curve in _CURVES.items()}
_MOST_RSA_BYTES = max(RSA_SIZES) // 8 + 1
"""The modulus, and one zero byte before it that some encoders add."""


def encode(value: bytes) -> str:
    """base64url without padding."""
    return urlsafe_b64encode(value).rstrip(b"=").decode()


def decode(text: str) -> bytes:
    """What `encode` made, and nothing else: no padding, no other alphabet, no unused bits.

    Raises:
        ValueError: it is not that.
    """
    try:
        value = urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
    except ValueError:  # not ASCII, or no base64; the library passes over what is not in the alphabet, so what comes out is compared
        raise ValueError("this is not base64url without padding") from None
    if encode(value) != text:
        raise ValueError("this is not base64url without padding")
    return value


def public_members(der: bytes) -> dict[str, str]:
    """The members of a public JWK, `kty` and `kid` apart.

    Args:
        der: SubjectPublicKeyInfo of one of our own keys.
    """
    key = load_der_public_key(der)
    if isinstance(key, rsa.RSAPublicKey):
        numbers = key.public_numbers()
        return {"n": _shortest(numbers.n), "e": _shortest(numbers.e)}
    assert isinstance(key, ec.EllipticCurvePublicKey), "a vault holds RSA and EC keys only"
    point, size = key.public_numbers(), (key.curve.key_size + 7) // 8
    return {"crv": _NAMES[key.curve.name], "x": encode(point.x.to_bytes(size, "big")), "y": encode(point.y.to_bytes(size, "big"))}


def private_key(kty: str, members: Mapping[str, str], *, hsm: bool) -> tuple[PrivateKey, KeyKind]:
    """A key somebody brings, fully validated, and its kind.

    Args:
        kty: RSA or EC, with `-HSM` or without, whatever the case.
        members: of the JWK, `kty` apart; names that mean nothing here are passed over.
        hsm: the caller asks for the `-HSM` type.

    Raises:
        InvalidRequest: `key_type_invalid`, `key_size_invalid`, or `import_invalid`; the text never repeats what was given.
    """
    named = _type(kty)
    wanted = KeyType.RSA if named.is_rsa else KeyType.EC
    kind = f"{wanted}-HSM" if hsm or named.is_hsm else str(wanted)
    try:
        if named.is_rsa:
            private = _rsa(members)
            return private, key_kind(kind, private.key_size, None)
        curve = members.get("crv", "")
        if curve not in _CURVES:
            raise InvalidRequest("key_size_invalid", "the key names no curve that is supported", f"use one of {', '.join(_CURVES)}")
        return _ec(members, _CURVES[curve]), key_kind(kind, None, curve)
    except (ValueError, UnsupportedAlgorithm):
        raise InvalidRequest(
            "import_invalid",
            "this is not a private key that can be imported",
            "give a JSON Web Key of type RSA with n, e, d, p, q, dp, dq and qi, or of type EC with crv, x, y and d",
        ) from None


def _type(kty: str) -> KeyType:
    try:
        return KeyType(kty.upper())
    except ValueError:
        raise InvalidRequest("key_type_invalid", f"{kty[:32]!r} is not a key type", f"use one of {', '.join(KeyType)}") from None


def _rsa(members: Mapping[str, str]) -> rsa.RSAPrivateKey:
    n, e, d, p, q, dp, dq, qi = (_number(members, name) for name in ("n", "e", "d", "p", "q", "dp", "dq", "qi"))
    # Sizes first: what follows tests primes, and takes time that grows with the cube of the size.
    if n.bit_length() not in RSA_SIZES:
        raise InvalidRequest(
            "key_size_invalid", f"{n.bit_length()} is not a size of an RSA key", f"use one of {', '.join(map(str, RSA_SIZES))}"
        )
    if e != PUBLIC_EXPONENT or max(d, p, q, dp, dq, qi) >= n or p * q != n:
        raise ValueError("the numbers do not fit one another")
    return rsa.RSAPrivateNumbers(p, q, d, dp, dq, qi, rsa.RSAPublicNumbers(e, n)).private_key()


def _ec(members: Mapping[str, str], curve: ec.EllipticCurve) -> ec.EllipticCurvePrivateKey:
    size = (curve.key_size + 7) // 8
    x, y, d = (_number(members, name, exactly=size) for name in ("x", "y", "d"))
    key = ec.derive_private_key(d, curve)
    if key.public_key().public_numbers() != ec.EllipticCurvePublicNumbers(x, y, curve):
        raise ValueError("the point is not that of the private key")
    return key


def _number(members: Mapping[str, str], name: str, *, exactly: int = 0) -> int:
    """A member as a number; for a coordinate `exactly` so many bytes, else at most those of the largest modulus."""
    text = members.get(name, "")
    if not text or len(text) > 2 * _MOST_RSA_BYTES:
        raise ValueError("a member is missing or too long")
    value = decode(text)
    if len(value) > _MOST_RSA_BYTES or (exactly and len(value) != exactly):
        raise ValueError("a member has a wrong length")
    return int.from_bytes(value, "big")


def _shortest(number: int) -> str:
    return encode(number.to_bytes((number.bit_length() + 7) // 8, "big"))
