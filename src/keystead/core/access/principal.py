"""Who is asking."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """Roles of a tenant's people, then those of the provider's."""

    GLOBAL_ADMIN = "global-admin"
    EXCHANGE_ADMIN = "exchange-admin"
    COMPLIANCE_ADMIN = "compliance-admin"
    KEY_VAULT_ADMINISTRATOR = "key-vault-administrator"
    LOCKBOX_APPROVER = "lockbox-approver"
    AUDIT_READER = "audit-reader"
    USER = "user"
    OPERATOR = "operator"
    SUPPORT_ENGINEER = "support-engineer"
    SUPPORT_MANAGER = "support-manager"


PROVIDER_ROLES = frozenset({Role.OPERATOR, Role.SUPPORT_ENGINEER, Role.SUPPORT_MANAGER})
TENANT_ROLES = frozenset(Role) - PROVIDER_ROLES


@dataclass(frozen=True, slots=True)
class Principal:
    """An authenticated person, or nobody.

    Attributes:
        upn: the person's UPN; empty for nobody.
        tenant_id: the tenant the person belongs to; None for the provider's people and for nobody.
        roles: empty for nobody.
        dev: the home was made with `init --dev`, where the operator may configure tenants (never read content).
        scopes: what a program's token cuts the roles down to: names of routes and patterns; None for no cut.
        token_id: id of the stored token the principal came with; empty for those who came otherwise.
    """

    upn: str
    tenant_id: str | None
    roles: frozenset[Role]
    dev: bool = False
    scopes: frozenset[str] | None = None
    token_id: str = ""

    @property
    def is_provider(self) -> bool:
        """One of the provider's people."""
        return not self.roles.isdisjoint(PROVIDER_ROLES)


NOBODY = Principal("", None, frozenset())
