"""Who a bearer token names: the one place where tokens are taken (docs/spec/tokens.md, ADR 20).

Three kinds are taken alike: opaque stored tokens, access tokens made from them, and tokens of a tenant's own OpenID Connect provider. What
costs a signature check is remembered by the token's hash; whether person, roles, stored token, signing key and registration still stand
is looked up in the database on every call, in one query. So whatever is taken away is gone at the next call, in every process.
"""

from __future__ import annotations

import hashlib
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from keystead.core.access.principal import NOBODY, Principal
from keystead.core.access.throttle import group_of
from keystead.core.access.tokens import (
    Token,
    TokenKind,
    Unverified,
    audiences,
    check_own_claims,
    check_own_header,
    check_provided_claims,
    check_provider_header,
    check_size,
    looks_like_jwt,
    read_jwt,
)
from keystead.core.errors import Throttled, Unauthenticated, Unavailable
from keystead.ports.clock import DAY
from keystead.services.auditing import record_counted, record_failures
from keystead.services.sign_in_state import MANY, KnownOwn, KnownProvided, pace_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from keystead.core.tenancy import Person
    from keystead.services.context import Services

PREFIX_CHARACTERS = 11
"""Of an opaque token: `ks_` and 48 bits, by which guesses at one token are counted wherever they come from."""
_SIGN_IN_AGAIN = "sign in again; keystead user claim redeems a claim token"


def sign_in(services: Services, bearer: str, client_ip: str) -> Principal:
    """The principal of a bearer token.

    Args:
        services: the service.
        bearer: the token, without the word Bearer; empty for a call without one.
        client_ip: where the call comes from; empty on the local transport.

    Returns:
        Who it is; NOBODY for an empty token.

    Raises:
        Unauthenticated: the token is not good; the code says why.
        Throttled: too many failures from there, or at this token, a moment ago; the token was not looked at.
        Unavailable: the database, or the provider that issued it, cannot be asked.
    """
    for_the_log(services)
    if not bearer:
        return NOBODY
    try:
        with attempted(services, client_ip, bearer):
            return _principal(services, bearer)
    except (Unauthenticated, Throttled) as error:
        record_failures(services, services.sign_in.failures.note(group_of(client_ip), MANY, error.code, services.clock.now()))
        raise


def for_the_log(services: Services, *, all_of_it: bool = False) -> None:
    """Record failures and refusals that were gathered long enough ago; all of them when the process ends."""
    now = services.clock.now()
    ready = services.sign_in.failures.due(now, all_of_it=all_of_it)
    if ready:
        record_failures(services, ready)
    counted = services.refusals.due(now, all_of_it=all_of_it)
    if counted:
        record_counted(services, counted)


@contextmanager
def attempted(services: Services, client_ip: str, secret: str) -> Iterator[None]:
    """Around a look at a secret: whoever fails too often waits, and a failure counts.

    A secret that was good here lately is looked at in any case: nobody is locked out by the failures of others behind the same address.

    Raises:
        Throttled: not yet.
    """
    state, digest = services.sign_in, digest_of(secret)
    good_lately = state.good.get(digest) is not None
    left = 0 if good_lately else state.attempts.waiting(_counted(client_ip, secret), services.clock.now(), pace_of(services.settings))
    if left:
        raise Throttled(
            "sign_in_throttled",
            "too many sign-ins failed from this address, or with tokens like this one",
            "wait, then try again",
            retry_after=left,
        )
    try:
        yield
    except Unauthenticated:
        state.good.drop(digest)
        state.attempts.failed(_counted(client_ip, secret), services.clock.now(), pace_of(services.settings))
        raise
    if not good_lately:
        state.good.put(digest, value=True)


def digest_of(secret: str) -> bytes:
    """SHA-256 of a token. Tokens are 256 random bits or signed, so looking one up by its hash tells nothing by its time."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


def stored_token(services: Services, secret: str) -> tuple[Token, Person]:
    """A stored token that is good for calls, and whose it is.

    Raises:
        Unauthenticated: it is not.
    """
    check_size(secret)
    now = services.clock.now()
    with services.db.read() as tx:
        found = tx.sign_in.by_digest(digest_of(secret))
    if found is None:
        raise Unauthenticated("token_unknown", "the token is unknown or was revoked", _SIGN_IN_AGAIN)
    token, person = found
    if token.kind is TokenKind.CLAIM:
        raise Unauthenticated("token_is_claim", "a claim token is good for one thing: keystead user claim", "redeem it")
    return _standing(services, token, person, now)


def _standing(services: Services, token: Token, person: Person | None, now: int) -> tuple[Token, Person]:
    if token.expires <= now:
        raise Unauthenticated("token_expired", f"the token ended {(now - token.expires) // 1_000} seconds ago", _SIGN_IN_AGAIN)
    if person is None:
        raise Unauthenticated("token_revoked", "the token's person is gone", _SIGN_IN_AGAIN)
    day = now - now % DAY
    if token.last_used != day:
        with suppress(Unavailable), services.db.write() as tx:  # once a day; a day that is not stored is no reason to refuse
            tx.sign_in.used(token.id, day)
    return token, person


def _principal(services: Services, bearer: str) -> Principal:
    check_size(bearer)
    if not looks_like_jwt(bearer):
        token, person = stored_token(services, bearer)
        return _as(services, person, token.scopes, token.id)
    digest = digest_of(bearer)
    own, provided = services.sign_in.own.get(digest), services.sign_in.provided.get(digest)
    if own is not None:
        return _by_own(services, own)
    if provided is not None and _stands(services, provided) and (principal := _by_provided(services, provided)):
        return principal
    unverified = read_jwt(bearer)
    if unverified.issuer == services.home.issuer:
        own = _checked_own(services, bearer, unverified)
        services.sign_in.own.put(digest, own)
        return _by_own(services, own)
    provided = _checked_provided(services, bearer, unverified)
    services.sign_in.provided.put(digest, provided)
    principal = _by_provided(services, provided)
    if principal is None:  # between two looks
        raise Unauthenticated("token_provider_changed", "the tenant has just changed whose tokens it takes", _SIGN_IN_AGAIN)
    return principal


def _as(services: Services, person: Person, scopes: frozenset[str] | None, token_id: str) -> Principal:
    return Principal(person.upn, person.tenant_id, person.roles, dev=services.dev is not None, scopes=scopes, token_id=token_id)


# -- our own access tokens ------------------------------------------------------------------------------------------------------------


def _checked_own(services: Services, bearer: str, token: Unverified) -> KnownOwn:
    from keystead.services.signing import check_signature  # noqa: PLC0415 - the library behind it is loaded by those who need it

    check_own_header(token)
    check_signature(services, bearer, token.key_id)
    now, leeway = services.clock.now(), services.settings.clock_leeway
    return KnownOwn(check_own_claims(token.claims, issuer=services.home.issuer, now=now, leeway=leeway), token.key_id)


def _by_own(services: Services, known: KnownOwn) -> Principal:
    """One query: the stored token it was made from, that one's person, and that the signing key was not discarded."""
    claims, now = known.claims, services.clock.now()
    _require_time(claims.expires, now, services.settings.clock_leeway)
    with services.db.read() as tx:
        found = tx.sign_in.by_id(claims.token_id, known.key_id)
    if found is None or found[1] is None or found[1].id != claims.person_id or found[0].tenant_id != claims.tenant_id:
        raise Unauthenticated("token_revoked", "the token it was made from, its person or its signing key is gone", _SIGN_IN_AGAIN)
    token, person = _standing(services, found[0], found[1], now)
    return _as(services, person, token.scopes if claims.scopes is None else claims.scopes, token.id)


def _require_time(expires: int, now: int, leeway: int) -> None:
    if expires + leeway <= now:
        raise Unauthenticated("token_expired", f"the token ended {(now - expires) // 1_000} seconds ago", _SIGN_IN_AGAIN)


# -- tokens of a tenant's own provider -------------------------------------------------------------------------------------------------


def _checked_provided(services: Services, bearer: str, token: Unverified) -> KnownProvided:
    """Everything is checked that can be before the issuer is asked for a key."""
    from keystead.services.jws import verify_provided  # noqa: PLC0415 - as above

    if not services.issuers.allows(token.issuer):
        raise Unauthenticated(
            "token_issuer_unknown", "tokens of this issuer are not taken here", "the operator lists issuers in keystead.toml, [sign_in]"
        )
    check_provider_header(token)
    with services.db.read() as tx:
        candidates = tx.sign_in.providers(token.issuer, audiences(token.claims))
    if not candidates:
        raise Unauthenticated(
            "token_audience_wrong",
            "no tenant takes tokens of this issuer for this audience",
            "keystead sign-in-provider show tells what is taken",
        )
    key = services.issuers.key(token.issuer, token.key_id)
    if key is None:
        raise Unauthenticated("token_key_unknown", "the issuer publishes no key of this id", _SIGN_IN_AGAIN)
    verify_provided(bearer, token.algorithm, key)
    now, leeway = services.clock.now(), services.settings.clock_leeway
    provider, claims = check_provided_claims(token.claims, candidates, now=now, leeway=leeway)
    return KnownProvided(claims, provider, key)


def _stands(services: Services, known: KnownProvided) -> bool:
    """Whether the issuer still publishes the key, as far as is known; otherwise the token is looked at anew."""
    return services.issuers.allows(known.provider.issuer) and services.issuers.key(known.provider.issuer, known.key.id) == known.key


def _by_provided(services: Services, known: KnownProvided) -> Principal | None:
    """One query: the tenant's registration as it is now, and the person. Nobody is made by signing in.

    Returns:
        None when the tenant's registration is not the one the token was checked against.
    """
    _require_time(known.claims.expires, services.clock.now(), services.settings.clock_leeway)
    with services.db.read() as tx:
        found = tx.sign_in.provided(known.provider.tenant_id, known.claims.upn)
    if found is None or found[0] != known.provider:
        return None
    if found[1] is None:
        raise Unauthenticated(
            "token_person_unknown", f"the tenant has no person {known.claims.upn}", "its administrator adds people: keystead user add"
        )
    return _as(services, found[1], None, "")


def _counted(client_ip: str, secret: str) -> tuple[str, ...]:
    """What failures are counted by: the address, and the part of a token that is not its secret, hashed.

    Of a signed token that is everything but the signature: guessing at somebody's token slows nobody down who has another.
    """
    claimed = secret.rpartition(".")[0] if looks_like_jwt(secret) else secret[:PREFIX_CHARACTERS]
    prefix = "token " + digest_of(claimed).hex()[:32]
    return (prefix, "address " + group_of(client_ip)) if client_ip else (prefix,)
