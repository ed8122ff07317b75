"""A key vault on a real database, a clock that is moved by hand, and short ways to ask for things."""

from __future__ import annotations

import os
import uuid
from typing import TYPE_CHECKING

from keystead.adapters.sql.vault_store import SqlVaultStore
from keystead.api.call import Call
from keystead.api.types import vaults as t
from keystead.api.types.base import Empty
from keystead.core.access.principal import Principal, Role
from keystead.core.secret import SecretKey
from keystead.ports.clock import DAY
from keystead.vault import access, keys, subscriptions, vaults
from keystead.vault.services import Identity, VaultServices, VaultSettings, application_of, open_vault
from support.databases import make_stores

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

TENANT = "0d7f4c1e-5a8e-4f43-9d0a-1c2d3e4f5a6b"
OTHER_TENANT = "6b9e2f0c-1d3a-4c5b-8e7f-9a0b1c2d3e4f"
ALEX = "alex@contoso.example"
KIM = "kim@contoso.example"
STRANGER = "sam@fabrikam.example"
SEAL = bytes(range(32))
START = 1_767_225_600_000
"""2026-01-01 00:00:00 UTC."""
SUFFIX = ".vault.localhost"


class HandClock:
    """Goes only where it is told to; a sleeper wakes at once, later."""

    def __init__(self) -> None:
        self.time = START

    def now(self) -> int:
        return self.time

    def sleep(self, milliseconds: int) -> None:
        self.time += milliseconds

    def days(self, count: float) -> None:
        self.time += int(count * DAY)


class World:
    """One vault database with the people of two tenants."""

    def __init__(self, folder: Path, settings: VaultSettings | None = None) -> None:
        self.stores = make_stores(folder)
        self.clock = HandClock()
        self.store = SqlVaultStore(self.stores.engine("vault"))
        self.vault: VaultServices = open_vault(self.store, SecretKey(SEAL), self.clock, os.urandom, settings)

    def close(self) -> None:
        self.vault.journal.close()
        self.store.close()
        self.stores.close()

    def call(self, upn: str = ALEX, tenant: str = TENANT, role: Role = Role.USER) -> Call:
        return Call(Principal(upn, tenant, frozenset({role})), tenant, "test", str(uuid.uuid4()), "192.0.2.7")

    def identity(self, application: str = "mail", tenant: str = TENANT) -> Identity:
        return application_of(application, tenant)

    def subscription(self, name: str = "Contoso EA 1", kind: str = "paid", *, protected: bool = False) -> t.SubscriptionView:
        made = subscriptions.create(self.vault, self.call(), t.SubscriptionCreate(name=name, kind=kind))
        return subscriptions.protect(self.vault, self.call(), t.SubscriptionNamed(name=name)) if protected else made

    def new_vault(
        self, name: str = "ContosoVault1", *, subscription: str = "Contoso EA 1", region: str = "westeurope", **more: object
    ) -> t.VaultView:
        """A vault in a subscription of its creator, which is made when it is not there."""
        names = {found.name for found in subscriptions.list_all(self.vault, self.call(), Empty())} if subscription else set()
        if subscription not in names:
            self.subscription(subscription)
        return vaults.create(self.vault, self.call(), t.VaultCreate(name=name, subscription=subscription, region=region, **more))  # type: ignore[arg-type]

    def grant(
        self, permissions: str, *, upn: str | None = None, principal: str | None = None, vault: str = "ContosoVault1"
    ) -> t.AccessView:
        request = t.AccessGrant(vault=vault, upn=upn, principal=principal, permissions=permissions.split(","))
        return access.grant(self.vault, self.call(), request)

    def new_key(self, name: str = "root", vault: str = "ContosoVault1", **more: object) -> t.KeyView:
        return keys.create(self.vault, self.call(), t.KeyCreate(vault=vault, name=name, **more))  # type: ignore[arg-type]

    def ready(self, **more: object) -> t.KeyView:
        """A vault whose creator holds everything and mail what the service needs, with one RSA key."""
        self.new_vault(**more)  # type: ignore[arg-type]
        self.grant("update,rotate,delete,recover,purge", upn=ALEX)
        self.grant("get,wrapKey,unwrapKey", principal="mail")
        return self.new_key()

    def log(self, vault: str = "ContosoVault1") -> list[t.VaultLogEntry]:
        """The whole log so far, without asking the vault for it."""
        from keystead.vault.views import log_entry  # noqa: PLC0415 - only this helper looks past the use cases

        with self.store.reading() as tx:
            return [log_entry(number, record) for number, record in tx.log(TENANT, vault, None, 1_000)]

    def sealed(self, view: t.KeyView) -> bytes:
        """The stored bytes of a private key."""
        with self.store.reading() as tx:
            vault = tx.vault_of_anyone(view.vault)
            assert vault is not None
            sealed = tx.sealed_private(vault.tenant_id, vault.id, view.version)
            assert sealed is not None
            return sealed

    def files(self) -> Iterable[bytes]:
        """Every byte the database has on disk; of PostgreSQL, every byte of its rows."""
        return [self.stores.dump("vault")]
