"""Attestation tokens: whose word a key may be released on (docs/spec/key-release.md section 3).

A token is a JWT (RFC 7519) that an attestation service signed. Its keys are asked of the service itself, and only of services the operator
lists: an address in a token or in a policy makes this vault call nobody.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from joserfc.errors import JoseError
from joserfc.jwk import RSAKey
from joserfc.jws import JWSRegistry, deserialize_compact

from keystead.core.access.tokens import Unverified, read_jwt
from keystead.core.errors import Forbidden, InvalidRequest, Unauthenticated, Unavailable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from keystead.ports.issuers import Issuers

MAX_TOKEN = 32 * 1_024
"""Characters: tokens carry measurements and certificates of the environment."""
ALGORITHMS = frozenset({"RS256", "PS256"})
"""What attestation services sign with. Never `none`, and none with a shared secret."""
_MAX_TIME = 2**40
"""Seconds; far beyond any date."""


class _Registry(JWSRegistry):
    """Takes one algorithm. Members of the header that name keys or addresses are let be: nothing here ever looks at them."""

    max_header_length = MAX_TOKEN
    max_payload_length = MAX_TOKEN

    def __init__(self, algorithm: str) -> None:
        super().__init__(algorithms=[algorithm], strict_check_header=False)


def read_attestation(token: str) -> Unverified:
    """Take a token apart, strictly; nothing of it is believed yet.

    Raises:
        InvalidRequest: `attestation_invalid`: it is none.
    """
    if len(token) > MAX_TOKEN or not token.isascii():
        raise _invalid(f"it is no text of at most {MAX_TOKEN} characters")
    try:
        unverified = read_jwt(token)
    except Unauthenticated as error:
        raise _invalid(error.detail) from None
    if unverified.algorithm not in ALGORITHMS:
        raise _invalid(f"it is not signed with {' or '.join(sorted(ALGORITHMS))}")
    return unverified


def verified_claims(authorities: Issuers, token: str, unverified: Unverified, now: int, leeway: int) -> Mapping[str, Any]:
    """What an authority says of an environment.

    Args:
        authorities: those the operator lists.
        token: the whole token.
        unverified: the same, taken apart.
        now: milliseconds.
        leeway: how far clocks may be apart, milliseconds.

    Raises:
        Forbidden: `release_authority_not_allowed`: the operator lists another or none; `attestation_refused`: its signature is not good, or
            it is not good now.
        Unavailable: `release_authority_unavailable`: its keys cannot be had.
    """
    issuer = _allowed(authorities, unverified.issuer)
    if issuer is None:
        raise Forbidden(
            "release_authority_not_allowed",
            "the vault's operator does not let keys be released on the word of the authority that signed the token",
            "ask the operator to list it in keystead.toml, [vault] release_authorities, exactly as its tokens spell it",
        )
    try:
        key = authorities.key(issuer, unverified.key_id)
    except Unavailable as error:
        raise Unavailable(
            "release_authority_unavailable", f"the keys of the authority {issuer} cannot be had now", "try again in a minute"
        ) from error
    if key is None:
        raise _refused("the authority has no key of the id that it names")
    jwk = json.loads(key.jwk)
    if jwk["kty"] != "RSA" or key.algorithm not in {"", unverified.algorithm}:
        raise _refused("the authority's key is for another algorithm")
    try:
        deserialize_compact(token, RSAKey.import_key(jwk), registry=_Registry(unverified.algorithm))
    except (JoseError, ValueError, TypeError):
        raise _refused("its signature is not good") from None
    begins, expires = _time(unverified.claims, "nbf", 0), _time(unverified.claims, "exp", None)
    if expires <= now:  # an end is an end: leeway is for clocks that run ahead of ours
        raise _refused(f"it ended {(now - expires) // 1_000} seconds ago")
    if begins > now + leeway:
        raise _refused("it is not good yet")
    return unverified.claims


def _allowed(authorities: Issuers, issuer: str) -> str | None:
    """The authority as the operator lists it: services spell themselves with a slash at the end or without."""
    bare = issuer.rstrip("/")
    return next((one for one in (issuer, bare, f"{bare}/") if authorities.allows(one)), None)


def _time(claims: Mapping[str, Any], name: str, default: int | None) -> int:
    """A NumericDate (RFC 7519 section 2) in milliseconds."""
    found = claims.get(name, default)
    if isinstance(found, bool) or not isinstance(found, int) or not 0 <= found <= _MAX_TIME:
        raise _invalid(f"its {name} is no time")
    return found * 1_000


def _invalid(why: str) -> InvalidRequest:
    return InvalidRequest("attestation_invalid", f"the target is no attestation token: {why}", "give the token as the authority made it")


def _refused(why: str) -> Forbidden:
    return Forbidden("attestation_refused", f"the attestation token is not good: {why}", "attest the environment again")
