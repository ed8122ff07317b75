"""The sides a policy's keys can lie with, for the conformance suite: each with a customer who acts, and the service's way to it.

`World` is the customer: the use cases of the vault on its database. `service` is what the service has. The keys of every side go by the
identifiers that the customer's use cases give; where the service calls another address, it is put in on the way and taken out again.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from keystead.adapters.vaults.embedded import EmbeddedVaults
from keystead.adapters.vaults.faults import FaultyVaults
from keystead.adapters.vaults.routed import RoutedVaults, open_entries
from keystead.api.types import vault_clients as c
from keystead.cli.separate_vaults import SERVICE, VaultProcess, entry_of
from keystead.core.settings import Settings
from keystead.ports.vaults import VaultFailure
from keystead.settings import read_written
from keystead.vault import clients
from keystead.wiring import create_home, open_home
from vault.world import SUFFIX, TENANT, World

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from keystead.api.types import vaults as t
    from keystead.ports.vaults import KeyFacts, SubscriptionFacts, Vaults, WrappedValue

    T = TypeVar("T")

VAULT = "ContosoVault1"
SUBSCRIPTION = "Contoso EA 1"
PATIENCE_S = 60
_OWN = f"https://{VAULT.lower()}{SUFFIX}/"
OVER_HTTPS = {
    "unwrap-failed": "http-400 BadParameter",
    "key-disabled": "http-403 KeyDisabled",
    "key-expired": "http-403 KeyExpired",
    "vault-access-denied": "http-403 AccessDenied",
    "vault-deleted": "http-404 VaultNotFound",
    "key-deleted": "http-404 KeyNotFound",
    "key-not-found": "http-404 KeyNotFound",
}
"""How what the use cases say arrives through the REST API."""


@dataclass
class Side:
    """One implementation of ports/vaults.py, with the customer behind it.

    Attributes:
        world: the customer.
        service: the implementation.
        principal: the service's name in the customer's access policies; identity: in the customer's log.
        reasons: what the reasons of the use cases are called here, where they differ.
        patience_s: how long an act of the customer may take to be noticed.
    """

    world: World
    service: Vaults
    principal: str = "mail"
    identity: str = "mail"
    reasons: Mapping[str, str] | None = None
    patience_s: float = 0

    @property
    def remote(self) -> bool:
        """Whether the service only knows what the REST API tells."""
        return self.reasons is not None

    def reason(self, own: str) -> str:
        """The reason by which a refusal of the use cases arrives."""
        return (self.reasons or {}).get(own, own)

    def eventually(self, call: Callable[[], T]) -> T:
        """The result of a call that succeeds at once, or within the time that acts of the customer take to be noticed."""
        deadline = time.monotonic() + self.patience_s
        while True:
            try:
                return call()
            except VaultFailure:
                if time.monotonic() >= deadline:
                    raise
            time.sleep(0.05)

    def ready(self) -> t.KeyView:
        """A vault with one RSA key, which the service may use."""
        key = self.world.ready()
        if self.principal != "mail":
            self.world.grant("get,wrapKey,unwrapKey", principal=self.principal)
        return key

    def close(self) -> None:
        """Let go of everything."""
        self.world.close()


def embedded(folder: Path) -> Side:
    """The vault of a home."""
    world = World(folder)
    return Side(world, EmbeddedVaults(world.vault))


def faulty(folder: Path) -> Side:
    """The same behind faults, none of which is set."""
    world = World(folder)
    return Side(world, FaultyVaults(EmbeddedVaults(world.vault), folder / "faults", world.clock))


class ServedWorld(World):
    """A customer whose vaults a process serves from a home of its own."""

    def __init__(self, folder: Path) -> None:
        create_home(folder, dev=True, operator="operator@vaults.example")
        self.home = open_home(folder)
        self.vault = self.home.vault
        self.store = self.home.vault.store  # type: ignore[assignment]  # only what every store has is used
        self.process = VaultProcess(folder)

    def close(self) -> None:
        self.process.stop()
        self.home.close()


class Served(Side):
    """A vault in another process, over HTTPS. `key`: for a test that makes one for all its cases."""

    key: t.KeyView

    def __init__(self, folder: Path) -> None:
        self.home = ServedWorld(folder / "customer")
        made = clients.create(self.home.vault, self.home.call(), c.ClientCreate(name=SERVICE))
        self.secret_file = folder / "service.secret"
        self.secret_file.write_text(made.client_secret)
        self.folder = folder
        self.address = AtItsAddress(self)
        (folder / "own").mkdir()
        self.own = World(folder / "own")
        self.home.process.begin()
        super().__init__(self.home, self.address, SERVICE, made.id, OVER_HTTPS, PATIENCE_S)

    def close(self) -> None:
        self.address.close()
        self.own.close()
        super().close()


class AtItsAddress:
    """The service's way to a served vault: as it is wired in a home, with identifiers put into those of the address it is served at."""

    def __init__(self, side: Served) -> None:
        self._side = side
        self._routed: RoutedVaults | None = None
        self._url = ""

    def key_facts(self, tenant_id: str, application: str, key_uri: str) -> KeyFacts:
        facts = self._way(key_uri).key_facts(tenant_id, application, self._there(key_uri))
        return replace(facts, key_uri=self._here(facts.key_uri))

    def subscription_facts(self, tenant_id: str, name: str) -> SubscriptionFacts:
        return self._opened().subscription_facts(tenant_id, name)

    def wrap(self, tenant_id: str, application: str, key_uri: str, value: bytes) -> WrappedValue:
        wrapped = self._way(key_uri).wrap(tenant_id, application, self._there(key_uri), value)
        return replace(wrapped, key_uri=self._here(wrapped.key_uri))

    def unwrap(self, tenant_id: str, application: str, key_uri: str, value: bytes) -> bytes:
        return self._way(key_uri).unwrap(tenant_id, application, self._there(key_uri), value)

    def close(self) -> None:
        if self._routed is not None:
            self._routed.close()

    def _way(self, uri: str) -> Vaults:
        """For identifiers of no vault that is served, the service's own side alone: it says what they are."""
        return self._opened() if uri.lower().startswith(_OWN) else EmbeddedVaults(self._side.own.vault)

    def _opened(self) -> RoutedVaults:
        if self._routed is None:
            side = self._side
            ready = side.home.process.wait(VAULT)
            self._url = ready.url.rstrip("/")
            entry = entry_of(
                ready,
                [TENANT],
                client_id=side.identity,
                client_secret_file=str(side.secret_file),
                subscription=SUBSCRIPTION,
                subscription_kind="paid",
            )
            (side.folder / "keystead.toml").write_text(entry)
            configuration = read_written(side.folder, {}).configuration
            entries = open_entries(configuration.vaults, side.folder, Settings(), side.own.clock)
            self._routed = RoutedVaults(EmbeddedVaults(side.own.vault), SUFFIX, entries, lambda _domain: None)
        return self._routed

    def _there(self, uri: str) -> str:
        return f"{self._url}/{uri[len(_OWN) :]}" if uri.lower().startswith(_OWN) else uri

    def _here(self, uri: str) -> str:
        assert uri.startswith(f"{self._url}/")
        return f"https://{VAULT.lower()}{SUFFIX}{uri.removeprefix(self._url)}"


SIDES: Mapping[str, Callable[[Path], Side]] = {"embedded": embedded, "faulty-without-fault": faulty, "served": Served}
