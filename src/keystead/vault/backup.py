"""Backup and restore of a key (R-058 to R-065): one sealed blob with all versions, for the same subscription and geography only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keystead.api.types.base import utc
from keystead.api.types.vaults import KeyBackupView
from keystead.core.errors import Conflict, Forbidden, PreconditionFailed
from keystead.core.ids import new_id
from keystead.core.vaults.access import Permission
from keystead.core.vaults.backup import MAX_BLOB, MAX_VERSIONS, BackedUpVersion, KeyBackup, close, open_backup
from keystead.core.vaults.limits import CHANGE, LOOK
from keystead.core.vaults.regions import GEOGRAPHY
from keystead.core.vaults.usage import KeyOperation, KeyType
from keystead.ports.vault_store import Key, KeyVersion
from keystead.vault.guard import admitted
from keystead.vault.keys import free_key_name, seal_private
from keystead.vault.loaded import open_private
from keystead.vault.lookup import find_key, find_vault, need, need_working_subscription
from keystead.vault.material import load, public_bytes
from keystead.vault.record import Act, journaled, prepared_and_recorded
from keystead.vault.services import identity_of
from keystead.vault.views import KeyShown, key_uri

if TYPE_CHECKING:
    from keystead.api.types.vaults import KeyNamed, KeyRestore, KeyView
    from keystead.ports.vault_store import Vault, VaultReader, VaultWriter
    from keystead.vault.services import Caller, Identity, VaultServices


def backup(vault: VaultServices, caller: Caller, request: KeyNamed) -> KeyBackupView:
    """A sealed blob that holds a key with all versions and metadata, its name included (R-058).

    Raises:
        NotFound: no such vault or key.
        Forbidden: the caller does not hold backup.
        PreconditionFailed: `too_many_versions` (R-063); `backup_too_large`: its tags and policies are beyond measure.
    """
    identity = identity_of(caller)
    now = vault.clock.now()

    def call() -> tuple[KeyBackupView, str]:
        # In a reading transaction: opening hundreds of keys must not hold up whoever wants to write.
        with vault.store.reading() as tx:
            found = find_vault(tx, identity, request.vault, now)
            need(tx, identity, found, Permission.BACKUP)
            admitted(vault, identity, found, LOOK)
            current = find_key(tx, found, request.name, None, now)
            versions = tx.key_versions(found.tenant_id, found.id, request.name)
            if len(versions) - 1 > MAX_VERSIONS:
                raise PreconditionFailed(
                    "too_many_versions",
                    f"the key {request.name} has more than {MAX_VERSIONS} past versions",
                    "create a key under a new name",
                )
            content = KeyBackup(
                tenant_id=found.tenant_id,
                subscription_id=found.subscription.id,
                geography=GEOGRAPHY[found.region],
                name=current.key.name,
                created=current.key.created,
                versions=[_backed_up(vault, tx, found, version) for version in versions],
                rotation_policy=current.key.rotation_policy,
            )
        blob = close(content, vault.seal, vault.random)
        if len(blob) > MAX_BLOB:
            raise PreconditionFailed(
                "backup_too_large",
                f"the key {request.name} with its tags and policies takes {len(blob)} bytes; {MAX_BLOB} are the most that can be restored",
                "take tags from its older versions, or create a key under a new name",
            )
        made = KeyBackupView(
            id=key_uri(found, current, vault.settings.uri_suffix),
            vault=found.name,
            name=current.key.name,
            suggested_name=f"{found.name}-{current.key.name}-Backup-{utc(now):%Y%m%d}.backup",
            blob=blob,
        )
        return made, made.id

    return journaled(vault, identity, Act("KeyBackup", request.vault, request.name), call)


def restore(vault: VaultServices, caller: Caller, request: KeyRestore) -> KeyView:
    """Bring a key back from a backup with every version, its metadata and its name (R-061).

    Raises:
        InvalidRequest: `backup_invalid`.
        IntegrityFailure: `backup_damaged` (R-059).
        NotFound: no such vault.
        Forbidden: the caller does not hold restore; `backup_another_tenant`.
        PreconditionFailed: `backup_another_subscription`, `backup_another_geography` (R-062), `subscription_cancelled`.
        Conflict: a key of that name exists, or is deleted and can be recovered (R-060, R-049).
    """
    return restored(vault, identity_of(caller), request.vault, request.blob).view


def restored(vault: VaultServices, identity: Identity, vault_name: str, blob: bytes) -> KeyShown:
    """The same for any identity. The blob is opened before the transaction that stores it: hundreds of keys take their time."""
    now = vault.clock.now()

    def present(tx: VaultReader) -> Vault:
        found = find_vault(tx, identity, vault_name, now)
        need(tx, identity, found, Permission.RESTORE)
        need_working_subscription(found.subscription)
        return found

    def prepare() -> tuple[KeyBackup, list[bytes]]:
        with vault.store.reading() as tx:
            found = present(tx)
        admitted(vault, identity, found, CHANGE)
        content = open_backup(blob, vault.seal)
        _need_home(content, found)
        return content, [public_bytes(load(saved.private())) for saved in content.versions]

    def change(tx: VaultWriter, prepared: tuple[KeyBackup, list[bytes]]) -> KeyShown:
        content, public = prepared
        found = present(tx)
        _need_home(content, found)
        if free_key_name(vault, tx, found, content.name, now) is not None:
            raise Conflict(
                "key_already_exists",
                f"there already is a key {content.name} in the vault {found.name}",
                "restore into another vault of the subscription",
            )
        key = Key(new_id(vault.random), found.tenant_id, found.id, content.name, content.created, None, content.rotation_policy)
        tx.add_key(key)
        versions = [_restored(key, place, *both) for place, both in enumerate(zip(content.versions, public, strict=True), 1)]
        for version, saved in zip(versions, content.versions, strict=True):
            tx.add_key_version(version, seal_private(vault, found, key.name, version.version, saved.private()))
        return KeyShown(found, versions[-1], now, vault.settings.uri_suffix)

    return prepared_and_recorded(vault, identity, Act("KeyRestore", vault_name), prepare, change)


def _backed_up(vault: VaultServices, tx: VaultReader, found: Vault, version: KeyVersion) -> BackedUpVersion:
    return BackedUpVersion(
        version=version.version,
        kty=version.kty,
        size=version.size,
        curve=version.curve,
        key_ops=sorted(version.key_ops),
        enabled=version.enabled,
        not_before=version.not_before,
        expires=version.expires,
        created=version.created,
        updated=version.updated,
        tags=version.tags,
        pkcs8=BackedUpVersion.encode_private(open_private(vault, tx, found, version)),
        exportable=version.exportable,
        release_policy=version.release_policy,
    )


def _need_home(content: KeyBackup, found: Vault) -> None:
    """Let a backup through that belongs here."""
    if content.tenant_id != found.tenant_id:
        raise Forbidden("backup_another_tenant", "the backup was made in another tenant", "restore it there")
    if content.subscription_id != found.subscription.id:
        raise PreconditionFailed(
            "backup_another_subscription",
            f"the backup was made in another subscription than {found.subscription.name}",
            "restore it into a vault of the subscription it was made in",
        )
    geography = GEOGRAPHY[found.region]
    if content.geography != geography:
        raise PreconditionFailed(
            "backup_another_geography",
            f"the backup was made in {content.geography}, the vault {found.name} lies in {geography}",
            f"use a vault in {content.geography}",
        )


def _restored(key: Key, ordinal: int, saved: BackedUpVersion, public_key: bytes) -> KeyVersion:
    return KeyVersion(
        key=key,
        version=saved.version,
        ordinal=ordinal,
        kty=KeyType(saved.kty),
        size=saved.size,
        curve=saved.curve,
        key_ops=frozenset(KeyOperation(name) for name in saved.key_ops),
        enabled=saved.enabled,
        not_before=saved.not_before,
        expires=saved.expires,
        created=saved.created,
        updated=saved.updated,
        tags=saved.tags,
        public_key=public_key,
        exportable=saved.exportable,
        release_policy=saved.release_policy,
    )
