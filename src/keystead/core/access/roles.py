"""Which role may call which route: the one table (R-008 to R-010, R-194; docs/roles.md is made from it).

Deny by default: a route that is not listed here can be called by nobody, and a test fails. Ownership (a person's own mailbox) and the
access policies of key vaults are decided by the use case, which knows the thing; the roles here only open the door to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from keystead.core.access.principal import PROVIDER_ROLES, TENANT_ROLES, Principal, Role
from keystead.core.access.tokens import covers
from keystead.core.errors import Forbidden, Unauthenticated

if TYPE_CHECKING:
    from collections.abc import Mapping

ANYBODY: frozenset[Role] = frozenset(Role)
_SIGNED_IN = PROVIDER_ROLES | TENANT_ROLES
_PEOPLE = TENANT_ROLES
_OPERATOR = frozenset({Role.OPERATOR})
_GLOBAL = frozenset({Role.GLOBAL_ADMIN})
_EXCHANGE = frozenset({Role.GLOBAL_ADMIN, Role.EXCHANGE_ADMIN})
_DIRECTORY = frozenset({Role.GLOBAL_ADMIN, Role.EXCHANGE_ADMIN, Role.COMPLIANCE_ADMIN, Role.KEY_VAULT_ADMINISTRATOR, Role.AUDIT_READER})
_AUDIT = frozenset({Role.GLOBAL_ADMIN, Role.COMPLIANCE_ADMIN, Role.AUDIT_READER})
_PROGRAM_MAKERS = _EXCHANGE | {Role.COMPLIANCE_ADMIN, Role.KEY_VAULT_ADMINISTRATOR}
_VAULT_MAKERS = frozenset({Role.GLOBAL_ADMIN, Role.KEY_VAULT_ADMINISTRATOR})

ALLOWED: Mapping[str, frozenset[Role]] = {
    # the installation
    "home.show": PROVIDER_ROLES,
    "settings.get": _OPERATOR,
    "settings.set": _OPERATOR,
    "keystore.rotate": _OPERATOR,
    "keystore.roll": _OPERATOR,
    "keystore.roll-files": _OPERATOR,
    "dev.clock.advance": _SIGNED_IN,  # a clock that is moved on ends tokens and what may still be recovered: not for whoever finds the port
    "dev.fault": _SIGNED_IN,
    # tenants and people
    "tenant.create": _OPERATOR,
    "tenant.list": _OPERATOR,
    "tenant.show": _PEOPLE,
    "tenant.onboard": _GLOBAL,
    "user.add": _GLOBAL,
    "user.list": _DIRECTORY,
    "user.remove": _GLOBAL,
    "user.claim": ANYBODY,
    "user.reissue-claim": _GLOBAL,
    "tenant.reissue-claim": _OPERATOR,
    # tokens: what is done with a token in hand is open to anybody, for the token says who that is
    "token.exchange": ANYBODY,
    "token.renew": ANYBODY,
    "token.create": _PROGRAM_MAKERS,
    "token.list": _PEOPLE,
    "token.revoke": _PEOPLE,
    "provider-token.create": _OPERATOR,
    "provider-token.list": _OPERATOR,
    "provider-token.revoke": _OPERATOR,
    "sign-in-provider.set": _GLOBAL,
    "sign-in-provider.show": _DIRECTORY,
    "sign-in-provider.remove": _GLOBAL,
    "signing-key.list": _OPERATOR,
    "signing-key.rotate": _OPERATOR,
    "signing-key.publish": ANYBODY,
    # key vaults: what a person may do with a vault is that vault's access policy
    "subscription.create": _GLOBAL,
    "subscription.protect": _GLOBAL,
    "subscription.cancel": _GLOBAL,
    "subscription.list": _DIRECTORY,
    "vault.create": _VAULT_MAKERS,
    **{
        f"vault.{verb}": _PEOPLE
        for verb in (
            "list",
            "show",
            "delete",
            "recover",
            "purge",
            "deleted",
            "log",
            "access.grant",
            "access.revoke",
            "access.list",
            *("network.show", "network.allow", "network.remove", "network.default", "protect", "fail-over"),
        )
    },
    **{
        f"key.{verb}": _PEOPLE
        for verb in (
            *("create", "import", "list", "show", "versions", "enable", "disable", "update", "rotate"),
            *("backup", "restore", "delete", "deleted", "recover", "purge"),
            *("rotation-policy.show", "rotation-policy.set"),
        )
    },
    # programs that use key vaults over the network: giving one a secret is giving away what it may do
    "vault.client.create": _VAULT_MAKERS,
    "vault.client.list": _DIRECTORY,
    "vault.client.show": _DIRECTORY,
    "vault.client.delete": _VAULT_MAKERS,
    "vault.client.secret.add": _VAULT_MAKERS,
    "vault.client.secret.remove": _VAULT_MAKERS,
    # data encryption policies
    **{f"policy.{verb}": _EXCHANGE for verb in ("validate", "create", "refresh", "set", "enable", "disable")},
    "policy.list": _DIRECTORY,
    "policy.show": _DIRECTORY,
    "policy.health": _DIRECTORY,
    "policy.key-uses": _DIRECTORY,
    # mailboxes
    "mailbox.create": _EXCHANGE,
    "mailbox.list": _DIRECTORY,
    "mailbox.assign": _EXCHANGE,
    "mailbox.unassign": _EXCHANGE,
    "mailbox.delete": _EXCHANGE,
    "mailbox.delegate": _PEOPLE,
    "mailbox.move-status": _PEOPLE,
    "mailbox.statistics": _PEOPLE,
    "mailbox.import": _PEOPLE,
    "mailbox.import-item": _PEOPLE,
    "mailbox.items": _PEOPLE,
    "mailbox.read": _PEOPLE,
    "mailbox.delete-item": _PEOPLE,
    "mailbox.search": _PEOPLE,
    # the policies of files
    **{f"files.{verb}": _GLOBAL for verb in ("register", "roll", "recover", "revert")},
    "files.status": _DIRECTORY,
    "files.health": _DIRECTORY,
    # sites and files: whose content somebody may reach is decided by the site's owner, members and whether it is shared
    "site.create": _PEOPLE,  # a personal drive of one's own; other sites take an administrator
    "site.list": _PEOPLE,
    "site.set": _EXCHANGE,
    "site.delete": _EXCHANGE,
    **{
        f"site.{verb}": _PEOPLE
        for verb in (
            *("status", "unlock", "member.add", "member.remove", "member.list", "ls", "put", "put-batch", "get", "get-batch"),
            *("mkdir", "mv", "rm", "versions", "restore-version"),
        )
    },
    # watching
    "audit.search": _AUDIT,
    "alerts.list": _DIRECTORY,
    "audit.installation": _OPERATOR,
    "alerts.everywhere": _OPERATOR,
    "alerts.hooks": _OPERATOR,
    "alerts.test": _OPERATOR,
    "job.list": _DIRECTORY,
    "job.show": _DIRECTORY,
    "job.cancel": _EXCHANGE,
}

CONTENT = frozenset(
    {
        *("mailbox.items", "mailbox.read", "mailbox.search", "mailbox.delete-item", "mailbox.delegate"),
        *("site.ls", "site.get", "site.get-batch", "site.versions", "site.mv", "site.rm", "site.restore-version"),
        *("site.member.add", "site.member.remove"),
    }
)
"""Routes that show, find or change content: the provider's people never pass, not even in dev homes (R-193)."""


def allow(principal: Principal, route: str, tenant_id: str) -> None:
    """Let the principal through to a route, or raise.

    Args:
        principal: who asks; NOBODY for a caller without a token.
        route: name of the route.
        tenant_id: the tenant the call is about; empty where it is about none.

    Raises:
        Unauthenticated: nobody asks for something that is not open to anybody.
        Forbidden: another tenant's data, a role that does not have this right, or a token whose scopes do not name the route.
    """
    allowed = ALLOWED.get(route, frozenset())
    if allowed is ANYBODY:
        return
    if not principal.roles:
        raise Unauthenticated(
            "not_signed_in",
            f"nobody is signed in, and {route} is not open to everybody",
            "give a token with --token-file, or --as UPN in a dev home",
        )
    if principal.scopes is not None and not covers(principal.scopes, route):  # first: a scope cuts down whatever roles would give
        raise Forbidden(
            "scope_missing",
            f"the token of {principal.upn} that was shown is not for {route}",
            f"its scopes are {', '.join(sorted(principal.scopes))}; make one with the scope it needs, where there is one",
        )
    if principal.is_provider:
        if Role.OPERATOR in principal.roles and tenant_id and principal.dev and route not in CONTENT:
            return
        if tenant_id and route in CONTENT:
            raise Forbidden(
                "provider_never_reads",
                f"{principal.upn} belongs to the provider, whose people never see a tenant's content",
                "ask a person of the tenant",
            )
    elif tenant_id and principal.tenant_id != tenant_id:
        raise Forbidden("another_tenant", f"{principal.upn} belongs to another tenant", "sign in as a person of the tenant")
    if principal.roles.isdisjoint(allowed):
        names = ", ".join(sorted(allowed)) or "nobody"
        raise Forbidden("role_missing", f"{principal.upn} may not call {route}", f"one of these roles may: {names}")
