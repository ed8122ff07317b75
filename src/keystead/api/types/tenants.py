"""Tenants, people, tokens."""

from datetime import datetime
from typing import Literal

from keystead.api.types.base import Request, Response

RoleName = Literal[
    "global-admin", "exchange-admin", "compliance-admin", "key-vault-administrator", "lockbox-approver", "audit-reader", "user"
]


class CreateTenant(Request, frozen=True):
    """`geo`: at least one; more make a multi-geo tenant. The operator hands the claim token to the tenant's first admin."""

    name: str
    domain: str
    geo: list[str]


class TenantView(Response, frozen=True):
    """One tenant. `claim_token` is shown once, at creation, outside dev homes."""

    id: str
    name: str
    domain: str
    geos: list[str]
    created: datetime
    claim_token: str | None = None
    onboarded: list[str] = []


class ShowTenant(Request, frozen=True):
    pass


class OfficerInput(Request, frozen=True):
    """`certificate`: PEM, empty where none is given."""

    name: str
    certificate: str = ""


class OnboardTenant(Request, frozen=True):
    """`subscriptions`: two names or ids. Without officers the caller is recorded as the officer."""

    workload: Literal["mail", "files"]
    subscriptions: list[str]
    officers: list[OfficerInput] = []


class OnboardingView(Response, frozen=True):
    tenant_id: str
    workload: str
    subscription_ids: list[str]
    officers: list[str]
    completed: datetime
    warnings: list[str] = []


class AddUser(Request, frozen=True):
    upn: str
    roles: list[RoleName]


class UserView(Response, frozen=True):
    """One person. `claim_token` is shown once, when the person is added, outside dev homes."""

    id: str
    upn: str
    roles: list[str]
    created: datetime
    claim_token: str | None = None


class ListUsers(Request, frozen=True):
    pass


class RemoveUser(Request, frozen=True):
    upn: str


class ClaimToken(Request, frozen=True):
    """`upn`: who the claimant is; for a tenant's first admin a name of the claimant's choice in the tenant's domain."""

    claim_token: str
    upn: str


class ReissueClaim(Request, frozen=True):
    upn: str


class ReissueTenantClaim(Request, frozen=True):
    """`tenant`: name, domain or id."""

    tenant: str


class TokenView(Response, frozen=True):
    """A token, shown this once."""

    id: str
    upn: str
    token: str
    expires: datetime


class Done(Response, frozen=True):
    """The answer of an act that makes nothing: id or name of what was acted on, and what people should know about it."""

    id: str
    warnings: list[str] = []
