"""The OpenID Connect provider of a tenant: registered by its global administrators, within what the operator allows."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from keystead.api.types.base import utc
from keystead.api.types.tenants import Done
from keystead.api.types.tokens import SignInProviderView
from keystead.core.access.tokens import SignInProvider
from keystead.core.errors import InvalidRequest, NotFound, PreconditionFailed
from keystead.services.auditing import record

if TYPE_CHECKING:
    from keystead.api.call import Call
    from keystead.api.types import tokens as t
    from keystead.api.types.base import Empty
    from keystead.services.context import Services

_TEXT = re.compile(r"[\x21-\x7e]+")
_CLAIM = re.compile(r"[A-Za-z0-9_.:/-]{1,64}")
MOST_ISSUER, MOST_AUDIENCE, MOST_VALUE = 512, 256, 256
"""Characters."""


def set_provider(services: Services, call: Call, request: t.SetSignInProvider) -> SignInProviderView:
    """Take tokens of an issuer, for an audience, from the tenant's people; in place of what was taken before. Nothing is sent to it yet."""
    for name, text, most in (("issuer", request.issuer, MOST_ISSUER), ("audience", request.audience, MOST_AUDIENCE)):
        if not _TEXT.fullmatch(text) or len(text) > most:
            raise InvalidRequest("sign_in_provider_invalid", f"the {name} is 1 to {most} printable characters without spaces", "")
    if not services.issuers.allows(request.issuer):
        raise PreconditionFailed(
            "sign_in_issuer_not_allowed",
            f"the operator does not allow the issuer {request.issuer}",
            "ask the operator to list it in keystead.toml, [sign_in] issuers, exactly as its tokens spell it",
        )
    if not _CLAIM.fullmatch(request.upn_claim):
        raise InvalidRequest("sign_in_provider_invalid", "the claim with the UPN has no such name", "preferred_username or upn is usual")
    if bool(request.required_claim) != bool(request.required_value) or (
        request.required_claim and not _CLAIM.fullmatch(request.required_claim)
    ):
        raise InvalidRequest("sign_in_provider_invalid", "a required claim has a name and a value", "give both, or none")
    if len(request.required_value) > MOST_VALUE:
        raise InvalidRequest("sign_in_provider_invalid", f"a required value has at most {MOST_VALUE} characters", "")
    provider = SignInProvider(
        tenant_id=call.tenant_id,
        issuer=request.issuer,
        audience=request.audience,
        upn_claim=request.upn_claim,
        required_claim=request.required_claim,
        required_value=request.required_value,
        created=services.clock.now(),
    )
    with services.db.write() as tx:
        tx.sign_in.put_provider(provider)
        parameters = (
            ("Issuer", provider.issuer),
            ("Audience", provider.audience),
            ("UpnClaim", provider.upn_claim),
            ("RequiredClaim", provider.required_claim),
            ("RequiredValue", provider.required_value),
        )
        record(services, tx, call, call.tenant_id, parameters)
    return _view(provider)


def show_provider(services: Services, call: Call, request: Empty) -> SignInProviderView:
    """The tenant's provider."""
    with services.db.read() as tx:
        found = tx.sign_in.provider(call.tenant_id)
    if found is None:
        raise _none()
    return _view(found)


def remove_provider(services: Services, call: Call, request: Empty) -> Done:
    """Take no tokens of a provider any more, from the next call on."""
    with services.db.write() as tx:
        if not tx.sign_in.remove_provider(call.tenant_id):
            raise _none()
        record(services, tx, call, call.tenant_id)
    return Done(id=call.tenant_id)


def _none() -> NotFound:
    return NotFound("sign_in_provider_not_found", "the tenant has no sign-in provider", "keystead sign-in-provider set registers one")


def _view(provider: SignInProvider) -> SignInProviderView:
    return SignInProviderView(
        id=provider.tenant_id,
        issuer=provider.issuer,
        audience=provider.audience,
        upn_claim=provider.upn_claim,
        required_claim=provider.required_claim,
        required_value=provider.required_value,
        created=utc(provider.created),
    )
