"""Access policies of vaults: who holds which key permission (R-036, R-039, R-040). A change takes effect on the next call (R-042)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from keystead.core.errors import InvalidRequest, PreconditionFailed
from keystead.core.vaults.access import (
    APPLICATION_IDS,
    Held,
    PrincipalKind,
    VaultPrincipal,
    application,
    client,
    key_roles,
    permissions,
    person,
)
from keystead.ports.vault_store import AccessEntry
from keystead.vault.lookup import find_vault, need_contributor
from keystead.vault.record import Act, recorded
from keystead.vault.services import identity_of
from keystead.vault.vaults import need_sight
from keystead.vault.views import access_view

if TYPE_CHECKING:
    from collections.abc import Callable

    from keystead.api.types.vaults import AccessGrant, AccessRevoke, AccessView, VaultNamed
    from keystead.ports.vault_store import Vault, VaultReader, VaultWriter
    from keystead.vault.services import Caller, Identity, VaultServices


def grant(vault: VaultServices, caller: Caller, request: AccessGrant) -> AccessView:
    """Add key permissions to what a principal holds.

    Raises:
        InvalidRequest: an unknown principal, permission or role, or nothing to grant.
        PreconditionFailed: `vault_access_model`: permissions in a vault of the role-based model, or the reverse.
        NotFound: no such vault.
        Forbidden: the caller may not change the vault's access policy.
    """

    def added(found: Vault, present: Held) -> Held:
        if not request.permissions and not request.roles and not request.contributor:
            raise InvalidRequest(
                "permission_unknown", "no permission to grant", "name some with --permissions, such as get,wrapKey,unwrapKey"
            )
        _need_model(found, request.permissions, request.roles)
        return Held(
            permissions=present.permissions | permissions(request.permissions),
            contributor=present.contributor or request.contributor,
            roles=present.roles | key_roles(request.roles),
        )

    return _change(vault, caller, request, added, f"granted {','.join([*request.permissions, *request.roles])}")


def revoke(vault: VaultServices, caller: Caller, request: AccessRevoke) -> AccessView:
    """Take key permissions from a principal, or all it holds in one call (R-040).

    Raises:
        InvalidRequest: an unknown principal or permission.
        NotFound: no such vault.
        Forbidden: the caller may not change the vault's access policy.
    """
    named = [*(request.permissions or []), *(request.roles or [])]

    def less(_found: Vault, present: Held) -> Held:
        if request.permissions is None and request.roles is None:
            return Held()
        gone, gone_roles = permissions(request.permissions or []), key_roles(request.roles or [])
        return replace(present, permissions=present.permissions - gone, roles=present.roles - gone_roles)

    return _change(vault, caller, request, less, f"revoked {','.join(named) or 'everything'}")


def list_all(vault: VaultServices, caller: Caller, request: VaultNamed) -> list[AccessView]:
    """Every principal of a vault with its key permissions (R-039).

    Raises:
        NotFound: no such vault.
        Forbidden: the caller may not see it.
    """
    identity = identity_of(caller)
    now = vault.clock.now()

    def change(tx: VaultWriter) -> list[AccessView]:
        found = find_vault(tx, identity, request.vault, now)
        need_sight(tx, identity, found, request.vault)
        return [_view(tx, found, entry) for entry in tx.access(found.tenant_id, found.id)]

    return recorded(vault, identity, Act("VaultGet", request.vault, note="access policy"), change)


def _change(
    vault: VaultServices, caller: Caller, request: AccessGrant | AccessRevoke, change_held: Callable[[Vault, Held], Held], note: str
) -> AccessView:
    identity = identity_of(caller)
    now = vault.clock.now()

    def change(tx: VaultWriter) -> AccessView:
        principal = _principal(tx, identity, request)
        found = find_vault(tx, identity, request.vault, now)
        need_contributor(tx, identity, found)
        entry = AccessEntry(principal, change_held(found, tx.held(found.tenant_id, found.id, principal)))
        tx.put_access(found.tenant_id, found.id, entry)
        return _view(tx, found, entry)

    return recorded(
        vault, identity, Act("VaultPatch", request.vault, note=f"access policy: {note}, {request.upn or request.principal}"), change
    )


def _need_model(found: Vault, permissions: list[str], roles: list[str]) -> None:
    """A vault knows permission lists or roles, never both: nobody has to look in two places to know who may do what."""
    if found.rbac and permissions:
        raise PreconditionFailed(
            "vault_access_model", f"the vault {found.name} gives permissions by role", "grant a role, such as crypto-user"
        )
    if roles and not found.rbac:
        raise PreconditionFailed(
            "vault_access_model",
            f"the vault {found.name} has permission lists, not roles",
            "grant permissions, or create a vault with --rbac",
        )


def _principal(tx: VaultReader, identity: Identity, request: AccessGrant | AccessRevoke) -> VaultPrincipal:
    """Whom a request names: a person, one of the service's applications, or a client of the tenant."""
    if request.upn is not None and request.principal is None:
        return person(request.upn)
    if request.principal is None or request.upn is not None:
        raise InvalidRequest(
            "principal_missing",
            "name exactly one principal",
            "give --upn UPN for a person, or --principal for an application (mail, files, tenant) or a client",
        )
    if "@" in request.principal:
        return person(request.principal)
    if request.principal.lower() in _APPLICATIONS:
        return application(request.principal)
    found = tx.client(identity.tenant_id, request.principal)
    if found is None:
        raise InvalidRequest(
            "principal_unknown",
            f"{request.principal[:128]!r} is neither an application nor a client of the tenant",
            f"use one of {', '.join(APPLICATION_IDS)}, --upn for a person, or a client: keystead vault client list",
        )
    return client(found.id)


_APPLICATIONS = frozenset(APPLICATION_IDS) | frozenset(APPLICATION_IDS.values())


def _view(tx: VaultReader, found: Vault, entry: AccessEntry) -> AccessView:
    """One line of an access policy, with the name a client has now."""
    if entry.principal.kind is not PrincipalKind.CLIENT:
        return access_view(found, entry)
    named = tx.client(found.tenant_id, entry.principal.name)
    return access_view(found, entry, "" if named is None else named.name)
