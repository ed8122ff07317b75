"""Removing for good what is past its retention (R-050). It is gone for every caller before this runs; here its rows go."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keystead.core.vaults.access import PrincipalKind, VaultPrincipal
from keystead.core.vaults.recovery import Existence
from keystead.vault.lookup import key_state, vault_state
from keystead.vault.record import Act, add_record
from keystead.vault.services import Identity

if TYPE_CHECKING:
    from keystead.ports.vault_store import Key, Vault, VaultWriter
    from keystead.vault.services import VaultServices

_RETENTION = VaultPrincipal(PrincipalKind.SERVICE, "retention")
"""Who the log names for what no caller asked for."""
_NOTE = "retention ended"


def purge_expired(vault: VaultServices) -> int:
    """Remove every vault and key whose retention ended; returns how many. One transaction, with a log record for each."""
    now = vault.clock.now()
    removed = 0
    with vault.store.writing() as tx:
        for found in tx.all_vaults():
            if vault_state(found, now) is Existence.GONE:
                remove_vault(vault, tx, found)
                removed += 1
                continue
            for version in tx.deleted_keys(found.tenant_id, found.id):
                if key_state(version, found, now) is Existence.GONE:
                    remove_key(vault, tx, found, version.key)
                    removed += 1
    return removed


def remove_vault(vault: VaultServices, tx: VaultWriter, found: Vault) -> None:
    """Remove a vault that is past its retention."""
    tx.remove_vault(found)
    add_record(vault, tx, Identity(_RETENTION, found.tenant_id), Act("VaultPurge", found.name, note=_NOTE))
    vault.loaded.forget(found.id)


def remove_key(vault: VaultServices, tx: VaultWriter, found: Vault, key: Key) -> None:
    """Remove a key that is past its retention."""
    tx.remove_key(key)
    add_record(vault, tx, Identity(_RETENTION, found.tenant_id), Act("KeyPurge", found.name, key.name, note=_NOTE))
    vault.loaded.forget(found.id)
