"""A fleet for tests: members that share PostgreSQL, objects and seals, each a directory with the same keystead.toml.

cluster = Cluster()                              # of tests.support.postgres; `cluster()` where the test does not break it
fleet = Fleet(tmp_path, cluster.databases(), containers=[...])
home = fleet.open()                              # in this process
worker = fleet.worker("--concurrency", "2")      # a process of its own; `start` of tests.support.http makes servers of `fleet.home`
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from keystead.adapters.sql.engine import open_engine
from keystead.adapters.sql.migrate import upgrade
from keystead.api.types import policies as p
from keystead.api.types import tenants as t
from keystead.api.types import vaults as v
from keystead.core.configuration import ContainerConfig, ContainerKind
from keystead.settings import read_written
from keystead.wiring import create_home, open_home
from support.http import PROGRAM
from support.world import PERMISSIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from keystead.client.client import Client
    from keystead.wiring import Home
    from support.postgres import Databases

START_SECONDS, STOP_SECONDS = 60, 60


@dataclass
class Fleet:
    """An installation on PostgreSQL, as a dev one; `init` was run.

    Attributes:
        home: the directory of a member; made if it is not there.
        databases: empty.
        containers: of its objects; none for a folder that all members share.
        tables: further tables of keystead.toml.
    """

    home: Path
    databases: Databases
    containers: Sequence[ContainerConfig] = ()
    tables: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Write the file, make the tables and the operator."""
        self.home.mkdir(mode=0o700, exist_ok=True)
        seals = self.home / "seals"
        tables: dict[str, dict[str, Any]] = {
            "installation": {"dev": True},
            "database": {"url": self.databases.keystead_url},
            "keystore": {"url": self.databases.keys_url, "seals": f"{seals}", "master_file": f"{seals}/keystore.master"},
            "vault": {"url": self.databases.vault_url, "seal_file": f"{seals}/vault.seal"},
            "worker": {"runner": "procrastinate"},
            "server": {"jobs": 0},
        }
        for name, values in self.tables.items():
            tables[name] = {**tables.get(name, {}), **values}
        lines = [_table(f"[{name}]", values) for name, values in tables.items()]
        containers = self.containers or [ContainerConfig("c0", ContainerKind.FOLDER, path=f"{self.home / 'shared'}")]
        lines += [_table("[[objects.containers]]", asdict(container)) for container in containers]
        (self.home / "keystead.toml").write_text("\n".join(lines))
        configuration = read_written(self.home, {}).configuration
        for family, config in (
            ("keystead", configuration.database),
            ("keys", configuration.keystore.database),
            ("vault", configuration.vault.database),
        ):
            engine = open_engine(config, self.home / "none", self.home)
            upgrade(engine, family)
            engine.dispose()
        create_home(self.home, dev=True, operator="operator@provider.example")

    def member(self, path: Path) -> Path:
        """One more member, as on another machine: the same file and the same seals, but a `run` folder of its own."""
        (path / "run").mkdir(mode=0o700, parents=True)
        (path / "keystead.toml").write_text((self.home / "keystead.toml").read_text())
        return path

    def open(self, **environment: str) -> Home:
        """One more process of the fleet, inside this one."""
        return open_home(self.home, environment)

    def worker(self, *options: str, member: Path | None = None, environment: Mapping[str, str] | None = None) -> Worker:
        """Start a worker of a member; of the first if none is named."""
        return start_worker(member or self.home, *options, environment=environment)


def start_worker(home: Path, *options: str, environment: Mapping[str, str] | None = None) -> Worker:
    """Start `keystead worker`, and wait until it says that it works."""
    log = home / "run" / f"worker-{time.monotonic_ns()}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*PROGRAM, "worker", "--home", str(home), *options],
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    until = time.monotonic() + START_SECONDS
    while b"at once" not in log.read_bytes():
        if process.poll() is not None or time.monotonic() > until:
            process.kill()
            raise AssertionError(f"the worker did not start: {log.read_text()}")
        time.sleep(0.02)  # polling for another process: nothing else tells
    return Worker(process, log)


def tenant(client: Callable[[str, str], Client], domain: str = "contoso.example") -> Client:
    """Make a tenant with an administrator, two vaults, two keys and the policy Mail; gives the administrator's client.

    Args:
        client: makes the client of a person (nobody named: the operator) for a tenant.
        domain: of the tenant.
    """
    name, admin_upn = domain.partition(".")[0], f"admin@{domain}"
    made = client("", "").call("tenant.create", t.CreateTenant(name=name.title(), domain=domain, geo=["EUR"]))
    client("", made.id).call("user.add", t.AddUser(upn=admin_upn, roles=["global-admin"]))
    admin = client(admin_upn, "")
    keys = []
    for number, region in ((1, "westeurope"), (2, "eastus")):
        subscription, vault = f"{name}-s{number}", f"{name}v{number}"
        admin.call("subscription.create", v.SubscriptionCreate(name=subscription))
        admin.call("subscription.protect", v.SubscriptionNamed(name=subscription))
        admin.call("vault.create", v.VaultCreate(name=vault, subscription=subscription, region=region))
        admin.call("vault.access.grant", v.AccessGrant(vault=vault, principal="mail", permissions=PERMISSIONS))
        admin.call("vault.access.grant", v.AccessGrant(vault=vault, upn=admin_upn, permissions=["get", "list", "create", "update"]))
        keys.append(admin.call("key.create", v.KeyCreate(vault=vault, name="root", ops=["wrapKey", "unwrapKey"])).base_id)
    admin.call("tenant.onboard", t.OnboardTenant(workload="mail", subscriptions=[f"{name}-s1", f"{name}-s2"]))
    admin.call("policy.create", p.CreatePolicy(name="Mail", keys=keys))
    return admin


@dataclass
class Worker:
    """A running worker, and what it writes."""

    process: subprocess.Popen[bytes]
    log: Path

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End it; the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(STOP_SECONDS)


def _table(head: str, values: Mapping[str, Any]) -> str:
    """TOML of one table; JSON's texts, numbers, lists and truth values are TOML's too."""
    return "\n".join([head, *(f"{name} = {json.dumps(value)}" for name, value in values.items()), ""])
