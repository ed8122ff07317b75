"""Vaults: create, look at, delete, recover, purge, and read their log."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from keystead.api.types.base import millis
from keystead.api.types.vaults import Purged
from keystead.core.access.principal import Role
from keystead.core.errors import Conflict, Forbidden, InvalidRequest
from keystead.core.ids import display_name, new_id
from keystead.core.vaults.access import ADMINISTRATOR_PERMISSIONS, Held, Permission, allow
from keystead.core.vaults.recovery import Existence, retention
from keystead.core.vaults.regions import region_name
from keystead.core.vaults.uri import vault_name
from keystead.ports.vault_store import AccessEntry, LogSearch, Vault
from keystead.vault.lookup import (
    find_deleted_vault,
    find_subscription,
    find_vault,
    held,
    need_contributor,
    need_purgeable,
    need_working_subscription,
    vault_state,
)
from keystead.vault.record import Act, recorded
from keystead.vault.retention import remove_vault
from keystead.vault.services import identity_of
from keystead.vault.views import log_entry, vault_view

if TYPE_CHECKING:
    from keystead.api.types.base import Empty
    from keystead.api.types.vaults import VaultCreate, VaultLogEntry, VaultLogQuery, VaultNamed, VaultView
    from keystead.ports.vault_store import VaultReader, VaultWriter
    from keystead.vault.services import Caller, Identity, VaultServices

SKUS = ("standard", "premium")
MAX_SEARCHED = 320
"""Characters of a text looked for in the log: as many as the longest name of a caller has."""

WATCHING_ROLES = frozenset(Role) - {Role.USER, Role.LOCKBOX_APPROVER}
"""Roles that see the access policy and log of every vault of their tenant."""


def create(vault: VaultServices, caller: Caller, request: VaultCreate) -> VaultView:
    """Create a vault. Its creator may change its access policy and holds R-011's six permissions on it, never purge (R-041).

    In a vault of the role-based model the creator holds no role until one is given (R-044).

    Raises:
        InvalidRequest: a name, region, SKU or retention that is not one.
        NotFound: no such subscription.
        PreconditionFailed: `subscription_cancelled`.
        Conflict: `vault_already_exists`; with inner code `ObjectIsDeletedButRecoverable` where a deleted vault holds the name (R-049).
    """
    identity = identity_of(caller)
    now = vault.clock.now()

    def change(tx: VaultWriter) -> VaultView:
        made = _new_vault(vault, tx, identity, request, now)
        _free_name(vault, tx, made.name, identity.tenant_id, now)
        tx.add_vault(made)
        tx.put_access(
            made.tenant_id,
            made.id,
            AccessEntry(identity.principal, Held(frozenset() if made.rbac else ADMINISTRATOR_PERMISSIONS, contributor=True)),
        )
        return vault_view(made, vault.settings.uri_suffix, now)

    return recorded(vault, identity, Act("VaultPut", request.name), change)


def show(vault: VaultServices, caller: Caller, request: VaultNamed) -> VaultView:
    """One vault.

    Raises:
        NotFound: no such vault in this tenant, or it is deleted.
    """
    identity = identity_of(caller)
    now = vault.clock.now()
    return recorded(
        vault,
        identity,
        Act("VaultGet", request.vault),
        lambda tx: vault_view(find_vault(tx, identity, request.vault, now), vault.settings.uri_suffix, now),
    )


def list_all(vault: VaultServices, caller: Caller, _request: Empty) -> list[VaultView]:
    """The active vaults of the tenant, by name."""
    return _listing(vault, caller, "VaultList", Existence.ACTIVE)


def list_deleted(vault: VaultServices, caller: Caller, _request: Empty) -> list[VaultView]:
    """The deleted vaults of the tenant that can be recovered, by name."""
    return _listing(vault, caller, "VaultListDeleted", Existence.DELETED)


def delete(vault: VaultServices, caller: Caller, request: VaultNamed) -> VaultView:
    """Delete a vault softly: from now on it can only be listed, recovered and purged, and none of its keys answers (R-048).

    Raises:
        NotFound: no such vault.
        Forbidden: the caller may not change the vault.
    """
    identity = identity_of(caller)
    now = vault.clock.now()

    def change(tx: VaultWriter) -> VaultView:
        found = find_vault(tx, identity, request.vault, now)
        need_contributor(tx, identity, found)
        tx.set_vault_deleted(found, now)
        return vault_view(replace(found, deleted=now), vault.settings.uri_suffix, now)

    return recorded(vault, identity, Act("VaultDelete", request.vault), change)


def recover(vault: VaultServices, caller: Caller, request: VaultNamed) -> VaultView:
    """Bring a deleted vault back with its keys and access policy. Roles do not come back, but the one who recovers is its contributor (R-057).

    Raises:
        NotFound: no such deleted vault.
        Forbidden: the caller may not change the vault.
    """
    identity = identity_of(caller)
    now = vault.clock.now()

    def change(tx: VaultWriter) -> VaultView:
        found = find_deleted_vault(tx, identity, request.vault, now)
        need_contributor(tx, identity, found)
        tx.set_vault_deleted(found, None)
        tx.drop_roles(found.tenant_id, found.id)
        remaining = tx.held(found.tenant_id, found.id, identity.principal)
        tx.put_access(found.tenant_id, found.id, AccessEntry(identity.principal, replace(remaining, contributor=True)))
        return vault_view(replace(found, deleted=None), vault.settings.uri_suffix, now)

    return recorded(vault, identity, Act("VaultRecover", request.vault), change)


def purge(vault: VaultServices, caller: Caller, request: VaultNamed) -> Purged:
    """Destroy a deleted vault and its keys for good (R-051).

    Raises:
        NotFound: no such deleted vault.
        Forbidden: the caller may not change the vault, or does not hold purge on it.
        PreconditionFailed: `purge_protected` (R-052, R-056).
    """
    identity = identity_of(caller)
    now = vault.clock.now()

    def change(tx: VaultWriter) -> Purged:
        found = find_deleted_vault(tx, identity, request.vault, now)
        need_contributor(tx, identity, found)
        allow(held(tx, identity, found), Permission.PURGE, identity.principal, found.name)  # from wherever: it is about the vault
        need_purgeable(found, f"the vault {found.name}", found.deleted or now, now)
        tx.remove_vault(found)
        vault.loaded.forget(found.id)
        return Purged(id=found.id, name=found.name)

    return recorded(vault, identity, Act("VaultPurge", request.vault), change)


def log(vault: VaultServices, caller: Caller, request: VaultLogQuery) -> list[VaultLogEntry]:
    """The log of a vault name in this tenant, or what a search finds in it, oldest first; also of a vault that is deleted or gone.

    Raises:
        InvalidRequest: `limit_invalid`, `log_search_invalid`.
        Forbidden: `vault_access_denied`: the caller neither holds anything on the vault nor has a role that watches over all.
    """
    identity = identity_of(caller)

    def change(tx: VaultWriter) -> list[VaultLogEntry]:
        limit = page_limit(vault, request.limit)
        found = tx.vault(identity.tenant_id, request.vault)
        need_sight(tx, identity, found, request.vault)
        wanted = _search(tx, identity.tenant_id, request)
        records = tx.log(identity.tenant_id, request.vault, request.after, limit, wanted)
        names = {client.id: client.name for client in tx.clients(identity.tenant_id)}
        return [log_entry(number, record, names) for number, record in records]

    return recorded(vault, identity, Act("VaultLogList", request.vault), change)


def need_sight(tx: VaultReader, identity: Identity, found: Vault | None, name: str) -> None:
    """Let a person through that may see a vault's access policy and log.

    Raises:
        Forbidden: `vault_access_denied`.
    """
    if not identity.roles.isdisjoint(WATCHING_ROLES) or (found is not None and held(tx, identity, found) != Held()):
        return
    raise Forbidden(
        "vault_access_denied", f"{identity.principal.name} does not hold any permission on the vault {name}", "ask the vault's creator"
    )


def page_limit(vault: VaultServices, limit: int) -> int:
    """A valid size of a page.

    Raises:
        InvalidRequest: `limit_invalid`.
    """
    if not 1 <= limit <= vault.settings.page:
        raise InvalidRequest("limit_invalid", f"{limit} entries is not a page", f"ask for 1 to {vault.settings.page}")
    return limit


def _search(tx: VaultReader, tenant_id: str, request: VaultLogQuery) -> LogSearch:
    """What a caller looks for. A client is found by its name too, whose records carry its id."""
    start, end = (None if time is None else millis(time) for time in (request.start, request.end))
    if start is not None and end is not None and end <= start:
        raise InvalidRequest("log_search_invalid", "the end of the search is not after its start", "give a later --end")
    operation, result, principal = request.operation or "", request.result or "", (request.principal or "").lower()
    if max(map(len, (operation, result, principal))) > MAX_SEARCHED:
        raise InvalidRequest("log_search_invalid", f"a text of more than {MAX_SEARCHED} characters is in no record", "give a shorter one")
    client = tx.client(tenant_id, principal) if principal else None
    return LogSearch(
        operation=operation,
        result=result.capitalize() if result.lower() in {"success", "failure"} else result.lower(),
        principal=principal if client is None else client.id,
        start=start,
        end=end,
    )


def _new_vault(vault: VaultServices, tx: VaultReader, identity: Identity, request: VaultCreate, now: int) -> Vault:
    name, region, days, sku = vault_name(request.name), region_name(request.region), retention(request.retention_days), request.sku.lower()
    if sku not in SKUS:
        raise InvalidRequest("sku_not_supported", f"{request.sku!r} is not a SKU", f"use one of {', '.join(SKUS)}")
    subscription = find_subscription(tx, identity.tenant_id, request.subscription)
    need_working_subscription(subscription)
    group = subscription.name if request.resource_group is None else display_name(request.resource_group, "resource group")
    return Vault(
        id=new_id(vault.random),
        tenant_id=identity.tenant_id,
        name=name,
        subscription=subscription,
        resource_group=group,
        region=region,
        sku=sku,
        rbac=request.rbac,
        purge_protection=request.purge_protection,
        retention_days=days,
        created=now,
        deleted=None,
    )


def _free_name(vault: VaultServices, tx: VaultWriter, name: str, tenant_id: str, now: int) -> None:
    """Make sure nothing holds a vault name; what is past its retention gives way.

    A vault of another tenant gets the same answer whether it is deleted or not: its state is not told to strangers.
    """
    present = tx.vault_of_anyone(name)
    if present is None:
        return
    state = vault_state(present, now)
    if state is Existence.GONE:
        remove_vault(vault, tx, present)
        return
    if state is Existence.DELETED and present.tenant_id == tenant_id:
        raise Conflict(
            "vault_already_exists",
            f"the name {name} is held by a deleted vault",
            f"bring it back with keystead vault recover {name}, or purge it",
            inner_code="ObjectIsDeletedButRecoverable",
        )
    raise Conflict("vault_already_exists", f"the vault name {name} is taken; vault names are globally unique", "choose another name")


def _listing(vault: VaultServices, caller: Caller, operation: str, wanted: Existence) -> list[VaultView]:
    identity = identity_of(caller)
    now = vault.clock.now()
    return recorded(
        vault,
        identity,
        Act(operation),
        lambda tx: [
            vault_view(found, vault.settings.uri_suffix, now)
            for found in tx.vaults(identity.tenant_id)
            if vault_state(found, now) is wanted
        ],
    )
