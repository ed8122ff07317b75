"""Key vaults of a customer in homes and processes of their own, for `keystead demo --separate-vaults`.

Each is what a customer would run: a home of its own with one vault, `keystead vault serve` on it, and a client for the service, let in
with what the service needs. The service knows of it what stands in its keystead.toml, and speaks to it over HTTPS alone.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
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


class _Ready(msgspec.Struct):
    """What is used of an entry of the ready file."""

    name: str
    url: str
    ca_file: str
    authority: str
    tenant_id: str


@dataclass
class SeparateVault:
    """One vault, its home and its process. Made by `make_vault`; `start` before use, `close` at the end.

    Attributes:
        name: of the vault.
        place: folder of its home.
        home: opened here too, for what its owner does.
        tenant: name of the customer in that home.
        owner: UPN of who owns it.
        subscription: its name.
        client_id: of the service; secret_file: where its secret lies.
        url: where it is served, without a slash behind.
    """

    name: str
    place: Path
    home: Home
    tenant: str
    owner: str
    subscription: str
    client_id: str
    secret_file: Path
    url: str = ""
    ready: _Ready | None = None
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def admin(self) -> Client:
        """Calls as its owner."""
        return self.home.client(self.home.as_person(self.owner))

    def key_uri(self, name: str) -> str:
        """A key's identifier without version, at the address the service calls."""
        return f"{self.url}/keys/{name}"

    def advance(self, milliseconds: int) -> None:
        """Move the clock of its home."""
        self.home.client(self.home.as_operator(), self.tenant).call("dev.clock.advance", w.AdvanceClock(milliseconds=milliseconds))

    def start(self) -> None:
        """Serve it, at the address from before where there is one; returns once it answers.

        Raises:
            Unavailable: it does not.
        """
        self.begin()
        self.wait()

    def begin(self) -> None:
        """Start the process."""
        self._ready_file.unlink(missing_ok=True)
        command = [sys.executable, "-m", "keystead", "--home", str(self.place), "vault", "serve", "--ready-file", str(self._ready_file)]
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)  # noqa: S603 - our own program

    def wait(self) -> None:
        """Until it answers.

        Raises:
            Unavailable: it ended, or took too long.
        """
        deadline = time.monotonic() + START_S
        while not self._ready_file.exists():
            if self.process is None or self.process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise Unavailable("vault_not_served", f"the vault {self.name} is not served", f"see {self._log}")
            time.sleep(0.05)
        # Written whole before it appears under its name.
        self.ready = next(one for one in msgspec.json.decode(self._ready_file.read_bytes(), type=list[_Ready]) if one.name == self.name)
        self.url = self.ready.url.rstrip("/")

    def stop(self) -> None:
        """End the process as an operator would; calls to it are refused from then on."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            try:
                self.process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self.kill()
        self.process = None

    def kill(self) -> None:
        """End the process at once."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        self.process = None

    def hold(self) -> None:
        """Let the process stand still: connections are taken by the system, and nothing answers."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """End that: what waits is answered now."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """End the process, and let go of the home."""
        self.stop()
        self.home.close()

    def entry(self, domain: str) -> str:
        """The entry of the service's keystead.toml, which lets the tenant of a domain use it."""
        assert self.ready is not None
        authority = self.ready.authority.rstrip("/").removesuffix(f"/{self.ready.tenant_id}")
        values = {
            "name": self.name,
            "kind": "azure",
            "authority": authority,
            "directory": self.ready.tenant_id,
            "client_id": self.client_id,
            "client_secret_file": str(self.secret_file),
            "ca_file": self.ready.ca_file,
            "subscription": self.subscription,
            "subscription_kind": "paid",
        }
        lines = [f"{name} = {_quoted(value)}" for name, value in values.items()]
        lists = {"hosts": self.url.removeprefix("https://"), "tenants": domain}
        lines += [f"{name} = [{_quoted(value)}]" for name, value in lists.items()]
        return "\n".join(["[[vaults]]", *lines, "verify_challenge = false", ""])

    @property
    def _ready_file(self) -> Path:
        return self.place / "run" / "ready.json"

    @property
    def _log(self) -> Path:
        return self.place / "run" / "serve.log"


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
    admin.call("vault.access.grant", v.AccessGrant(vault=vault, principal=SERVICE, permissions=SERVICE_RIGHTS))
    secret_file = place / "service.secret"
    write_durably(secret_file, client.client_secret.encode())
    return SeparateVault(vault, place, home, tenant, owner, subscription, client.id, secret_file)


def start_all(vaults: Sequence[SeparateVault]) -> None:
    """Serve them, beginning with all before waiting for the first."""
    for one in vaults:
        one.begin()
    for one in vaults:
        one.wait()


def _quoted(text: str) -> str:
    """A TOML basic string: JSON's escapes are among its own."""
    return msgspec.json.encode(text).decode()
