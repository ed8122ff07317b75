"""Stored tokens: making, listing, revoking, renewing them, and exchanging them for access tokens (docs/spec/tokens.md)."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from keystead.api.types.base import utc, utc_or_none
from keystead.api.types.tenants import Done, TokenView
from keystead.api.types.tokens import AccessTokenView, StoredTokenView
from keystead.core.access.principal import Principal, Role
from keystead.core.access.roles import ALLOWED
from keystead.core.access.tokens import Token, TokenKind, checked_scopes, narrowed
from keystead.core.errors import Forbidden, InvalidRequest, NotFound, Unauthenticated
from keystead.core.ids import display_name, is_id, new_id, user_principal_name
from keystead.ports.clock import HOUR, MINUTE
from keystead.services.auditing import record
from keystead.services.sign_in import attempted, digest_of, stored_token

if TYPE_CHECKING:
    from keystead.api.call import Call
    from keystead.api.types import tokens as t
    from keystead.api.types.base import Empty
    from keystead.core.tenancy import Person
    from keystead.ports.tx import Tx
    from keystead.services.context import Services

TOKEN_PREFIX = "ks_"  # noqa: S105 - a prefix that secret scanners can look for, not a secret
RENEWED_GRACE = 1 * HOUR
"""How long a token that was renewed is still good: an answer that was lost locks nobody out."""


@dataclass(frozen=True, slots=True)
class Issued:
    """A fresh token, and the secret that is shown once."""

    token: Token
    secret: str = field(repr=False)

    def view(self) -> TokenView:
        """As it is shown, once."""
        return TokenView(id=self.token.id, upn=self.token.upn, token=self.secret, expires=utc(self.token.expires))


def issue(
    services: Services,
    tx: Tx,
    kind: TokenKind,
    upn: str,
    tenant_id: str | None,
    *,
    name: str = "",
    scopes: frozenset[str] | None = None,
    lifetime: int = 0,
) -> Issued:
    """A fresh token of 256 random bits; only its hash is stored.

    Args:
        services: the service.
        tx: the transaction of the act it belongs to.
        kind: what it is for.
        upn: whose it is.
        tenant_id: the person's tenant; None for the provider's people.
        name: of a service token's program.
        scopes: of a service token.
        lifetime: milliseconds; 0 for what is usual for the kind.
    """
    usual = services.settings.claim_token_lifetime if kind is TokenKind.CLAIM else services.settings.token_lifetime
    secret = TOKEN_PREFIX + base64.urlsafe_b64encode(services.random(32)).decode().rstrip("=")
    now = services.clock.now()
    token = Token(digest_of(secret), new_id(services.random), kind, upn, tenant_id, now, now + (lifetime or usual), name, scopes)
    tx.sign_in.insert(token)
    return Issued(token, secret)


def create_token(services: Services, call: Call, request: t.CreateToken) -> TokenView:
    """Make a token for a program: it may do what its maker may at the time of each call, as far as its scopes go."""
    if call.principal.tenant_id != (call.tenant_id or None):
        raise Forbidden(
            "token_of_another_tenant",
            f"a program's token acts as who makes it, and {call.principal.upn} does not belong to the tenant",
            "sign in as an administrator of the tenant",
        )
    name, scopes = display_name(request.name, "program"), checked_scopes(request.scopes, ALLOWED)
    lifetime = services.settings.token_lifetime if request.lifetime is None else request.lifetime
    if not MINUTE <= lifetime <= services.settings.service_token_lifetime:
        raise InvalidRequest(
            "token_lifetime",
            f"a program's token lives from a minute to {services.settings.service_token_lifetime // HOUR} hours, not {lifetime} ms",
            "give --lifetime 90d, for example",
        )
    with services.db.write() as tx:
        issued = issue(
            services, tx, TokenKind.SERVICE, call.principal.upn, call.principal.tenant_id, name=name, scopes=scopes, lifetime=lifetime
        )
        parameters = (("Name", name), ("Scopes", " ".join(sorted(scopes))), ("Expires", utc(issued.token.expires).isoformat()))
        record(services, tx, call, issued.token.id, parameters)
    return issued.view()


def list_tokens(services: Services, call: Call, request: t.ListTokens) -> list[StoredTokenView]:
    """Tokens without their secrets: one's own; for a global administrator and the operator everybody's."""
    upn = user_principal_name(request.upn) if request.upn else ""
    if not _manages(call):
        if upn not in {"", call.principal.upn}:
            raise Forbidden("tokens_of_others", f"{call.principal.upn} sees no tokens of others", "a global administrator does")
        upn = call.principal.upn
    with services.db.read() as tx:
        found = tx.sign_in.page(call.tenant_id or None, upn=upn)
    now = services.clock.now()
    return [_view(token) for token in found if token.expires > now or request.expired]


def revoke_token(services: Services, call: Call, request: t.NameToken) -> Done:
    """End a token and everything made from it, from the next call on, in every process."""
    with services.db.write() as tx:
        token = tx.sign_in.get(call.tenant_id or None, request.id.lower()) if is_id(request.id) else None
        if token is None or not (_manages(call) or token.upn == call.principal.upn):
            raise NotFound("token_not_found", f"there is no token {request.id[:64]}", "keystead token list shows them")
        tx.sign_in.remove(token.id)
        record(services, tx, call, token.id, (("Upn", token.upn), ("Kind", token.kind), ("Name", token.name)))
    return Done(id=token.id)


def exchange(services: Services, call: Call, request: t.ExchangeToken) -> AccessTokenView:
    """Exchange a stored token for a signed one that lives minutes, for as much or for less than the stored one is for."""
    from keystead.services.signing import sign_access_token  # noqa: PLC0415 - the library behind it is loaded by those who need it

    with attempted(services, call.client_ip, request.token):
        token, person = stored_token(services, request.token)
    asked = checked_scopes(request.scopes, ALLOWED) if request.scopes else frozenset()
    scopes = narrowed(token.scopes, asked)
    now = services.clock.now()
    expires = min(now + services.settings.access_token_lifetime, token.expires)
    return AccessTokenView(
        access_token=sign_access_token(services, token, person, scopes, now, expires),
        expires_in=max(0, expires - now) // 1_000,
        expires=utc(expires),
        scopes=None if scopes is None else sorted(scopes),
    )


def renew(services: Services, call: Call, request: t.RenewToken) -> TokenView:
    """A fresh sign-in token for one that is still good and ends soon after: so a person who comes back in time never needs a new claim."""
    with attempted(services, call.client_ip, request.token):
        token, person = stored_token(services, request.token)
        if token.kind is not TokenKind.SIGN_IN:
            raise Unauthenticated(
                "token_not_renewable", f"the token is a {token.kind} token, which is not renewed", "make another: keystead token create"
            )
    with services.db.write() as tx:
        if tx.sign_in.get(token.tenant_id, token.id) is None:  # revoked while we looked
            raise Unauthenticated("token_unknown", "the token is unknown or was revoked", "sign in again")
        issued = issue(services, tx, TokenKind.SIGN_IN, person.upn, person.tenant_id)
        tx.sign_in.shorten(token.id, services.clock.now() + RENEWED_GRACE)
        record(services, tx, _as_person(call, person), issued.token.id, (("Upn", person.upn), ("Replaces", token.id)))
    return issued.view()


def rotate_signing_key(services: Services, call: Call, request: t.RotateSigningKey) -> t.SigningKeyView:
    """Sign with a fresh key from now on; with `discard` every access token made before is void at once."""
    from keystead.services.signing import rotate  # noqa: PLC0415 - as above

    return rotate(services, call, discard=request.discard)


def list_signing_keys(services: Services, call: Call, request: Empty) -> list[t.SigningKeyView]:
    """The keys in use, newest first: the first signs, the others verify until they end."""
    from keystead.services.signing import views  # noqa: PLC0415 - as above

    return views(services)


def publish_signing_keys(services: Services, call: Call, request: Empty) -> t.JwksView:
    """The public keys, for whoever checks our access tokens (RFC 7517)."""
    from keystead.services.signing import published  # noqa: PLC0415 - as above

    return published(services)


def _as_person(call: Call, person: Person) -> Call:
    """The call, by whom its token names: the route itself is open to anybody."""
    return replace(call, principal=Principal(person.upn, person.tenant_id, person.roles), tenant_id=person.tenant_id or "")


def _manages(call: Call) -> bool:
    return not call.principal.roles.isdisjoint({Role.GLOBAL_ADMIN, Role.OPERATOR})


def _view(token: Token) -> StoredTokenView:
    return StoredTokenView(
        id=token.id,
        kind=token.kind.value,
        upn=token.upn,
        name=token.name,
        scopes=None if token.scopes is None else sorted(token.scopes),
        created=utc(token.created),
        expires=utc(token.expires),
        last_used=utc_or_none(token.last_used),
    )
