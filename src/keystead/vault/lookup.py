"""Finding things, and the state they are in; what every use case starts with.

Deadlines are computed here, when read: what is past its retention is not found, whether or not its rows have been removed yet (R-050).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from keystead.api.types.base import utc
from keystead.core.errors import Forbidden, NotFound, PreconditionFailed
from keystead.core.vaults.access import READING_PERMISSIONS, allow, allow_contributor
from keystead.core.vaults.recovery import Existence, RecoveryLevel, existence, recovery_level, scheduled_purge
from keystead.vault.guard import need_address, need_writable

if TYPE_CHECKING:
    from keystead.core.vaults.access import Held, Permission
    from keystead.ports.vault_store import KeyVersion, Subscription, Vault, VaultReader
    from keystead.vault.services import Identity, VaultServices

NOT_REGISTERED = "NotRegistered"
PENDING = "Pending"
REGISTERED = "Registered"


def find_subscription(tx: VaultReader, tenant_id: str, name: str) -> Subscription:
    """A subscription by name or id.

    Raises:
        NotFound: `subscription_not_found`.
    """
    found = tx.subscription(tenant_id, name)
    if found is None:
        raise NotFound("subscription_not_found", f"there is no subscription {name!r}", "see keystead subscription list")
    return found


def protection(subscription: Subscription, now: int) -> str:
    """How far mandatory retention is (R-055)."""
    if subscription.protected_from is None:
        return NOT_REGISTERED
    return REGISTERED if now >= subscription.protected_from else PENDING


def level(vault: Vault, now: int) -> RecoveryLevel:
    """The recovery level of a vault and everything in it. Soft delete is on in every vault and cannot be turned off (R-045)."""
    return recovery_level(
        soft_delete=True,
        purge_protection=vault.purge_protection,
        subscription_protected=protection(vault.subscription, now) == REGISTERED,
        retention_days=vault.retention_days,
    )


def vault_state(vault: Vault, now: int) -> Existence:
    """Whether a vault is there, can be brought back, or is gone."""
    return existence(vault.deleted, vault.retention_days, now)


def find_vault(tx: VaultReader, identity: Identity, name: str, now: int) -> Vault:
    """An active vault of the tenant the call is about.

    Raises:
        NotFound: `vault_not_found`, also for a vault of another tenant; `vault_deleted` while it can be recovered.
        Forbidden: `vault_another_tenant`: an application acts for a tenant that the vault does not belong to.
    """
    vault = tx.vault(identity.tenant_id, name)
    if vault is None and not identity.is_person and tx.vault_of_anyone(name) is not None:
        raise Forbidden(
            "vault_another_tenant",
            f"the vault {name} does not belong to the tenant that {identity.principal.name} acts for",
            "use a vault of that tenant",
        )
    state = Existence.GONE if vault is None else vault_state(vault, now)
    if vault is None or state is Existence.GONE:
        raise NotFound("vault_not_found", f"there is no vault {name!r}", "see keystead vault list")
    if state is Existence.DELETED:
        raise NotFound("vault_deleted", f"the vault {name} is deleted", f"bring it back: keystead vault recover {name}")
    return vault


def find_deleted_vault(tx: VaultReader, identity: Identity, name: str, now: int) -> Vault:
    """A deleted vault that is still within its retention.

    Raises:
        NotFound: `deleted_vault_not_found`.
    """
    vault = tx.vault(identity.tenant_id, name)
    if vault is None or vault_state(vault, now) is not Existence.DELETED:
        raise NotFound("deleted_vault_not_found", f"there is no deleted vault {name!r}", "see keystead vault list")
    return vault


def find_key(tx: VaultReader, vault: Vault, name: str, version: str | None, now: int) -> KeyVersion:
    """A version of an active key; the current one for None (R-022).

    Raises:
        NotFound: `key_not_found`; `key_deleted` while the key can be recovered.
    """
    found = tx.key_version(vault.tenant_id, vault.id, name, version)
    state = Existence.GONE if found is None else key_state(found, vault, now)
    if found is None or state is Existence.GONE:
        which = f"version {version} of the key {name!r}" if version else f"key {name!r}"
        raise NotFound("key_not_found", f"there is no {which} in the vault {vault.name}", f"see keystead key list {vault.name}")
    if state is Existence.DELETED:
        raise NotFound(
            "key_deleted",
            f"the key {name} in the vault {vault.name} is deleted",
            f"bring it back: keystead key recover {vault.name} {name}",
        )
    return found


def find_deleted_key(tx: VaultReader, vault: Vault, name: str, now: int) -> KeyVersion:
    """The current version of a deleted key that is still within its retention.

    Raises:
        NotFound: `deleted_key_not_found`.
    """
    found = tx.key_version(vault.tenant_id, vault.id, name, None)
    if found is None or key_state(found, vault, now) is not Existence.DELETED:
        raise NotFound(
            "deleted_key_not_found", f"there is no deleted key {name!r} in the vault {vault.name}", f"see keystead key list {vault.name}"
        )
    return found


def key_state(version: KeyVersion, vault: Vault, now: int) -> Existence:
    """Whether a key is there, can be brought back, or is gone."""
    return existence(version.key.deleted, vault.retention_days, now)


def held(tx: VaultReader, identity: Identity, vault: Vault) -> Held:
    """What the caller holds on a vault. Who created its subscription is a contributor of every vault in it (requirements 1.2)."""
    found = tx.held(vault.tenant_id, vault.id, identity.principal)
    owner = identity.is_person and identity.principal.name == vault.subscription.created_by
    return replace(found, contributor=True) if owner else found


def need(tx: VaultReader, identity: Identity, vault: Vault, permission: Permission) -> None:
    """Let a caller through that holds a key permission, comes from where the vault may be called, and changes nothing where nothing may change.

    Raises:
        Forbidden: `vault_firewall` (R-043), `vault_access_denied`.
        PreconditionFailed: `vault_read_only` (R-069).
    """
    need_address(identity, vault)
    allow(held(tx, identity, vault), permission, identity.principal, vault.name)
    if permission not in READING_PERMISSIONS:
        need_writable(vault)


def check_permitted(services: VaultServices, identity: Identity, name: str, permission: Permission) -> None:
    """Let a caller through who holds a key permission on a vault: before anything large of the call is read. The use case looks again.

    Raises:
        NotFound: no such vault.
        Forbidden: the caller does not hold it, or calls from where the vault may not be called.
        PreconditionFailed: `vault_read_only`.
    """
    with services.store.reading() as tx:
        need(tx, identity, find_vault(tx, identity, name, services.clock.now()), permission)


def need_contributor(tx: VaultReader, identity: Identity, vault: Vault) -> None:
    """Let a caller through that may change the vault, while it can be changed. From where it comes does not matter.

    Raises:
        Forbidden: `vault_access_denied`.
        PreconditionFailed: `vault_read_only` (R-069).
    """
    allow_contributor(held(tx, identity, vault), identity.principal, vault.name)
    need_writable(vault)


def need_working_subscription(subscription: Subscription) -> None:
    """A cancelled subscription takes its vaults' keys with it: they can be looked at and deleted, not used or added to.

    Raises:
        PreconditionFailed: `subscription_cancelled`.
    """
    if subscription.cancelled:
        raise PreconditionFailed(
            "subscription_cancelled", f"the subscription {subscription.name} is cancelled", "use a vault in another subscription"
        )


def need_purgeable(vault: Vault, what: str, deleted: int, now: int) -> None:
    """Let a purge through (R-052, R-056).

    Raises:
        PreconditionFailed: `purge_protected`, naming the day on which it ends by itself.
    """
    if not level(vault, now).allows_purge:
        end = utc(scheduled_purge(deleted, vault.retention_days)).strftime("%Y-%m-%d %H:%M:%SZ")
        raise PreconditionFailed(
            "purge_protected", f"{what} cannot be purged: its recovery level is {level(vault, now)}", f"it is gone by itself at {end}"
        )
