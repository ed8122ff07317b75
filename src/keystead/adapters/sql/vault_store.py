"""The vault's store in SQL."""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from dataclasses import asdict
from functools import lru_cache
from itertools import chain
from typing import TYPE_CHECKING

from sqlalchemy import and_, bindparam, delete, func, insert, or_, select, tuple_, update
from sqlalchemy import text as sql

from keystead.adapters.sql import vault_schema as tables
from keystead.adapters.sql.engine import glance, is_server, reading, writing
from keystead.adapters.sql.migrate import ensure_current
from keystead.adapters.sql.rows import Lookup, Many, chunks
from keystead.core.vaults.access import Held, KeyRole, Permission, PrincipalKind, VaultPrincipal
from keystead.core.vaults.seal import seal_rotated, sealed_generation
from keystead.core.vaults.usage import KeyOperation, KeyType
from keystead.ports.vault_store import (
    EVERY_RECORD,
    AccessEntry,
    ClientSecret,
    Key,
    KeyVersion,
    LogRecord,
    LogSearch,
    ReleaseKey,
    SealedKey,
    StoredSeal,
    Subscription,
    TokenKey,
    Usable,
    Vault,
    VaultClient,
    WatchedVersion,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

    from sqlalchemy import ColumnElement, Connection, Engine, Select, TextClause

    from keystead.ports.vault_store import LogWriter, VaultReader, VaultWriter

_SUBSCRIPTION: Select[Any] = select(
    *tables.subscription.c["id", "tenant_id", "name", "kind", "cancelled", "protected_from", "created", "created_by"]
)
_VAULT: Select[Any] = select(
    *tables.vault.c["id", "tenant_id", "name"],
    *(column.label(f"subscription_{column.name}") for column in _SUBSCRIPTION.selected_columns),
    *tables.vault.c[
        "resource_group", "region", "sku", "rbac", "purge_protection", "retention_days", "created", "deleted", "network_rules", "read_only"
    ],
).join(
    tables.subscription,
    and_(tables.subscription.c.id == tables.vault.c.subscription_id, tables.subscription.c.tenant_id == tables.vault.c.tenant_id),
)
_KEY: Select[Any] = select(*tables.vault_key.c["id", "tenant_id", "vault_id", "name", "created", "deleted", "rotation_policy"])
_KEY_FIELDS = len(_KEY.selected_columns)
_KEY_VERSION: Select[Any] = select(
    *_KEY.selected_columns,
    *tables.vault_key_version.c[
        "version",
        "ordinal",
        "kty",
        "size",
        "curve",
        "key_ops",
        "enabled",
        "not_before",
        "expires",
        "created",
        "updated",
        "tags",
        "public_key",
        "exportable",
        "release_policy",
    ],
).join(
    tables.vault_key_version,
    and_(tables.vault_key_version.c.key_id == tables.vault_key.c.id, tables.vault_key_version.c.tenant_id == tables.vault_key.c.tenant_id),
)
_HIGHEST = (
    select(func.max(tables.vault_key_version.c.ordinal))
    .where(tables.vault_key_version.c.key_id == tables.vault_key.c.id)
    .correlate(tables.vault_key)
    .scalar_subquery()
)

_CLIENT: Select[Any] = select(*tables.vault_client.c["id", "tenant_id", "name", "created", "created_by"])

# What every call over the network asks, put together once: building such a statement costs as much as running it.
_CLIENT_OF_ANYONE = Lookup(_CLIENT.where(tables.vault_client.c.id == bindparam("id")))
_VAULT_OF_ANYONE = _VAULT.where(tables.vault.c.name_lower == bindparam("name"))
_VAULT_BY_NAME = _VAULT_OF_ANYONE.where(tables.vault.c.tenant_id == bindparam("tenant"))
_HELD = select(*tables.vault_access.c["permissions", "contributor", "roles"]).where(
    tables.vault_access.c.tenant_id == bindparam("tenant"),
    tables.vault_access.c.vault_id == bindparam("vault"),
    tables.vault_access.c.principal_kind == bindparam("kind"),
    tables.vault_access.c.principal == bindparam("principal"),
)
_VERSION_OF_KEY = _KEY_VERSION.where(
    tables.vault_key.c.tenant_id == bindparam("tenant"),
    tables.vault_key.c.vault_id == bindparam("vault"),
    tables.vault_key.c.name_lower == bindparam("name"),
)
_CURRENT_VERSION = _VERSION_OF_KEY.where(tables.vault_key_version.c.ordinal == _HIGHEST)
_NAMED_VERSION = _VERSION_OF_KEY.where(tables.vault_key_version.c.version == bindparam("version"))
_NEEDED = (*_VAULT.selected_columns, *_HELD.selected_columns, *_KEY_VERSION.selected_columns)
_VAULT_FIELDS, _HELD_FIELDS = len(_VAULT.selected_columns), len(_HELD.selected_columns)


def _usable(version: ColumnElement[bool]) -> Lookup:
    """Vault, access and key version at once. Columns are numbered: several tables have one of the same name."""
    access, key, versions = tables.vault_access, tables.vault_key, tables.vault_key_version
    return Lookup(
        select(*(column.label(f"c{number}") for number, column in enumerate(_NEEDED)))
        .select_from(tables.vault)
        .join(
            tables.subscription,
            and_(tables.subscription.c.id == tables.vault.c.subscription_id, tables.subscription.c.tenant_id == tables.vault.c.tenant_id),
        )
        .outerjoin(
            access,
            and_(
                access.c.vault_id == tables.vault.c.id,
                access.c.tenant_id == tables.vault.c.tenant_id,
                access.c.principal_kind == bindparam("kind"),
                access.c.principal == bindparam("principal"),
            ),
        )
        .outerjoin(
            key,
            and_(key.c.vault_id == tables.vault.c.id, key.c.tenant_id == tables.vault.c.tenant_id, key.c.name_lower == bindparam("key")),
        )
        .outerjoin(versions, and_(versions.c.key_id == key.c.id, versions.c.tenant_id == key.c.tenant_id, version))
        .where(tables.vault.c.name_lower == bindparam("name"), tables.vault.c.tenant_id == bindparam("tenant"))
    )


_USABLE_CURRENT = _usable(tables.vault_key_version.c.ordinal == _HIGHEST)
_USABLE_NAMED = _usable(
    # The vault's id again, so that one index leads to the version, and not all versions of the key are looked at.
    and_(tables.vault_key_version.c.vault_id == tables.vault.c.id, tables.vault_key_version.c.version == bindparam("version"))
)
_WATCHED: Select[Any] = select(
    *tables.vault_key.c["tenant_id", "vault_id", "name", "rotation_policy"],
    tables.vault_key_version.c.version,
    (tables.vault_key_version.c.ordinal == _HIGHEST).label("current"),
    *tables.vault_key_version.c["enabled", "created", "expires", "near_told", "expired_told"],
).join(
    tables.vault_key_version,
    and_(tables.vault_key_version.c.key_id == tables.vault_key.c.id, tables.vault_key_version.c.tenant_id == tables.vault_key.c.tenant_id),
)
_SEALED_KEYS = (
    select(
        tables.vault_key_version.c.key_id,
        tables.vault_key_version.c.ordinal,
        tables.vault_key_version.c.tenant_id,
        tables.vault.c.name,
        tables.vault_key.c.name,
        tables.vault_key_version.c.version,
        tables.vault_key_version.c.sealed_private,
    )
    .join(tables.vault_key, tables.vault_key.c.id == tables.vault_key_version.c.key_id)
    .join(tables.vault, tables.vault.c.id == tables.vault_key.c.vault_id)
    .where(tuple_(tables.vault_key_version.c.key_id, tables.vault_key_version.c.ordinal) > tuple_(bindparam("key"), bindparam("ordinal")))
    .order_by(tables.vault_key_version.c.key_id, tables.vault_key_version.c.ordinal)
    .limit(bindparam("most"))
)
_PUT_SEALED = Many(
    update(tables.vault_key_version)
    .where(tables.vault_key_version.c.key_id == bindparam("key"), tables.vault_key_version.c.ordinal == bindparam("number"))
    .values(sealed_private=bindparam("box"))
)
_ADD_FORMER = Many(insert(tables.vault_former_backup_key))
_INTO_LOG = f"INSERT INTO {tables.vault_log.name} ({', '.join(LogRecord._fields)}) VALUES "  # noqa: S608 - names of the schema
_LOG_MARKS = {sqlite: f"({', '.join([mark] * len(LogRecord._fields))})" for sqlite, mark in ((True, "?"), (False, "%s"))}
LOGS_AT_ONCE = 64
"""Of one statement: few enough that the driver keeps the statement of every number of records ready."""
_LOG = select(tables.vault_log.c.id, *(tables.vault_log.c[name] for name in LogRecord._fields))
_STAMP = "SELECT stamp FROM vault_stamp"
_SET_STAMP = sql("INSERT INTO vault_stamp (id, stamp) VALUES (1, :stamp) ON CONFLICT (id) DO UPDATE SET stamp = excluded.stamp")


class SqlVaultTransaction:
    """Queries and changes on one connection; see `ports/vault_store.py`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def stamp(self) -> int | None:
        """See the port."""
        return self._connection.execute(sql(_STAMP)).scalar()

    # -- the seal ------------------------------------------------------------------------------------------------------------------

    def seal(self) -> StoredSeal | None:
        """See the port."""
        row = self._connection.execute(select(*tables.vault_seal.c["check_value", "generation", "record"])).first()
        return None if row is None else StoredSeal(row.check_value, row.generation, row.record or b"")

    def set_seal(self, seal: StoredSeal) -> None:
        """See the port. The fixed id lets a database have one only."""
        self._connection.execute(delete(tables.vault_seal))
        self._connection.execute(insert(tables.vault_seal).values(id=1, **asdict(seal)))

    def former_backup_keys(self) -> dict[int, bytes]:
        """See the port."""
        table = tables.vault_former_backup_key
        return {row.generation: row.sealed for row in self._connection.execute(select(table.c.generation, table.c.sealed))}

    def set_former_backup_keys(self, keys: Mapping[int, bytes]) -> None:
        """See the port."""
        self._connection.execute(delete(tables.vault_former_backup_key))
        rows = [{"generation": generation, "sealed": sealed} for generation, sealed in keys.items()]
        _ADD_FORMER.run(self._connection, rows)

    def sealed_keys(self, after: tuple[str, int], limit: int) -> list[SealedKey]:
        """See the port."""
        place = {"key": after[0], "ordinal": after[1], "most": limit}
        return [SealedKey(*row) for row in self._connection.execute(_SEALED_KEYS, place)]

    def count_key_versions(self) -> int:
        """See the port."""
        return self._connection.execute(select(func.count()).select_from(tables.vault_key_version)).scalar() or 0

    def put_sealed_keys(self, keys: Sequence[SealedKey]) -> None:
        """See the port."""
        _PUT_SEALED.run(self._connection, [{"key": key.key_id, "number": key.ordinal, "box": key.sealed} for key in keys])

    def put_token_key(self, key_id: str, sealed: bytes) -> None:
        """See the port."""
        table = tables.vault_token_key
        self._connection.execute(update(table).where(table.c.id == key_id).values(sealed=sealed))

    def release_keys(self) -> list[ReleaseKey]:
        """See the port."""
        table = tables.vault_release_key
        rows = self._connection.execute(
            select(*table.c["id", "certificates", "sealed", "created", "ends"]).order_by(table.c.created.desc(), table.c.id)
        )
        return [ReleaseKey(*row) for row in rows]

    def put_release_key(self, key_id: str, sealed: bytes) -> None:
        """See the port."""
        table = tables.vault_release_key
        self._connection.execute(update(table).where(table.c.id == key_id).values(sealed=sealed))

    def add_release_key(self, key: ReleaseKey) -> None:
        """See the port."""
        self._need_generation(key.sealed)
        self._connection.execute(insert(tables.vault_release_key).values(**asdict(key)))

    def _need_generation(self, sealed: bytes) -> None:
        """Refuse a box of another generation: this transaction writes alone, so nobody rotates the seal meanwhile."""
        present = self._connection.execute(select(tables.vault_seal.c.generation)).scalar()
        if present is not None and present != sealed_generation(sealed):
            raise seal_rotated()

    # -- subscriptions and vaults ---------------------------------------------------------------------------------------------------

    def subscription(self, tenant_id: str, name_or_id: str) -> Subscription | None:
        """See the port."""
        text = name_or_id.lower()
        row = self._connection.execute(
            _SUBSCRIPTION.where(
                tables.subscription.c.tenant_id == tenant_id,
                or_(tables.subscription.c.name_lower == text, tables.subscription.c.id == text),
            )
        ).first()
        return None if row is None else Subscription(*row)

    def subscriptions(self, tenant_id: str) -> list[Subscription]:
        """See the port."""
        rows = self._connection.execute(
            _SUBSCRIPTION.where(tables.subscription.c.tenant_id == tenant_id).order_by(tables.subscription.c.name_lower)
        )
        return [Subscription(*row) for row in rows]

    def add_subscription(self, subscription: Subscription) -> None:
        """See the port."""
        self._connection.execute(insert(tables.subscription).values(**asdict(subscription), name_lower=subscription.name.lower()))

    def put_subscription(self, subscription: Subscription) -> None:
        """See the port."""
        table = tables.subscription
        self._connection.execute(
            update(table)
            .where(table.c.tenant_id == subscription.tenant_id, table.c.id == subscription.id)
            .values(cancelled=subscription.cancelled, protected_from=subscription.protected_from)
        )

    def vault(self, tenant_id: str, name: str) -> Vault | None:
        """See the port."""
        return self._one_vault(_VAULT_BY_NAME, {"tenant": tenant_id, "name": name.lower()})

    def vault_of_anyone(self, name: str) -> Vault | None:
        """See the port."""
        return self._one_vault(_VAULT_OF_ANYONE, {"name": name.lower()})

    def vaults(self, tenant_id: str) -> list[Vault]:
        """See the port."""
        return [
            _vault(row)
            for row in self._connection.execute(_VAULT.where(tables.vault.c.tenant_id == tenant_id).order_by(tables.vault.c.name_lower))
        ]

    def all_vaults(self) -> list[Vault]:
        """See the port."""
        return [_vault(row) for row in self._connection.execute(_VAULT)]

    def add_vault(self, vault: Vault) -> None:
        """See the port."""
        self._connection.execute(
            insert(tables.vault).values(
                id=vault.id,
                tenant_id=vault.tenant_id,
                name=vault.name,
                name_lower=vault.name.lower(),
                subscription_id=vault.subscription.id,
                resource_group=vault.resource_group,
                region=vault.region,
                sku=vault.sku,
                rbac=vault.rbac,
                purge_protection=vault.purge_protection,
                retention_days=vault.retention_days,
                created=vault.created,
                deleted=vault.deleted,
                network_rules=vault.network_rules,
                read_only=vault.read_only,
            )
        )

    def put_vault(self, vault: Vault) -> None:
        """See the port."""
        table = tables.vault
        self._connection.execute(
            update(table)
            .where(table.c.tenant_id == vault.tenant_id, table.c.id == vault.id)
            .values(network_rules=vault.network_rules, read_only=vault.read_only, purge_protection=vault.purge_protection)
        )

    def set_vault_deleted(self, vault: Vault, deleted: int | None) -> None:
        """See the port."""
        table = tables.vault
        self._connection.execute(update(table).where(table.c.tenant_id == vault.tenant_id, table.c.id == vault.id).values(deleted=deleted))

    def remove_vault(self, vault: Vault) -> None:
        """See the port."""
        for table, column in (
            (tables.vault_key_version, "vault_id"),
            (tables.vault_key, "vault_id"),
            (tables.vault_access, "vault_id"),
            (tables.vault, "id"),
        ):
            self._connection.execute(delete(table).where(table.c.tenant_id == vault.tenant_id, table.c[column] == vault.id))

    def held(self, tenant_id: str, vault_id: str, principal: VaultPrincipal) -> Held:
        """See the port."""
        row = self._connection.execute(
            _HELD, {"tenant": tenant_id, "vault": vault_id, "kind": principal.kind, "principal": principal.name}
        ).first()
        return Held() if row is None else _held(*row)

    def access(self, tenant_id: str, vault_id: str) -> list[AccessEntry]:
        """See the port."""
        rows = self._connection.execute(
            select(*tables.vault_access.c["principal_kind", "principal", "permissions", "contributor", "roles"])
            .where(tables.vault_access.c.tenant_id == tenant_id, tables.vault_access.c.vault_id == vault_id)
            .order_by(tables.vault_access.c.principal_kind, tables.vault_access.c.principal)
        )
        return [AccessEntry(VaultPrincipal(PrincipalKind(kind), name), _held(*held)) for kind, name, *held in rows]

    def put_access(self, tenant_id: str, vault_id: str, entry: AccessEntry) -> None:
        """See the port."""
        self._connection.execute(
            delete(tables.vault_access).where(
                tables.vault_access.c.tenant_id == tenant_id,
                tables.vault_access.c.vault_id == vault_id,
                tables.vault_access.c.principal_kind == entry.principal.kind,
                tables.vault_access.c.principal == entry.principal.name,
            )
        )
        if entry.held != Held():
            self._connection.execute(
                insert(tables.vault_access).values(
                    vault_id=vault_id,
                    principal_kind=entry.principal.kind,
                    principal=entry.principal.name,
                    tenant_id=tenant_id,
                    permissions=",".join(sorted(entry.held.permissions)),
                    contributor=entry.held.contributor,
                    roles=",".join(sorted(entry.held.roles)),
                )
            )

    def drop_roles(self, tenant_id: str, vault_id: str) -> None:
        """See the port."""
        mine = and_(tables.vault_access.c.tenant_id == tenant_id, tables.vault_access.c.vault_id == vault_id)
        self._connection.execute(update(tables.vault_access).where(mine).values(contributor=False, roles=""))
        self._connection.execute(delete(tables.vault_access).where(mine, tables.vault_access.c.permissions == ""))

    def key(self, tenant_id: str, vault_id: str, name: str) -> Key | None:
        """See the port."""
        row = self._connection.execute(_KEY.where(_named(tenant_id, vault_id, name))).first()
        return None if row is None else Key(*row)

    def keys(self, tenant_id: str, vault_id: str, after: str, limit: int) -> list[KeyVersion]:
        """See the port."""
        mine = (
            tables.vault_key.c.tenant_id == tenant_id,
            tables.vault_key.c.vault_id == vault_id,
            tables.vault_key.c.deleted.is_(None),
            tables.vault_key.c.name_lower > after.lower(),
        )
        return self._versions(
            _KEY_VERSION.where(*mine, tables.vault_key_version.c.ordinal == _HIGHEST).order_by(tables.vault_key.c.name_lower).limit(limit)
        )

    def deleted_keys(self, tenant_id: str, vault_id: str) -> list[KeyVersion]:
        """See the port."""
        mine = (tables.vault_key.c.tenant_id == tenant_id, tables.vault_key.c.vault_id == vault_id, tables.vault_key.c.deleted.is_not(None))
        return self._versions(
            _KEY_VERSION.where(*mine, tables.vault_key_version.c.ordinal == _HIGHEST).order_by(tables.vault_key.c.name_lower)
        )

    def key_version(self, tenant_id: str, vault_id: str, name: str, version: str | None) -> KeyVersion | None:
        """See the port."""
        place = {"tenant": tenant_id, "vault": vault_id, "name": name.lower()}
        if version is None:
            row = self._connection.execute(_CURRENT_VERSION, place).first()
        else:
            row = self._connection.execute(_NAMED_VERSION, {**place, "version": version.lower()}).first()
        return None if row is None else _key_version(row)

    def usable(self, tenant_id: str, vault: str, principal: VaultPrincipal, name: str, version: str | None) -> Usable | None:
        """See the port."""
        place = {
            "tenant": tenant_id,
            "name": vault.lower(),
            "kind": principal.kind.value,
            "principal": principal.name,
            "key": name.lower(),
        }
        if version is None:
            row = _USABLE_CURRENT.first(self._connection, **place)
        else:
            row = _USABLE_NAMED.first(self._connection, **place, version=version.lower())
        if row is None:
            return None
        held, key = row[_VAULT_FIELDS : _VAULT_FIELDS + _HELD_FIELDS], row[_VAULT_FIELDS + _HELD_FIELDS :]
        return Usable(
            _vault(row[:_VAULT_FIELDS]),
            Held() if held[0] is None else _held(*held),
            None if key[_KEY_FIELDS] is None else _key_version(key),
        )

    def key_versions(self, tenant_id: str, vault_id: str, name: str) -> list[KeyVersion]:
        """See the port."""
        return self._versions(_KEY_VERSION.where(_named(tenant_id, vault_id, name)).order_by(tables.vault_key_version.c.ordinal))

    def sealed_private(self, tenant_id: str, vault_id: str, version: str) -> bytes | None:
        """See the port."""
        table = tables.vault_key_version
        return self._connection.execute(
            select(table.c.sealed_private).where(table.c.tenant_id == tenant_id, table.c.vault_id == vault_id, table.c.version == version)
        ).scalar()

    def add_key(self, key: Key) -> None:
        """See the port."""
        self._connection.execute(insert(tables.vault_key).values(**asdict(key), name_lower=key.name.lower()))

    def set_key_deleted(self, key: Key, deleted: int | None) -> None:
        """See the port."""
        self._connection.execute(
            update(tables.vault_key)
            .where(tables.vault_key.c.tenant_id == key.tenant_id, tables.vault_key.c.id == key.id)
            .values(deleted=deleted)
        )

    def set_rotation_policy(self, key: Key, policy: str) -> None:
        """See the port."""
        self._connection.execute(
            update(tables.vault_key)
            .where(tables.vault_key.c.tenant_id == key.tenant_id, tables.vault_key.c.id == key.id)
            .values(rotation_policy=policy)
        )

    def remove_key(self, key: Key) -> None:
        """See the port. `secure_delete` overwrites what the rows held."""
        for table, column in ((tables.vault_key_version, "key_id"), (tables.vault_key, "id")):
            self._connection.execute(delete(table).where(table.c.tenant_id == key.tenant_id, table.c[column] == key.id))

    def add_key_version(self, version: KeyVersion, sealed: bytes) -> None:
        """See the port."""
        self._need_generation(sealed)
        self._connection.execute(
            insert(tables.vault_key_version).values(
                key_id=version.key.id,
                ordinal=version.ordinal,
                tenant_id=version.key.tenant_id,
                vault_id=version.key.vault_id,
                version=version.version,
                kty=version.kty,
                size=version.size,
                curve=version.curve,
                created=version.created,
                public_key=version.public_key,
                exportable=version.exportable,
                sealed_private=sealed,
                **_attributes(version),
            )
        )

    def put_key_versions(self, versions: Sequence[KeyVersion]) -> None:
        """See the port."""
        table = tables.vault_key_version
        for version in versions:
            self._connection.execute(
                update(table)
                .where(table.c.tenant_id == version.key.tenant_id, table.c.key_id == version.key.id, table.c.ordinal == version.ordinal)
                .values(**_attributes(version))
            )

    # -- clients and what their tokens are signed with -----------------------------------------------------------------------------

    def client(self, tenant_id: str, name_or_id: str) -> VaultClient | None:
        """See the port."""
        text = name_or_id.lower()
        row = self._connection.execute(
            _CLIENT.where(
                tables.vault_client.c.tenant_id == tenant_id,
                or_(tables.vault_client.c.name_lower == text, tables.vault_client.c.id == text),
            )
        ).first()
        return None if row is None else VaultClient(*row)

    def client_of_anyone(self, client_id: str) -> VaultClient | None:
        """See the port."""
        row = _CLIENT_OF_ANYONE.first(self._connection, id=client_id.lower())
        return None if row is None else VaultClient(*row)

    def clients(self, tenant_id: str) -> list[VaultClient]:
        """See the port."""
        rows = self._connection.execute(
            _CLIENT.where(tables.vault_client.c.tenant_id == tenant_id).order_by(tables.vault_client.c.name_lower)
        )
        return [VaultClient(*row) for row in rows]

    def add_client(self, client: VaultClient) -> None:
        """See the port."""
        self._connection.execute(insert(tables.vault_client).values(**asdict(client), name_lower=client.name.lower()))

    def remove_client(self, client: VaultClient) -> None:
        """See the port."""
        access, secrets, table = tables.vault_access, tables.vault_client_secret, tables.vault_client
        self._connection.execute(
            delete(access).where(
                access.c.tenant_id == client.tenant_id, access.c.principal_kind == PrincipalKind.CLIENT, access.c.principal == client.id
            )
        )
        self._connection.execute(delete(secrets).where(secrets.c.tenant_id == client.tenant_id, secrets.c.client_id == client.id))
        self._connection.execute(delete(table).where(table.c.tenant_id == client.tenant_id, table.c.id == client.id))

    def client_secrets(self, tenant_id: str, client_id: str) -> list[ClientSecret]:
        """See the port."""
        table = tables.vault_client_secret
        rows = self._connection.execute(
            select(*table.c["id", "client_id", "tenant_id", "digest", "created", "expires"])
            .where(table.c.tenant_id == tenant_id, table.c.client_id == client_id)
            .order_by(table.c.created, table.c.id)
        )
        return [ClientSecret(*row) for row in rows]

    def add_client_secret(self, secret: ClientSecret) -> None:
        """See the port."""
        self._connection.execute(insert(tables.vault_client_secret).values(**asdict(secret)))

    def remove_client_secret(self, secret: ClientSecret) -> None:
        """See the port."""
        table = tables.vault_client_secret
        self._connection.execute(delete(table).where(table.c.tenant_id == secret.tenant_id, table.c.id == secret.id))

    def token_keys(self) -> list[TokenKey]:
        """See the port."""
        table = tables.vault_token_key
        rows = self._connection.execute(
            select(*table.c["id", "public_key", "sealed", "created", "ends"]).order_by(table.c.created.desc(), table.c.id)
        )
        return [TokenKey(*row) for row in rows]

    def add_token_key(self, key: TokenKey) -> None:
        """See the port."""
        self._need_generation(key.sealed)
        self._connection.execute(insert(tables.vault_token_key).values(**asdict(key)))

    def end_token_key(self, key_id: str, ends: int) -> None:
        """See the port."""
        table = tables.vault_token_key
        self._connection.execute(update(table).where(table.c.id == key_id).values(ends=ends))

    def remove_token_keys(self, before: int) -> None:
        """See the port."""
        table = tables.vault_token_key
        self._connection.execute(delete(table).where(table.c.ends < before))

    # -- expiry and rotation -------------------------------------------------------------------------------------------------------

    def watched(self, before: int) -> list[WatchedVersion]:
        """See the port. Two statements, each with an index of its own."""
        versions, key = tables.vault_key_version, tables.vault_key
        there = key.c.deleted.is_(None)
        rotating = self._connection.execute(_WATCHED.where(there, tables.ROTATING, versions.c.ordinal == _HIGHEST))
        expiring = self._connection.execute(_WATCHED.where(there, tables.UNTOLD, versions.c.expires < before))
        rows = {(row.vault_id, row.version): row for row in (*rotating, *expiring)}
        return [WatchedVersion(*row) for row in rows.values()]

    def put_told(self, version: WatchedVersion) -> None:
        """See the port."""
        table = tables.vault_key_version
        self._connection.execute(
            update(table)
            .where(table.c.tenant_id == version.tenant_id, table.c.vault_id == version.vault_id, table.c.version == version.version)
            .values(near_told=version.near_told, expired_told=version.expired_told)
        )

    # -- the log -------------------------------------------------------------------------------------------------------------------

    def log(
        self, tenant_id: str, vault: str, after: int | None, limit: int, wanted: LogSearch = EVERY_RECORD
    ) -> list[tuple[int, LogRecord]]:
        """See the port."""
        query = _LOG.where(tables.vault_log.c.tenant_id == tenant_id, tables.vault_log.c.vault == vault.lower(), *_of_log(wanted)).limit(
            limit
        )
        if after is None:
            rows = list(reversed(self._connection.execute(query.order_by(tables.vault_log.c.id.desc())).all()))
        else:
            rows = list(self._connection.execute(query.where(tables.vault_log.c.id > after).order_by(tables.vault_log.c.id)).all())
        return [(number, LogRecord(*fields)) for number, *fields in rows]

    def add_log(self, record: LogRecord) -> None:
        """See the port."""
        self.add_logs([record])

    def add_logs(self, records: Sequence[LogRecord]) -> None:
        """See the port."""
        # Past SQLAlchemy, and not one by one: between two statements the driver lets go of Python's lock, and in a busy process it waits long
        # for it to come back.
        raw: Any = self._connection.connection.driver_connection
        marks = _LOG_MARKS[self._connection.dialect.name == "sqlite"]
        for some in chunks(records, LOGS_AT_ONCE):
            raw.execute(_INTO_LOG + ", ".join([marks] * len(some)), list(chain.from_iterable(some)))

    def _one_vault(self, query: Select[Any], place: dict[str, str]) -> Vault | None:
        row = self._connection.execute(query, place).first()
        return None if row is None else _vault(row)

    def _versions(self, query: Select[Any]) -> list[KeyVersion]:
        return [_key_version(row) for row in self._connection.execute(query)]


class SqlVaultStore:
    """See `ports/vault_store.py`. The engine is at the schema this version works with."""

    def __init__(self, engine: Engine) -> None:
        ensure_current(engine, "vault")
        self._engine = engine

    def stamp(self) -> int | None:
        """See the port."""
        row = glance(self._engine, _STAMP)
        return None if row is None else int(row[0])

    @contextmanager
    def reading(self) -> Iterator[VaultReader]:
        """See the port."""
        with reading(self._engine) as connection:
            yield SqlVaultTransaction(connection)

    @contextmanager
    def writing(self) -> Iterator[VaultWriter]:
        """See the port."""
        with writing(self._engine) as connection:
            yield SqlVaultTransaction(connection)
            # Here, where nobody can forget it. 63 bits: none comes twice.
            connection.execute(_SET_STAMP, {"stamp": int.from_bytes(os.urandom(8)) >> 1})

    @contextmanager
    def appending(self) -> Iterator[LogWriter]:
        """See the port."""
        with writing(self._engine) as connection:
            yield SqlVaultTransaction(connection)

    def forget_past(self) -> bool:
        """See the port. PostgreSQL recycles its log by itself, and keeps replaced rows until it is vacuumed."""
        if is_server(self._engine):
            return False
        from keystead.adapters.sql.sqlite import empty_log  # noqa: PLC0415 - as the engine does for the other kind

        return empty_log(self._engine)

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()


def _named(tenant_id: str, vault_id: str, name: str) -> Any:  # noqa: ANN401 - SQLAlchemy's type of a condition depends on its operands
    return and_(
        tables.vault_key.c.tenant_id == tenant_id, tables.vault_key.c.vault_id == vault_id, tables.vault_key.c.name_lower == name.lower()
    )


def _of_log(wanted: LogSearch) -> Iterator[ColumnElement[bool] | TextClause]:
    """The conditions of a search; those that an index was made for in its very words."""
    log = tables.vault_log
    if wanted.operation:
        yield log.c.operation_name == wanted.operation
        if wanted.operation not in tables.ROUTINE:
            yield tables.RARE
    if wanted.result == "Failure":
        yield tables.REFUSED
    elif wanted.result:
        yield or_(log.c.result_type == wanted.result, log.c.result_signature == wanted.result)
    if wanted.principal:
        yield or_(log.c.identity_name == wanted.principal, log.c.identity_application_id == wanted.principal)
    if wanted.start is not None:
        yield log.c.time >= wanted.start
    if wanted.end is not None:
        yield log.c.time < wanted.end


@lru_cache(maxsize=1_024)
def _held(permissions: str, contributor: bool, roles: str) -> Held:  # noqa: FBT001 - a column's value, on SQLite a number
    """Immutable, and of few kinds: the same texts give the same object."""
    return Held(
        frozenset(Permission(name) for name in permissions.split(",") if name),
        bool(contributor),
        frozenset(KeyRole(name) for name in roles.split(",") if name),
    )


@lru_cache(maxsize=1_024)
def _key_operations(names: str) -> frozenset[KeyOperation]:
    """Likewise."""
    return frozenset(KeyOperation(name) for name in names.split(","))


def _vault(row: Sequence[Any]) -> Vault:
    """From the columns of `_VAULT`. SQLite's own booleans are numbers."""
    (id_, tenant_id, name, *subscription, group, region, sku, rbac, protected, days, created, deleted, rules, read_only) = row
    sub_id, sub_tenant, sub_name, kind, cancelled, protected_from, made, made_by = subscription
    return Vault(
        id=id_,
        tenant_id=tenant_id,
        name=name,
        subscription=Subscription(sub_id, sub_tenant, sub_name, kind, bool(cancelled), protected_from, made, made_by),
        resource_group=group,
        region=region,
        sku=sku,
        rbac=bool(rbac),
        purge_protection=bool(protected),
        retention_days=days,
        created=created,
        deleted=deleted,
        network_rules=rules,
        read_only=bool(read_only),
    )


def _key_version(row: Sequence[Any]) -> KeyVersion:
    version, ordinal, kty, size, curve, key_ops, enabled, not_before, expires, created, updated, tags, public_key, *release = row[
        _KEY_FIELDS:
    ]
    return KeyVersion(
        key=Key(*row[:_KEY_FIELDS]),
        version=version,
        ordinal=ordinal,
        kty=KeyType(kty),
        size=size,
        curve=curve,
        key_ops=_key_operations(key_ops),
        enabled=bool(enabled),
        not_before=not_before,
        expires=expires,
        created=created,
        updated=updated,
        tags=json.loads(tags) if tags != "{}" else {},
        public_key=public_key,
        exportable=bool(release[0]),
        release_policy=release[1],
    )


def _attributes(version: KeyVersion) -> dict[str, Any]:
    """The columns of a version that may change."""
    return {
        "key_ops": ",".join(sorted(version.key_ops)),
        "enabled": version.enabled,
        "not_before": version.not_before,
        "expires": version.expires,
        "updated": version.updated,
        "release_policy": version.release_policy,
        "tags": json.dumps(version.tags, sort_keys=True, ensure_ascii=False),
    }
