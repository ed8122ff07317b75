"""Access tokens of a vault's clients, and every decision about one that needs no look at anything else (docs/spec/vault-tokens.md).

A token is a JWT (RFC 7519) signed with RS256, as programs of this kind expect. It names the client, the client's tenant and the one
resource it is for. That its client is still there is looked up on every call: a token of a client that was deleted is worth nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from keystead.core.access.tokens import check_size, read_jwt
from keystead.core.errors import Unauthenticated

if TYPE_CHECKING:
    from collections.abc import Mapping

ALGORITHM = "RS256"
"""RFC 7518 section 3.3; the only one taken."""
TYPE = "JWT"
VERSION = "2.0"
KEY_BITS = 2_048
MAX_RESOURCE = 512
"""Characters of a resource."""

_HEADER = frozenset({"alg", "typ", "kid"})
_CLAIMS = frozenset({"iss", "aud", "tid", "sub", "oid", "azp", "appid", "jti", "iat", "nbf", "exp", "ver"})
_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_ISSUER = re.compile(r"https://[!-.0-~]{1,256}")
_RESOURCE = re.compile(r"https://(?:\[[0-9a-f:.]{2,45}\]|[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?)(?::[1-9][0-9]{0,4})?")
_MAX_TIME = 2**40
"""Seconds; far beyond any date."""
_SIGN_IN_AGAIN = "sign in again with the client's id and secret"


@dataclass(frozen=True, slots=True)
class ClientClaims:
    """What a token says whose signature is good.

    Attributes:
        client_id: whose it is, and `tenant_id` the client's tenant.
        audience: the resource it is for.
        begins, expires: milliseconds.
    """

    client_id: str
    tenant_id: str
    audience: str
    begins: int
    expires: int


@dataclass(frozen=True, slots=True)
class Unproven:
    """A token taken apart. Nothing of it is known to be true."""

    key_id: str
    claims: Mapping[str, Any]


def issuer_of(authority: str, tenant_id: str) -> str:
    """The issuer of a tenant's tokens, below the address of the token endpoint."""
    return f"{authority}/{tenant_id}/v2.0"


def resource_name(text: str) -> str | None:
    """A resource in its one spelling: an https origin in lower case without a slash behind; None for anything else."""
    lowered = text.removesuffix("/").lower()
    return lowered if len(lowered) <= MAX_RESOURCE and _RESOURCE.fullmatch(lowered) else None


def token_claims(
    issuer: str, client_id: str, tenant_id: str, resource: str, token_id: str, now: int, lifetime: int
) -> dict[str, str | int]:
    """The claims of a fresh token; `now` and `lifetime` in milliseconds."""
    issued = now // 1_000
    return {
        "iss": issuer,
        "aud": resource,
        "tid": tenant_id,
        "sub": client_id,
        "oid": client_id,
        "azp": client_id,
        "appid": client_id,
        "jti": token_id,
        "iat": issued,
        "nbf": issued,
        "exp": issued + lifetime // 1_000,
        "ver": VERSION,
    }


def read_token(token: str) -> Unproven:
    """Take a token apart, strictly; before its signature is checked, and before anything in it is believed.

    Raises:
        Unauthenticated: `token_missing`: there is none; `token_invalid`: it is none of ours.
    """
    if not token:
        raise Unauthenticated("token_missing", "the call carries no access token", "sign in where the challenge of this answer says")
    try:
        check_size(token)
        unverified = read_jwt(token)
    except Unauthenticated as error:
        raise _invalid(error.detail) from None
    header = unverified.header
    if frozenset(header) != _HEADER or header["alg"] != ALGORITHM or header["typ"] != TYPE or not _ID.fullmatch(unverified.key_id):
        raise _invalid("its header is not that of a vault's access token")
    return Unproven(unverified.key_id, unverified.claims)


def check_claims(claims: Mapping[str, Any]) -> ClientClaims:
    """What a token says, after its signature was checked.

    Raises:
        Unauthenticated: `token_invalid`: not a set of claims that we make.
    """
    if frozenset(claims) != _CLAIMS:
        raise _invalid("its claims are not those of a vault's access token")
    names = {name: claims[name] for name in ("tid", "sub", "oid", "azp", "appid", "jti")}
    if not all(isinstance(name, str) and _ID.fullmatch(name) for name in names.values()):
        raise _invalid("it names no client")
    client_id, tenant_id = names["azp"], names["tid"]
    issuer, audience, end = claims["iss"], claims["aud"], issuer_of("", tenant_id)
    if {names["sub"], names["oid"], names["appid"]} != {client_id} or claims["ver"] != VERSION:
        raise _invalid("it names several clients, or has another version")
    if not isinstance(issuer, str) or not issuer.endswith(end) or not _ISSUER.fullmatch(issuer.removesuffix(end)):
        raise _invalid("its issuer is not that of its tenant")
    if not isinstance(audience, str) or resource_name(audience) != audience:
        raise _invalid("it is for no resource")
    begins, expires = _time(claims, "nbf"), _time(claims, "exp")
    if _time(claims, "iat") != begins or expires <= begins:
        raise _invalid("its times do not fit one another")
    return ClientClaims(client_id, tenant_id, audience, begins, expires)


def check_standing(claims: ClientClaims, resource: str, now: int, leeway: int) -> None:
    """Whether a token is good now, for a resource. An end is an end: `leeway` (milliseconds) is for clocks of those who sign in ahead of ours.

    Raises:
        Unauthenticated: `token_expired`, `token_audience_wrong`, `token_invalid`.
    """
    if claims.expires <= now:
        raise Unauthenticated("token_expired", f"the token ended {(now - claims.expires) // 1_000} seconds ago", _SIGN_IN_AGAIN)
    if claims.begins > now + leeway:
        raise _invalid("it is not good yet")
    if claims.audience != resource.lower():
        raise Unauthenticated(
            "token_audience_wrong", f"the token is for {claims.audience}, not for {resource}", f"ask for one for {resource}"
        )


def no_such_client() -> Unauthenticated:
    """The token's client was deleted."""
    return _invalid("its client is not there any more")


def bad_signature() -> Unauthenticated:
    """No key of ours made it."""
    return _invalid("its signature is not good")


def _time(claims: Mapping[str, Any], name: str) -> int:
    """A NumericDate (RFC 7519 section 2) in milliseconds."""
    found = claims[name]
    if type(found) is not int or not 0 <= found <= _MAX_TIME:
        raise _invalid(f"its {name} is no time")
    return found * 1_000


def _invalid(why: str) -> Unauthenticated:
    return Unauthenticated("token_invalid", f"the access token is not good: {why}", _SIGN_IN_AGAIN)
