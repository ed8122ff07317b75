"""What a token is, and every decision about one that needs no look at anything else (docs/spec/tokens.md)."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NoReturn

from keystead.core.errors import Forbidden, InvalidRequest, Unauthenticated
from keystead.core.ids import user_principal_name

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence


class TokenKind(StrEnum):
    """What a stored token is for."""

    CLAIM = "claim"
    """Good once, for naming oneself."""
    SIGN_IN = "sign-in"
    """A person's own: everything the person may do."""
    SERVICE = "service"
    """A program's: what its maker may do, cut down by its scopes."""


@dataclass(frozen=True, slots=True)
class Token:
    """A stored token: only its SHA-256 is known.

    Attributes:
        digest: SHA-256 of the token.
        id: what people and access tokens call it by; tells nothing about the token.
        kind: what it is for.
        upn: whose it is; empty for the claim token of a tenant's first administrator.
        tenant_id: the person's tenant; None for the provider's people.
        name: of a service token's program.
        scopes: what a service token is cut down to; None for no cut.
        created, expires: milliseconds.
        last_used: start of the last day (UTC) it was used on; None for never.
    """

    digest: bytes
    id: str
    kind: TokenKind
    upn: str
    tenant_id: str | None
    created: int
    expires: int
    name: str = ""
    scopes: frozenset[str] | None = None
    last_used: int | None = None


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A key that access tokens are signed with.

    Attributes:
        id: its `kid`, and its name in the key store.
        public_key: 32 bytes, Ed25519 (RFC 8032).
        sealed: the private half, sealed by the key store.
        created: milliseconds.
        ends: when the last token it signed has ended; None while it signs.
    """

    id: str
    public_key: bytes
    sealed: bytes
    created: int
    ends: int | None = None


@dataclass(frozen=True, slots=True)
class SignInProvider:
    """A tenant's own OpenID Connect provider: whose tokens are taken, and which claim names the person.

    Attributes:
        issuer: exactly as in the token; one that the operator allows.
        audience: what the token must be for.
        upn_claim: the claim that holds the UPN.
        required_claim, required_value: a further claim and its value; empty for none.
    """

    tenant_id: str
    issuer: str
    audience: str
    upn_claim: str
    required_claim: str
    required_value: str
    created: int


# -- scopes -------------------------------------------------------------------------------------------------------------------------------

EVERYTHING_BELOW = ".*"
MAX_SCOPES = 50
NEVER_SCOPED = frozenset(
    {
        *("token.create", "provider-token.create"),
        *("user.reissue-claim", "tenant.reissue-claim"),
        *("sign-in-provider.set", "settings.set"),
        *("vault.client.create", "vault.client.secret.add"),
    }
)
"""Routes that make tokens, or make tokens of others good, or let tokens live longer: no scope opens them. Whoever holds a service token
never gets a token that can do more, or lives longer, than it."""


def covers(scopes: frozenset[str], route: str) -> bool:
    """Whether one of these scopes names a route: by its name, or by a pattern `PREFIX.*`."""
    if route in NEVER_SCOPED:
        return False
    return route in scopes or any(scope.endswith(EVERYTHING_BELOW) and route.startswith(scope[:-1]) for scope in scopes)


def checked_scopes(asked: Iterable[str], routes: Collection[str]) -> frozenset[str]:
    """Scopes as somebody asks for them, each of which opens something.

    Args:
        asked: names of routes, or `PREFIX.*`.
        routes: names of all routes.

    Raises:
        InvalidRequest: none, too many, or one that opens nothing.
    """
    scopes = frozenset(asked)
    if not 1 <= len(scopes) <= MAX_SCOPES:
        raise InvalidRequest(
            "scopes_count", f"{len(scopes)} scopes were given; 1 to {MAX_SCOPES} are taken", "name what the program does: mailbox.import"
        )
    for scope in sorted(scopes):
        if not any(covers(frozenset({scope}), route) for route in routes):
            raise InvalidRequest(
                "scope_unknown",
                f"the scope {scope[:64]!r} opens no route, or one that makes tokens",
                "docs/roles.md lists the routes; PREFIX.* names all that begin alike",
            )
    return scopes


def narrowed(held: frozenset[str] | None, asked: frozenset[str]) -> frozenset[str] | None:
    """The scopes of an access token: what was asked for, if it is no more than what is held.

    Args:
        held: scopes of the stored token; None for all there is.
        asked: empty for as much as is held.

    Raises:
        Forbidden: more than what is held.
    """
    if held is None:
        return asked or None
    for scope in sorted(asked):
        within = scope in held or any(one.endswith(EVERYTHING_BELOW) and scope.startswith(one[:-1]) for one in held)
        if not within:
            raise Forbidden("scope_widened", f"the token does not have the scope {scope}", f"it has {', '.join(sorted(held))}")
    return asked or held


# -- reading a JSON Web Token (RFC 7519) before anything in it is believed ------------------------------------------------------------------

MAX_TOKEN_BYTES = 8_192
"""Longest token looked at: the header of a request is not longer either. Our own have about 700 bytes."""
MAX_KEY_ID_BYTES = 256
MAX_AUDIENCES = 16
_PART = re.compile(r"[A-Za-z0-9_-]+")
OWN_TYPE = "at+jwt"
OWN_ALGORITHM = "Ed25519"
"""RFC 9864; the only one taken in tokens that name us as their issuer."""
PROVIDER_ALGORITHMS = frozenset({"RS256", "PS256", "ES256", "EdDSA", "Ed25519"})
"""Taken from providers: never `none`, and none with a shared secret, for which a public key would do."""
PROVIDER_TYPES = frozenset({"", "jwt", "at+jwt", "application/at+jwt"})
_OWN_HEADER = frozenset({"alg", "typ", "kid"})
_OWN_CLAIMS = frozenset({"iss", "aud", "sub", "client_id", "jti", "sid", "tenant", "iat", "exp"})


@dataclass(frozen=True, slots=True)
class Unverified:
    """What a token says of itself. Nothing of it is known to be true.

    Attributes:
        header, claims: JSON objects without duplicate names.
        issuer: of whom it says to be.
        key_id: which key it says to be signed with.
        algorithm: how it says to be signed.
        claimed: what of the token is not signature, for counting who guesses at one.
    """

    header: Mapping[str, Any]
    claims: Mapping[str, Any]
    issuer: str
    key_id: str
    algorithm: str
    claimed: str


@dataclass(frozen=True, slots=True)
class AccessClaims:
    """What one of our own access tokens says, once its signature was checked. Times in milliseconds."""

    person_id: str
    token_id: str
    tenant_id: str | None
    scopes: frozenset[str] | None
    expires: int


@dataclass(frozen=True, slots=True)
class ProvidedClaims:
    """What a token of a tenant's own provider says, once its signature was checked. Times in milliseconds."""

    upn: str
    expires: int


def looks_like_jwt(token: str) -> bool:
    """Whether it is for `read_jwt` at all: our opaque tokens have no dots."""
    return "." in token


def check_size(token: str) -> None:
    """Refuse what cannot be a token before anything is computed from it.

    Raises:
        Unauthenticated: too long, or not printable ASCII.
    """
    if len(token) > MAX_TOKEN_BYTES:
        raise Unauthenticated("token_too_long", f"the token has more than {MAX_TOKEN_BYTES} characters", _SIGN_IN_AGAIN)
    if not token.isascii() or not token.isprintable() or " " in token:
        raise _malformed("it has characters that no token has")


def read_jwt(token: str) -> Unverified:
    """Take a compact JWS (RFC 7515 section 7.1) apart; strictly, so that no two readers can understand it differently.

    Raises:
        Unauthenticated: it is none: parts, encoding, JSON, duplicate names, or the members everything else rests on.
    """
    parts = token.split(".")
    if len(parts) != 3 or not all(_PART.fullmatch(part) for part in parts[:2]) or not _PART.fullmatch(parts[2] or "-"):
        raise _malformed("it is not three parts of base64url with dots between")
    header, claims = _json_object(parts[0], "header"), _json_object(parts[1], "claims")
    try:
        _decoded(parts[2])
    except ValueError:
        raise _malformed("its signature is not base64url") from None
    if "crit" in header or "b64" in header or "zip" in header:  # RFC 7515 section 4.1.11: what is critical and not understood is refused
        raise _malformed("its header asks for what Keystead does not do")
    algorithm, key_id, issuer = header.get("alg"), header.get("kid"), claims.get("iss")
    if not isinstance(algorithm, str) or not isinstance(issuer, str):
        raise _malformed("it names no algorithm or no issuer")
    if not isinstance(key_id, str) or not 1 <= len(key_id) <= MAX_KEY_ID_BYTES:
        raise _malformed("it names no key it was signed with")
    return Unverified(header, claims, issuer, key_id, algorithm, f"{parts[0]}.{parts[1]}")


def check_own_header(token: Unverified) -> None:
    """Refuse every header but exactly that of our own access tokens.

    Raises:
        Unauthenticated: another algorithm, type, or member, or a key id that is none of ours.
    """
    if token.algorithm != OWN_ALGORITHM:
        raise _wrong_algorithm(token.algorithm, OWN_ALGORITHM)
    if token.header.get("typ") != OWN_TYPE:
        raise Unauthenticated("token_type_wrong", "the token names us as its issuer but is no access token", _SIGN_IN_AGAIN)
    if frozenset(token.header) != _OWN_HEADER or not _OWN_ID.fullmatch(token.key_id):
        raise _malformed("its header is not that of an access token")


def check_own_claims(claims: Mapping[str, Any], *, issuer: str, now: int, leeway: int) -> AccessClaims:
    """What one of our access tokens says (RFC 9068 section 2.2), after its signature was checked.

    Args:
        claims: of a token whose signature is good.
        issuer: our name, which is our audience too.
        now: milliseconds.
        leeway: how far clocks may be apart, milliseconds.

    Raises:
        Unauthenticated: for another audience or issuer, not yet or no longer good, or not a set of claims we make.
    """
    if claims.get("iss") != issuer:
        raise _wrong_issuer(claims.get("iss"))
    if claims.get("aud") != issuer:
        raise Unauthenticated("token_audience_wrong", "the token is for somebody else", _SIGN_IN_AGAIN)
    if frozenset(claims) - {"scope"} != _OWN_CLAIMS:
        raise _malformed("its claims are not those of an access token")
    texts = {name: claims[name] for name in ("sub", "sid", "tenant", "jti", "client_id")} | {"scope": claims.get("scope", "")}
    if not all(isinstance(text, str) for text in texts.values()) or not _OWN_ID.fullmatch(texts["sid"]):
        raise _malformed("its claims are not those of an access token")
    expires = _times(claims, now, leeway)
    scopes = frozenset(texts["scope"].split()) if "scope" in claims else None
    return AccessClaims(texts["sub"], texts["sid"], texts["tenant"] or None, scopes, expires)


def check_provider_header(token: Unverified) -> None:
    """Refuse what a provider's token must not be. `jku`, `jwk`, `x5u` and `x5c` are never looked at: keys come from the issuer alone.

    Raises:
        Unauthenticated: an algorithm or type that is not taken.
    """
    if token.algorithm not in PROVIDER_ALGORITHMS:
        raise _wrong_algorithm(token.algorithm, ", ".join(sorted(PROVIDER_ALGORITHMS)))
    kind = token.header.get("typ", "")
    if not isinstance(kind, str) or kind.lower() not in PROVIDER_TYPES:
        raise Unauthenticated("token_type_wrong", "the token is not one to sign in with", "use an ID token or an access token")


def audiences(claims: Mapping[str, Any]) -> tuple[str, ...]:
    """Whom a token is for (RFC 7519 section 4.1.3).

    Raises:
        Unauthenticated: nobody, too many, or not names.
    """
    found = claims.get("aud")
    listed = [found] if isinstance(found, str) else found
    if not isinstance(listed, list) or not 1 <= len(listed) <= MAX_AUDIENCES or not all(isinstance(one, str) and one for one in listed):
        raise _malformed("it does not say whom it is for")
    return tuple(listed)


def check_provided_claims(
    claims: Mapping[str, Any], candidates: Sequence[tuple[SignInProvider, str]], *, now: int, leeway: int
) -> tuple[SignInProvider, ProvidedClaims]:
    """Which tenant's registration a provider's token meets, and whom it names there, after its signature was checked.

    Two tenants may name the same issuer, and even the same audience: the domain of the person decides, which is one tenant's alone. So a
    token never works in a tenant whose domain it does not name, and nobody keeps another tenant out by registering its issuer first.

    Args:
        claims: of a token whose signature is good.
        candidates: registrations of this issuer for an audience of the token, each with the domain of its tenant.
        now: milliseconds.
        leeway: how far clocks may be apart, milliseconds.

    Raises:
        Unauthenticated: not yet or no longer good, for another audience, without the required claim, or naming nobody of the tenant.
    """
    expires = _times(claims, now, leeway)
    named = audiences(claims)
    for provider, domain in candidates:
        upn = claims.get(provider.upn_claim)
        if not isinstance(upn, str) or upn.rpartition("@")[2].lower() != domain or provider.audience not in named:
            continue
        if len(named) > 1 and claims.get("azp") != provider.audience:  # OpenID Connect Core section 3.1.3.7, steps 4 and 5
            raise Unauthenticated("token_audience_wrong", "the token has several audiences and was not issued to ours", _ASK_ADMIN)
        if provider.required_claim and not _claimed(claims.get(provider.required_claim), provider.required_value):
            raise Unauthenticated(
                "token_claim_missing", f"the token's {provider.required_claim} is not what the tenant requires", _ASK_ADMIN
            )
        try:
            return provider, ProvidedClaims(user_principal_name(upn), expires)
        except InvalidRequest:
            break
    raise Unauthenticated(
        "token_names_nobody", "the token names nobody in the domain of a tenant that takes tokens of this issuer", _ASK_ADMIN
    )


_OWN_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_SIGN_IN_AGAIN = "sign in again"
_ASK_ADMIN = "keystead sign-in-provider show tells the tenant's administrator what is taken"
_MAX_TIME = 2**40
"""Seconds; far beyond any date, and exact as a float."""


def _times(claims: Mapping[str, Any], now: int, leeway: int) -> int:
    """When a token ends, in milliseconds; `exp`, `iat` and, where there is one, `nbf` are checked (RFC 7519 section 4.1)."""
    issued, expires, begins = (_time(claims, name) for name in ("iat", "exp", "nbf"))
    if issued is None or expires is None:
        raise _malformed("it does not say when it was issued and when it ends")
    if issued > now + leeway:
        seconds = (issued - now) // 1_000
        raise Unauthenticated(
            "token_clock_ahead",
            f"the token says it was issued {seconds} seconds from now; clocks may be {leeway // 1_000} seconds apart",
            "set the clock of whoever issued it, or ours",
        )
    if begins is not None and begins > now + leeway:
        raise Unauthenticated("token_not_yet_valid", "the token is not good yet", "wait, or set the clocks")
    if expires + leeway <= now:
        raise Unauthenticated("token_expired", f"the token ended {(now - expires) // 1_000} seconds ago", _SIGN_IN_AGAIN)
    return expires


def _time(claims: Mapping[str, Any], name: str) -> int | None:
    """A NumericDate (RFC 7519 section 2) in milliseconds; None where there is none."""
    found = claims.get(name)
    if found is None and name not in claims:
        return None
    if isinstance(found, bool) or not isinstance(found, int | float) or not 0 <= found <= _MAX_TIME:
        raise _malformed(f"its {name} is no time")
    return int(found * 1_000)


def _claimed(found: object, required: str) -> bool:
    """Whether a claim is, or lists, a value. Truth values compare as JSON writes them."""
    if isinstance(found, list):
        return required in [one for one in found if isinstance(one, str)]
    if isinstance(found, bool):
        return required == str(found).lower()
    return isinstance(found, str | int) and required == str(found)


def _json_object(part: str, what: str) -> Mapping[str, Any]:
    try:
        found = json.loads(_decoded(part).decode(), object_pairs_hook=_without_duplicates, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise _malformed(f"its {what} cannot be read, or name something twice") from None
    if not isinstance(found, dict):
        raise _malformed(f"its {what} are no JSON object")
    return found


def _decoded(part: str) -> bytes:
    """Base64url without padding (RFC 7515 section 2), in the one spelling there is: unused bits are zero."""
    data = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    if base64.urlsafe_b64encode(data).decode().rstrip("=") != part:
        raise ValueError
    return data


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """RFC 7519 section 4: a name that occurs twice is refused; readers differ in which of the two they take."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError
    return found


def _no_constant(name: str) -> NoReturn:
    """NaN and the infinities are no JSON."""
    raise ValueError(name)


def _malformed(why: str) -> Unauthenticated:
    return Unauthenticated("token_malformed", f"the token cannot be read: {why}", _SIGN_IN_AGAIN)


def _wrong_algorithm(found: str, allowed: str) -> Unauthenticated:
    return Unauthenticated("token_algorithm_refused", f"tokens signed with {found[:16]!r} are not taken", f"only {allowed}")


def _wrong_issuer(found: object) -> Unauthenticated:
    return Unauthenticated("token_issuer_unknown", f"tokens of the issuer {str(found)[:128]!r} are not taken here", _ASK_ADMIN)
