"""Key vaults of a customer in homes and processes of their own, for `keystead demo --separate-vaults`.

Each is what a customer would run: a home of its own with one vault, `keystead vault serve` on it, and a client for the service, let in
with what the service needs. The service knows of it what stands in its keystead.toml, and speaks to it over HTTPS alone.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from keystead.adapters.files import write_durably
from keystead.api.types import tenants as t
from keystead.api.types import vault_clients as c
from keystead.api.types import vaults as v
from keystead.api.types import watching as w
from keystead.core.errors import Unavailable
from keystead.wiring import create_home, open_home

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from keystead.client.client import Client
    from keystead.wiring import Home

SERVICE = "keystead-service"
"""Name of the service's client in each vault's directory."""
SERVICE_RIGHTS = ["get", "wrapKey", "unwrapKey"]
OWNER_RIGHTS = ["create", "import", "list", "get", "backup", "restore", "update", "rotate", "delete", "recover", "purge"]
START_S = 60
STOP_S = 30


class Ready(msgspec.Struct, frozen=True):
    """What is used of an entry of the ready file."""

    name: str
    url: str
    ca_file: str
    authority: str
    tenant_id: str


class VaultProcess:
    """`keystead vault serve` on a home, as a process of its own."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._ready_file = home / "run" / "ready.json"
        self._log = home / "run" / "serve.log"
        self._process: subprocess.Popen[bytes] | None = None

    def begin(self) -> None:
        """Start it, at the addresses from before where there are some; `wait` until it answers."""
        self._ready_file.unlink(missing_ok=True)
        command = [sys.executable, "-m", "keystead", "--home", str(self._home), "vault", "serve", "--ready-file", str(self._ready_file)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)  # noqa: S603 - our own program

    def wait(self, vault: str) -> Ready:
        """Until it serves a vault of that name; where.

        Raises:
            Unavailable: the process ended, or it took too long.
        """
        deadline = time.monotonic() + START_S
        while True:
            found = next((one for one in self._written() if one.name.lower() == vault.lower()), None)
            if found is not None:
                return found
            if self._process is None or self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise Unavailable("vault_not_served", f"the vault {vault} is not served", f"see {self._log}")
            time.sleep(0.05)

    def stop(self) -> None:
        """End it as an operator would; calls to its addresses are refused from then on."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            self._process.terminate()
            try:
                self._process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self.kill()
        self._process = None

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._process = None

    def hold(self) -> None:
        """Let it stand still: the system takes connections, and nothing answers."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """End that: what waits is answered now."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def _written(self) -> list[Ready]:
        """The ready file; it is written whole before it appears under its name."""
        try:
            return msgspec.json.decode(self._ready_file.read_bytes(), type=list[Ready])
        except FileNotFoundError:
            return []


@dataclass
class SeparateVault:
    """One vault, its home and its process. Made by `make_vault`; `start` before use, `close` at the end.

    Attributes:
        name: of the vault.
        home: opened here too, for what its owner does.
        process: that serves it.
        tenant: name of the customer in that home.
        owner: UPN of who owns it.
        subscription: its name.
        client_id: of the service; secret_file: where its secret lies.
        ready: where it is served.
    """

    name: str
    home: Home
    process: VaultProcess
    tenant: str
    owner: str
    subscription: str
    client_id: str
    secret_file: Path
    ready: Ready | None = None

    @property
    def admin(self) -> Client:
        """Calls as its owner."""
        return self.home.client(self.home.as_person(self.owner))

    @property
    def url(self) -> str:
        """Where it is served, without a slash behind."""
        assert self.ready is not None
        return self.ready.url.rstrip("/")

    def key_uri(self, name: str) -> str:
        """A key's identifier without version, at the address the service calls."""
        return f"{self.url}/keys/{name}"

    def advance(self, milliseconds: int) -> None:
        """Move the clock of its home."""
        self.home.client(self.home.as_operator(), self.tenant).call("dev.clock.advance", w.AdvanceClock(milliseconds=milliseconds))

    def revoke(self) -> None:
        """Take everything from the service."""
        self.admin.call("vault.access.revoke", v.AccessRevoke(vault=self.name, principal=SERVICE))

    def grant(self) -> None:
        """Give the service what it needs."""
        self.admin.call("vault.access.grant", v.AccessGrant(vault=self.name, principal=SERVICE, permissions=SERVICE_RIGHTS))

    def close(self) -> None:
        """End the process, and let go of the home."""
        self.process.stop()
        self.home.close()

    def entry(self, *tenants: str) -> str:
        """The entry of the service's keystead.toml, which lets these tenants (domains or ids) use it."""
        assert self.ready is not None
        return entry_of(
            self.ready,
            tenants,
            client_id=self.client_id,
            client_secret_file=str(self.secret_file),
            subscription=self.subscription,
            subscription_kind="paid",
        )


def entry_of(ready: Ready, tenants: Sequence[str], **values: str) -> str:
    """An entry of keystead.toml for a vault that is served on a bare loopback address."""
    authority = ready.authority.rstrip("/").removesuffix(f"/{ready.tenant_id}")
    known = {"name": ready.name, "kind": "azure", "authority": authority, "directory": ready.tenant_id, "ca_file": ready.ca_file}
    lines = [f"{name} = {_quoted(value)}" for name, value in {**known, **values}.items()]
    lines.append(f"hosts = [{_quoted(ready.url.rstrip('/').removeprefix('https://'))}]")
    lines.append(f"tenants = [{', '.join(_quoted(one) for one in tenants)}]")
    return "\n".join(["[[vaults]]", *lines, "verify_challenge = false", ""])


def make_vault(place: Path, vault: str, *, tenant: str, domain: str, subscription: str, region: str) -> SeparateVault:
    """A home with one customer, a protected subscription, one premium vault, and a client for the service that may use its keys."""
    place.parent.mkdir(parents=True, exist_ok=True)
    create_home(place, dev=True, operator="operator@vaults.example")
    home = open_home(place)
    owner = f"key-owner@{domain}"
    home.client(home.as_operator()).call("tenant.create", t.CreateTenant(name=tenant, domain=domain, geo=["EUR"]))
    home.client(home.as_operator(), tenant).call("user.add", t.AddUser(upn=owner, roles=["global-admin"]))
    admin = home.client(home.as_person(owner))
    admin.call("subscription.create", v.SubscriptionCreate(name=subscription))
    admin.call("subscription.protect", v.SubscriptionNamed(name=subscription))
    admin.call("vault.create", v.VaultCreate(name=vault, subscription=subscription, region=region, sku="premium"))
    admin.call("vault.access.grant", v.AccessGrant(vault=vault, upn=owner, permissions=OWNER_RIGHTS))
    client = admin.call("vault.client.create", c.ClientCreate(name=SERVICE))
    secret_file = place / "service.secret"
    write_durably(secret_file, client.client_secret.encode())
    made = SeparateVault(vault, home, VaultProcess(place), tenant, owner, subscription, client.id, secret_file)
    made.grant()
    return made


def start_all(vaults: Sequence[SeparateVault]) -> None:
    """Serve them, beginning with all before waiting for the first."""
    for one in vaults:
        one.process.begin()
    for one in vaults:
        one.ready = one.process.wait(one.name)


def _quoted(text: str) -> str:
    """A TOML basic string: JSON's escapes are among its own."""
    return msgspec.json.encode(text).decode()
