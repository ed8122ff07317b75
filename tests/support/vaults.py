"""Vaults served for tests: the real `keystead vault serve` in a process of its own, on loopback and ports the system chooses.

make_vault_home(path, "contoso-v1")
with vaults_served(path) as running:
    running.entries[0].url, running.entries[0].ca_file, ...     # what the ready file says
# stopped by SIGTERM, and it must have ended cleanly
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from keystead.api.types import tenants as t
from keystead.api.types import vaults as v
from keystead.wiring import create_home, open_home
from support.http import PROGRAM, START_SECONDS, STOP_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

OPERATOR, ADMIN = "operator@provider.example", "admin@contoso.example"


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One vault, as the ready file tells of it."""

    name: str
    url: str
    ca_file: str
    authority: str
    tenant_id: str
    client_id: str = ""
    client_secret: str = ""


@dataclass
class ServedVaults:
    """A running `keystead vault serve`.

    Attributes:
        home: whose vaults it serves.
        ready: the ready file.
        log: what it writes to stderr.
    """

    home: Path
    ready: Path
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def entries(self) -> list[Entry]:
        """What the ready file says now."""
        return msgspec.json.decode(self.ready.read_bytes(), type=list[Entry])

    def entry(self, name: str) -> Entry | None:
        """One vault; None where it is not served now."""
        return next((one for one in self.entries if one.name == name), None)

    def until_served(self, name: str, *, gone: bool = False) -> Entry | None:
        """Wait until a vault that was made, or deleted, elsewhere is, or is not, in the ready file."""
        until = time.monotonic() + START_SECONDS
        while (self.entry(name) is None) is not gone:
            assert time.monotonic() < until, self.log.read_text()
            time.sleep(0.05)  # polling another process: nothing else tells
        return self.entry(name)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End it; the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(STOP_SECONDS)


def make_vault_home(path: Path, *vaults: str) -> None:
    """A dev home with a tenant, an administrator, a subscription and vaults."""
    create_home(path, dev=True, operator=OPERATOR)
    make_tenant(path, "contoso.example", *vaults)


def make_tenant(path: Path, domain: str, *vaults: str) -> None:
    """A tenant with an administrator, a subscription and vaults."""
    home = open_home(path, {})
    try:
        operator = home.client(home.as_operator(), domain)
        operator.call("tenant.create", t.CreateTenant(name=domain.partition(".")[0], domain=domain, geo=["EUR"]))
        operator.call("user.add", t.AddUser(upn=f"admin@{domain}", roles=["global-admin", "key-vault-administrator"]))
        home.client(home.as_person(f"admin@{domain}")).call("subscription.create", v.SubscriptionCreate(name="s1"))
    finally:
        home.close()
    for name in vaults:
        make_vault(path, name, f"admin@{domain}")


def make_vault(path: Path, name: str, upn: str = ADMIN) -> None:
    """One more vault."""
    call_as_admin(path, "vault.create", v.VaultCreate(name=name, subscription="s1", region="westeurope"), upn)


def call_as_admin(path: Path, route: str, request: object, upn: str = ADMIN) -> object:
    """Call a route as the tenant's administrator, beside whatever runs on the home."""
    home = open_home(path, {})
    try:
        return home.client(home.as_person(upn)).call(route, request)
    finally:
        home.close()


def start_vaults(home: Path, *options: str, environment: Mapping[str, str] | None = None) -> ServedVaults:
    """Start `keystead vault serve` and wait until it answers; `environment` is added to a copy of this process's."""
    number = time.monotonic_ns()
    ready, log = home / "run" / f"ready-{number}", home / "run" / f"log-{number}"
    command = [*PROGRAM, "vault", "serve", "--home", str(home), "--ready-file", str(ready), *options]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env={**os.environ, **(environment or {})}, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
    until = time.monotonic() + START_SECONDS
    while not ready.exists():
        if process.poll() is not None or time.monotonic() > until:
            process.kill()
            process.wait()
            raise AssertionError(f"vaults are not served: {log.read_text()}")
        time.sleep(0.02)  # polling for another process: nothing else tells
    return ServedVaults(home, ready, process, log)


@contextmanager
def vaults_served(home: Path, *options: str, environment: Mapping[str, str] | None = None) -> Iterator[ServedVaults]:
    """Vaults for the length of a block; the process must end by itself with exit code 0 when told to."""
    running = start_vaults(home, *options, environment=environment)
    try:
        yield running
        code = running.stop()
        assert code == 0, f"exit code {code}: {running.log.read_text()}"
        assert not running.ready.exists(), "the ready file is removed at the end"
    finally:
        if running.process.poll() is None:
            running.process.kill()
            running.process.wait()
