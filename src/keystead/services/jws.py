"""JSON Web Signatures (RFC 7515) by joserfc, with the algorithms named at every call. Loaded by those who need it: the library is large."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry, deserialize_compact, serialize_compact

from keystead.core.access.tokens import MAX_TOKEN_BYTES, OWN_ALGORITHM, OWN_TYPE
from keystead.core.errors import Unauthenticated

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
    from joserfc._rfc7515.model import JWSAlgModel

    from keystead.ports.issuers import IssuerKey

_KEYS: Mapping[str, tuple[type[RSAKey | ECKey | OKPKey], str]] = {
    "RS256": (RSAKey, "RSA"),
    "PS256": (RSAKey, "RSA"),
    "ES256": (ECKey, "EC"),
    "EdDSA": (OKPKey, "OKP"),
    "Ed25519": (OKPKey, "OKP"),
}
"""Algorithm: the one kind of key it is done with."""


class _Registry(JWSRegistry):
    """Takes one algorithm. Members of the header that name keys or addresses are let be: nothing here ever looks at them."""

    max_header_length = MAX_TOKEN_BYTES
    max_payload_length = MAX_TOKEN_BYTES

    def __init__(self, algorithm: str) -> None:
        super().__init__(algorithms=[_fully_named(algorithm)], strict_check_header=False)

    def get_alg(self, name: str) -> JWSAlgModel:
        return super().get_alg(_fully_named(name))


def _fully_named(algorithm: str) -> str:
    """`EdDSA` without a curve means Ed25519 here (RFC 9864 gives it that name)."""
    return "Ed25519" if algorithm == "EdDSA" else algorithm


def sign(claims: Mapping[str, Any], key_id: str, key: Ed25519PrivateKey) -> str:
    """A signed access token (RFC 9068)."""
    header = {"alg": OWN_ALGORITHM, "typ": OWN_TYPE, "kid": key_id}
    payload = json.dumps(claims, separators=(",", ":")).encode()
    return serialize_compact(header, payload, OKPKey.import_key(key), registry=_Registry(OWN_ALGORITHM))


def verify_own(token: str, key: Ed25519PublicKey) -> None:
    """Check the signature of one of our own tokens.

    Raises:
        Unauthenticated: it is not good.
    """
    _verify(token, OWN_ALGORITHM, lambda: OKPKey.import_key(key))


def verify_provided(token: str, algorithm: str, key: IssuerKey) -> None:
    """Check a signature with an issuer's key, of which the issuer alone said for what it is.

    Args:
        token: the whole token.
        algorithm: from its header, already looked for in the list of those taken.
        key: the key its `kid` names.

    Raises:
        Unauthenticated: another kind of key than the algorithm's, or not a good signature.
    """
    kind, name = _KEYS[algorithm]
    jwk = json.loads(key.jwk)
    if jwk["kty"] != name or (key.algorithm and _fully_named(key.algorithm) != _fully_named(algorithm)):
        raise Unauthenticated("token_algorithm_refused", f"the issuer's key is not for {algorithm}", "the issuer signs as its key says")
    _verify(token, algorithm, lambda: kind.import_key(jwk))


def _verify(token: str, algorithm: str, key: Callable[[], RSAKey | ECKey | OKPKey]) -> None:
    """Check a signature; a key that cannot be read verifies nothing."""
    try:
        deserialize_compact(token, key(), registry=_Registry(algorithm))
    except (JoseError, ValueError, TypeError):
        raise Unauthenticated("token_signature_invalid", "the token's signature is not good", "sign in again") from None
