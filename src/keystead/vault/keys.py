"""Keys: create, import, look at, change, rotate, delete, recover, purge. No call returns private material (R-025).

Each use case is one transaction with its log record. New key material is made before the transaction starts, after a first look at whether
the caller may ask for it: making an RSA key takes up to seconds, and the write lock must not be held for that long.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from keystead.api.types.base import millis
from keystead.api.types.vaults import Purged
from keystead.core.errors import Conflict, InvalidRequest, PreconditionFailed
from keystead.core.ids import new_id
from keystead.core.vaults.access import Permission
from keystead.core.vaults.limits import CHANGE, LOOK, bringing, making
from keystead.core.vaults.recovery import Existence, existence
from keystead.core.vaults.release import check_change, check_new
from keystead.core.vaults.rotation import expiry_of_new, read
from keystead.core.vaults.seal import private_key_context
from keystead.core.vaults.usage import KeyKind, KeyOperation, key_kind, key_name, key_operations, key_tags
from keystead.ports.vault_store import Key, KeyVersion
from keystead.vault.guard import admitted, admitted_import
from keystead.vault.lookup import find_deleted_key, find_key, find_vault, key_state, need, need_purgeable, need_working_subscription
from keystead.vault.material import generate, load_import, private_bytes, public_bytes
from keystead.vault.record import Act, journaled, prepared_and_recorded, recorded
from keystead.vault.retention import remove_key
from keystead.vault.services import identity_of
from keystead.vault.vaults import page_limit
from keystead.vault.views import KeyShown

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from datetime import datetime

    import msgspec

    from keystead.api.types.vaults import KeyCreate, KeyImport, KeyList, KeyNamed, KeyUpdate, KeyVersionNamed, KeyView, VaultNamed
    from keystead.core.vaults.limits import CallKind
    from keystead.ports.vault_store import Vault, VaultReader, VaultWriter
    from keystead.vault.material import PrivateKey
    from keystead.vault.services import Caller, Identity, VaultServices


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a caller chooses about a new version. Times in milliseconds; `ops` None: everything its type can do.

    `release_policy` is as `core.vaults.release` writes it; empty: none.
    """

    ops: Sequence[str] | None = None
    enabled: bool = True
    not_before: int | None = None
    expires: int | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    exportable: bool = False
    release_policy: str = ""


@dataclass(frozen=True, slots=True)
class Change:
    """What a caller changes about a version; None leaves a thing as it is. An expiry date is changed, never removed (R-031)."""

    ops: Sequence[str] | None = None
    enabled: bool | None = None
    not_before: int | None = None
    expires: int | None = None
    tags: Mapping[str, str] | None = None
    release_policy: str | None = None

    @property
    def note(self) -> str:
        """For the log: what is changed, not to what."""
        return ", ".join(name for name in self.__slots__ if getattr(self, name) is not None)


@dataclass(frozen=True, slots=True)
class _Attributes:
    """The same, checked against the kind of key. Times in milliseconds."""

    key_ops: frozenset[KeyOperation]
    enabled: bool
    not_before: int | None
    expires: int | None
    tags: dict[str, str]
    exportable: bool = False
    release_policy: str = ""


@dataclass(frozen=True, slots=True)
class _Fresh:
    """Key material that is not stored yet, and what is to be stored with it."""

    kind: KeyKind
    attributes: _Attributes
    private: PrivateKey = field(repr=False)


def create(vault: VaultServices, caller: Caller, request: KeyCreate) -> KeyView:
    """Create a key, or a new current version of one of that name (R-020, R-023, R-024).

    Raises:
        InvalidRequest: a name, type, size, operation, date or tag that is not one.
        NotFound: no such vault.
        Forbidden: the caller does not hold create.
        PreconditionFailed: `sku_not_supported`: an HSM key in a standard vault (R-018); `subscription_cancelled`.
        Conflict: a deleted key holds the name (R-049).
    """
    return created(
        vault,
        identity_of(caller),
        request.vault,
        request.name,
        lambda: key_kind(request.kty, request.size, request.curve),
        _wanted(request),
    ).view


def created(
    vault: VaultServices, identity: Identity, vault_name: str, name: str, choose: Callable[[], KeyKind], wanted: Wanted
) -> KeyShown:
    """The same for any identity; `choose` says of which kind, or raises `InvalidRequest`, which the log then tells of."""

    def prepare() -> _Fresh:
        key_name(name)
        kind = choose()
        attributes = _attributes(wanted, kind)
        _admit_new(vault, identity, vault_name, kind)
        return _Fresh(kind, attributes, generate(kind))

    return _added(vault, identity, Act("KeyCreate", vault_name, name), Permission.CREATE, prepare)


def import_(vault: VaultServices, caller: Caller, request: KeyImport) -> KeyView:
    """Import a private key as a new key or a new current version (R-023).

    Raises:
        InvalidRequest: not a key that can be imported; a name, operation, date or tag that is not one.
        NotFound: no such vault.
        Forbidden: the caller does not hold import.
        PreconditionFailed: `sku_not_supported`, `subscription_cancelled`.
        Conflict: a deleted key holds the name (R-049).
    """
    return imported(
        vault,
        identity_of(caller),
        request.vault,
        request.name,
        lambda: load_import(request.pem, hsm=request.hsm),
        _wanted(request),
        bringing("", hsm=request.hsm, bits=0),
    ).view


def imported(
    vault: VaultServices,
    identity: Identity,
    vault_name: str,
    name: str,
    bring: Callable[[], tuple[PrivateKey, KeyKind]],
    wanted: Wanted,
    cost: tuple[CallKind, int],
) -> KeyShown:
    """The same for any identity; `bring` gives the key and its kind, or raises `InvalidRequest`; `cost` is what `limits.bringing` says.

    Who may not import, or does so too often, is refused before the key is looked at: its primes are tested, and a third of a second of
    RSA-4096 is one in which nobody else is answered.
    """

    def prepare() -> _Fresh:
        key_name(name)
        with vault.store.reading() as tx:
            found = find_vault(tx, identity, vault_name, vault.clock.now())
            need(tx, identity, found, Permission.IMPORT)
        admitted_import(vault, identity, found, *cost)
        private, kind = bring()
        attributes = _attributes(wanted, kind)
        return _Fresh(kind, attributes, private)

    return _added(vault, identity, Act("KeyImport", vault_name, name), Permission.IMPORT, prepare)


def rotate(vault: VaultServices, caller: Caller, request: KeyNamed) -> KeyView:
    """Make a new current version of the same type and size, with the same operations and tags, enabled (R-034).

    It has no dates, but the expiry that the key's rotation policy gives new versions.

    Raises:
        NotFound: no such vault or key.
        Forbidden: the caller does not hold rotate.
        PreconditionFailed: `subscription_cancelled`.
    """
    return rotated(vault, identity_of(caller), request.vault, request.name).view


def rotated(vault: VaultServices, identity: Identity, vault_name: str, name: str) -> KeyShown:
    """The same for any identity."""

    def present(tx: VaultReader) -> tuple[Vault, KeyVersion]:
        now = vault.clock.now()
        found = find_vault(tx, identity, vault_name, now)
        need(tx, identity, found, Permission.ROTATE)
        need_working_subscription(found.subscription)
        return found, find_key(tx, found, name, None, now)

    def prepare() -> tuple[KeyVersion, PrivateKey]:
        with vault.store.reading() as tx:
            found, current = present(tx)
        kind = KeyKind(current.kty, current.size, current.curve)
        admitted(vault, identity, found, making(kind))
        return current, generate(kind)

    def change(tx: VaultWriter, prepared: tuple[KeyVersion, PrivateKey]) -> KeyShown:
        old, private = prepared
        found, current = present(tx)
        if current.ordinal != old.ordinal:
            raise Conflict(
                "key_changed", f"another call added a version to the key {name} at the same time", "look at the key and try again"
            )
        return _shown(vault, found, add_rotated(vault, tx, found, current, private), vault.clock.now())

    return prepared_and_recorded(vault, identity, Act("KeyRotate", vault_name, name), prepare, change)


def add_rotated(vault: VaultServices, tx: VaultWriter, found: Vault, current: KeyVersion, private: PrivateKey) -> KeyVersion:
    """Make a key of the same kind the new current version, enabled; it ends when the key's rotation policy says (R-035), or never."""
    attributes = _Attributes(
        current.key_ops,
        enabled=True,
        not_before=None,
        expires=expiry_of_new(read(current.key.rotation_policy), vault.clock.now()),
        tags=current.tags,
        exportable=current.exportable,
        release_policy=current.release_policy,
    )
    fresh = _Fresh(KeyKind(current.kty, current.size, current.curve), attributes, private)
    return _add_version(vault, tx, found, current.key.name, fresh)


def show(vault: VaultServices, caller: Caller, request: KeyVersionNamed) -> KeyView:
    """One version of a key, the current one where none is named: its public half and attributes, never the private one.

    Raises:
        NotFound: no such vault, key or version.
        Forbidden: the caller does not hold get.
    """
    return get_key(vault, identity_of(caller), request.vault, request.name, request.version)


def get_key(vault: VaultServices, identity: Identity, vault_name: str, name: str, version: str | None) -> KeyView:
    """The same for any identity."""
    return got(vault, identity, vault_name, name, version).view


def got(vault: VaultServices, identity: Identity, vault_name: str, name: str, version: str | None) -> KeyShown:
    """The same as it was found."""
    return _look(
        vault,
        identity,
        Act("KeyGet", vault_name, name, version),
        Permission.GET,
        lambda tx, found, now: find_key(tx, found, name, version, now),
    )


def got_deleted(vault: VaultServices, identity: Identity, vault_name: str, name: str) -> KeyShown:
    """A deleted key that can be recovered.

    Raises:
        NotFound: no such vault or deleted key.
        Forbidden: the caller does not hold get.
    """
    return _look(
        vault,
        identity,
        Act("KeyGetDeleted", vault_name, name),
        Permission.GET,
        lambda tx, found, now: find_deleted_key(tx, found, name, now),
    )


def list_all(vault: VaultServices, caller: Caller, request: KeyList) -> list[KeyView]:
    """The current versions of the keys of a vault that are not deleted, by name.

    Raises:
        InvalidRequest: `limit_invalid`.
        NotFound: no such vault.
        Forbidden: the caller does not hold list.
    """
    return [shown.view for shown in listed(vault, identity_of(caller), request.vault, request.after, request.limit)]


def listed(vault: VaultServices, identity: Identity, vault_name: str, after: str, limit: int) -> list[KeyShown]:
    """The same for any identity."""
    return _list(
        vault,
        identity,
        Act("KeyList", vault_name),
        lambda tx, found, _: tx.keys(found.tenant_id, found.id, after, page_limit(vault, limit)),
    )


def list_versions(vault: VaultServices, caller: Caller, request: KeyNamed) -> list[KeyView]:
    """All versions of a key, the oldest first.

    Raises:
        NotFound: no such vault or key.
        Forbidden: the caller does not hold list.
    """
    return [shown.view for shown in listed_versions(vault, identity_of(caller), request.vault, request.name)]


def listed_versions(vault: VaultServices, identity: Identity, vault_name: str, name: str, *, missing_ok: bool = False) -> list[KeyShown]:
    """The same for any identity; `missing_ok`: a key that is not there, or is deleted, has no versions."""

    def versions(tx: VaultReader, found: Vault, now: int) -> list[KeyVersion]:
        present = tx.key_version(found.tenant_id, found.id, name, None)
        if missing_ok and (present is None or key_state(present, found, now) is not Existence.ACTIVE):
            return []
        find_key(tx, found, name, None, now)
        return tx.key_versions(found.tenant_id, found.id, name)

    return _list(vault, identity, Act("KeyListVersions", vault_name, name), versions)


def list_deleted(vault: VaultServices, caller: Caller, request: VaultNamed) -> list[KeyView]:
    """The deleted keys of a vault that can be recovered, by name.

    Raises:
        NotFound: no such vault.
        Forbidden: the caller does not hold list.
    """
    return [shown.view for shown in listed_deleted(vault, identity_of(caller), request.vault)]


def listed_deleted(vault: VaultServices, identity: Identity, vault_name: str) -> list[KeyShown]:
    """The same for any identity."""

    def deleted(tx: VaultReader, found: Vault, now: int) -> list[KeyVersion]:
        return [version for version in tx.deleted_keys(found.tenant_id, found.id) if key_state(version, found, now) is Existence.DELETED]

    return _list(vault, identity, Act("KeyListDeleted", vault_name), deleted)


def enable(vault: VaultServices, caller: Caller, request: KeyVersionNamed) -> KeyView:
    """Enable a version of a key, or all of them where none is named.

    Raises:
        NotFound: no such vault, key or version.
        Forbidden: the caller does not hold update.
    """
    return _set_enabled(vault, caller, request, enabled=True)


def disable(vault: VaultServices, caller: Caller, request: KeyVersionNamed) -> KeyView:
    """Disable a version of a key, or all of them where none is named: no cryptographic operation answers any more (R-029).

    Disabling the key means every version: who takes a key away must not be surprised by an older version that still opens data.

    Raises:
        NotFound: no such vault, key or version.
        Forbidden: the caller does not hold update.
    """
    return _set_enabled(vault, caller, request, enabled=False)


def update(vault: VaultServices, caller: Caller, request: KeyUpdate) -> KeyView:
    """Change operations, activation date, expiry date or tags of a version, the current one where none is named.

    Raises:
        InvalidRequest: an operation, date or tag that is not one.
        NotFound: no such vault, key or version.
        Forbidden: the caller does not hold update.
        PreconditionFailed: `expiry_cannot_be_removed` (R-031).
    """
    removed = [name for name, value in (("not_before", request.not_before), ("expires", request.expires)) if value is None]
    change = Change(
        ops=request.ops, not_before=_millis_or_none(request.not_before), expires=_millis_or_none(request.expires), tags=request.tags
    )
    return changed(vault, identity_of(caller), request.vault, request.name, request.version, change, removed).view


def changed(
    vault: VaultServices,
    identity: Identity,
    vault_name: str,
    name: str,
    version: str | None,
    change: Change,
    removed: Collection[str] = (),
) -> KeyShown:
    """The same for any identity; `removed` names dates to take away: an activation date can be, an expiry date cannot (R-031)."""

    def apply(present: KeyVersion) -> KeyVersion:
        if change.ops is not None:
            present = replace(present, key_ops=key_operations(change.ops, present.kty))
        if change.enabled is not None:
            present = replace(present, enabled=change.enabled)
        if change.not_before is not None or "not_before" in removed:
            present = replace(present, not_before=change.not_before)
        if change.expires is not None or "expires" in removed:
            present = replace(present, expires=_expiry(present, change.expires))
        if change.tags is not None:
            present = replace(present, tags=key_tags(change.tags))
        if change.release_policy is not None:
            check_change(present.release_policy, change.release_policy, exportable=present.exportable)
            present = replace(present, release_policy=change.release_policy)
        _check_dates(present.not_before, present.expires)
        return present

    def wanted(tx: VaultReader, found: Vault, now: int) -> list[KeyVersion]:
        return [find_key(tx, found, name, version, now)]

    return _update(vault, identity, Act("KeyUpdate", vault_name, name, version, change.note), wanted, apply)


def delete(vault: VaultServices, caller: Caller, request: KeyNamed) -> KeyView:
    """Delete a key softly with all versions: until its retention ends it can be listed, recovered and purged, nothing else (R-048).

    Raises:
        NotFound: no such vault or key.
        Forbidden: the caller does not hold delete.
    """
    return deleted(vault, identity_of(caller), request.vault, request.name).view


def deleted(vault: VaultServices, identity: Identity, vault_name: str, name: str) -> KeyShown:
    """The same for any identity."""
    now = vault.clock.now()

    def change(tx: VaultWriter) -> KeyShown:
        found = find_vault(tx, identity, vault_name, now)
        need(tx, identity, found, Permission.DELETE)
        admitted(vault, identity, found, CHANGE)
        version = find_key(tx, found, name, None, now)
        tx.set_key_deleted(version.key, now)
        return _shown(vault, found, replace(version, key=replace(version.key, deleted=now)), now)

    return recorded(vault, identity, Act("KeyDelete", vault_name, name), change)


def recover(vault: VaultServices, caller: Caller, request: KeyNamed) -> KeyView:
    """Bring a deleted key back with all versions (R-047).

    Raises:
        NotFound: no such vault or deleted key.
        Forbidden: the caller does not hold recover.
    """
    return recovered(vault, identity_of(caller), request.vault, request.name).view


def recovered(vault: VaultServices, identity: Identity, vault_name: str, name: str) -> KeyShown:
    """The same for any identity."""
    now = vault.clock.now()

    def change(tx: VaultWriter) -> KeyShown:
        found = find_vault(tx, identity, vault_name, now)
        need(tx, identity, found, Permission.RECOVER)
        admitted(vault, identity, found, CHANGE)
        version = find_deleted_key(tx, found, name, now)
        tx.set_key_deleted(version.key, None)
        return _shown(vault, found, replace(version, key=replace(version.key, deleted=None)), now)

    return recorded(vault, identity, Act("KeyRecover", vault_name, name), change)


def purge(vault: VaultServices, caller: Caller, request: KeyNamed) -> Purged:
    """Destroy a deleted key for good, with all versions (R-051).

    Raises:
        NotFound: no such vault or deleted key.
        Forbidden: the caller does not hold purge.
        PreconditionFailed: `purge_protected` (R-052, R-056).
    """
    identity = identity_of(caller)
    now = vault.clock.now()

    def change(tx: VaultWriter) -> Purged:
        found = find_vault(tx, identity, request.vault, now)
        need(tx, identity, found, Permission.PURGE)
        admitted(vault, identity, found, CHANGE)
        version = find_deleted_key(tx, found, request.name, now)
        need_purgeable(found, f"the key {version.key.name} in the vault {found.name}", version.key.deleted or now, now)
        tx.remove_key(version.key)
        vault.loaded.forget(found.id)
        return Purged(id=version.key.id, name=version.key.name)

    return recorded(vault, identity, Act("KeyPurge", request.vault, request.name), change)


def free_key_name(services: VaultServices, tx: VaultWriter, vault: Vault, name: str, now: int) -> Key | None:
    """The active key of a name; what is past its retention gives way.

    Raises:
        Conflict: `key_deleted_but_recoverable` with inner code `ObjectIsDeletedButRecoverable` (R-049).
    """
    key = tx.key(vault.tenant_id, vault.id, name)
    state = Existence.GONE if key is None else existence(key.deleted, vault.retention_days, now)
    if key is not None and state is Existence.GONE:
        remove_key(services, tx, vault, key)
        return None
    if state is Existence.DELETED:
        raise Conflict(
            "key_deleted_but_recoverable",
            f"the name {name} is held by a deleted key of the vault {vault.name}",
            f"bring it back with keystead key recover {vault.name} {name}, or purge it",
            inner_code="ObjectIsDeletedButRecoverable",
        )
    return key


def seal_private(vault: VaultServices, found: Vault, name: str, version: str, pkcs8: bytes) -> bytes:
    """A private key as the store keeps it, bound to tenant, vault, key name and version."""
    return vault.seal.close_private(pkcs8, private_key_context(found.tenant_id, found.name, name, version), vault.random)


def _need_room(tx: VaultReader, identity: Identity, name: str, *, permission: Permission, kind: KeyKind, now: int) -> Vault:
    """The vault, when the caller may add a key of that kind to it."""
    found = find_vault(tx, identity, name, now)
    need(tx, identity, found, permission)
    need_working_subscription(found.subscription)
    if kind.kty.is_hsm and found.sku != "premium":
        raise PreconditionFailed(
            "sku_not_supported",
            f"the vault {found.name} is a standard vault, which holds no keys of type {kind.kty}",
            "create a vault with --sku premium",
        )
    return found


def _add_version(vault: VaultServices, tx: VaultWriter, found: Vault, name: str, fresh: _Fresh) -> KeyVersion:
    now, kind, attributes, private = vault.clock.now(), fresh.kind, fresh.attributes, fresh.private
    key = free_key_name(vault, tx, found, name, now)
    ordinal = 1
    if key is None:
        key = Key(new_id(vault.random), found.tenant_id, found.id, name, now, None)
        tx.add_key(key)
    else:
        current = tx.key_version(found.tenant_id, found.id, name, None)
        ordinal = 1 if current is None else current.ordinal + 1
    version = KeyVersion(
        key=key,
        version=vault.random(16).hex(),
        ordinal=ordinal,
        kty=kind.kty,
        size=kind.size,
        curve=kind.curve,
        key_ops=attributes.key_ops,
        enabled=attributes.enabled,
        not_before=attributes.not_before,
        expires=attributes.expires,
        created=now,
        updated=now,
        tags=attributes.tags,
        public_key=public_bytes(private),
        exportable=attributes.exportable,
        release_policy=attributes.release_policy,
    )
    tx.add_key_version(version, seal_private(vault, found, key.name, version.version, private_bytes(private)))
    return version


def _set_enabled(vault: VaultServices, caller: Caller, request: KeyVersionNamed, *, enabled: bool) -> KeyView:
    def wanted(tx: VaultReader, found: Vault, now: int) -> list[KeyVersion]:
        named = find_key(tx, found, request.name, request.version, now)
        return [named] if request.version else tx.key_versions(found.tenant_id, found.id, request.name)

    act = Act("KeyUpdate", request.vault, request.name, request.version, "enabled" if enabled else "disabled")
    return _update(vault, identity_of(caller), act, wanted, lambda version: replace(version, enabled=enabled)).view


def _update(
    vault: VaultServices,
    identity: Identity,
    act: Act,
    wanted: Callable[[VaultReader, Vault, int], list[KeyVersion]],
    changed: Callable[[KeyVersion], KeyVersion],
) -> KeyShown:
    """Change the wanted versions, oldest first, and show the last of them."""
    now = vault.clock.now()

    def change(tx: VaultWriter) -> KeyShown:
        found = find_vault(tx, identity, act.vault, now)
        need(tx, identity, found, Permission.UPDATE)
        admitted(vault, identity, found, CHANGE)
        versions = [replace(changed(version), updated=now) for version in wanted(tx, found, now)]
        tx.put_key_versions(versions)
        return _shown(vault, found, versions[-1], now)

    return recorded(vault, identity, act, change)


def _look(
    vault: VaultServices, identity: Identity, act: Act, permission: Permission, find: Callable[[VaultReader, Vault, int], KeyVersion]
) -> KeyShown:
    """Nothing is changed, so nobody who writes waits: also not for callers who are refused again and again."""
    now = vault.clock.now()

    def call() -> tuple[KeyShown, str]:
        with vault.store.reading() as tx:
            found = find_vault(tx, identity, act.vault, now)
            need(tx, identity, found, permission)
            admitted(vault, identity, found, LOOK)
            shown = _shown(vault, found, find(tx, found, now), now)
        return shown, shown.id

    return journaled(vault, identity, act, call)


def _list(
    vault: VaultServices, identity: Identity, act: Act, find: Callable[[VaultReader, Vault, int], list[KeyVersion]]
) -> list[KeyShown]:
    """Likewise."""
    now = vault.clock.now()

    def call() -> tuple[list[KeyShown], str]:
        with vault.store.reading() as tx:
            found = find_vault(tx, identity, act.vault, now)
            need(tx, identity, found, Permission.LIST)
            admitted(vault, identity, found, LOOK)
            versions = find(tx, found, now)
        return [_shown(vault, found, version, now) for version in versions], ""

    return journaled(vault, identity, act, call)


def _shown(vault: VaultServices, found: Vault, version: KeyVersion, now: int) -> KeyShown:
    return KeyShown(found, version, now, vault.settings.uri_suffix)


def _admit_new(vault: VaultServices, identity: Identity, vault_name: str, kind: KeyKind) -> None:
    """A first look at whether the caller may create a key of that kind, before one is made."""
    with vault.store.reading() as tx:
        found = _need_room(tx, identity, vault_name, permission=Permission.CREATE, kind=kind, now=vault.clock.now())
    admitted(vault, identity, found, making(kind))


def _added(vault: VaultServices, identity: Identity, act: Act, permission: Permission, prepare: Callable[[], _Fresh]) -> KeyShown:
    """Store what `prepare` made as the key's current version, if the caller still may."""

    def change(tx: VaultWriter, fresh: _Fresh) -> KeyShown:
        now = vault.clock.now()
        found = _need_room(tx, identity, act.vault, permission=permission, kind=fresh.kind, now=now)
        return _shown(vault, found, _add_version(vault, tx, found, act.key, fresh), now)

    return prepared_and_recorded(vault, identity, act, prepare, change)


def _wanted(request: KeyCreate | KeyImport) -> Wanted:
    return Wanted(request.ops, request.enabled, _millis_or_none(request.not_before), _millis_or_none(request.expires), request.tags)


def _attributes(wanted: Wanted, kind: KeyKind) -> _Attributes:
    _check_dates(wanted.not_before, wanted.expires)
    check_new(kind.kty, wanted.release_policy, exportable=wanted.exportable)
    return _Attributes(
        key_operations(wanted.ops, kind.kty),
        wanted.enabled,
        wanted.not_before,
        wanted.expires,
        key_tags(wanted.tags),
        wanted.exportable,
        wanted.release_policy,
    )


def _millis_or_none(time: datetime | msgspec.UnsetType | None) -> int | None:
    return millis(time) if time else None


def _check_dates(not_before: int | None, expires: int | None) -> None:
    if not_before is not None and expires is not None and expires <= not_before:
        raise InvalidRequest("dates_invalid", "the expiry date is not after the activation date", "give a later expiry date")


def _expiry(version: KeyVersion, time: int | None) -> int | None:
    if time is None and version.expires is not None:
        raise PreconditionFailed(
            "expiry_cannot_be_removed", f"the expiry date of the key {version.key.name} can be changed, not removed", "set it to 9999-12-31"
        )
    return time
