"""A real process of a real home, killed with SIGKILL at moments of chance: nothing lost, nothing twice, bytes equal."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from keystead.api.types import mailboxes as m
from keystead.api.types import policies as p
from keystead.api.types import tenants as t
from keystead.api.types import vaults as v
from keystead.api.types import watching as w
from keystead.services.jobs.runner import run_due
from keystead.wiring import create_home, open_home
from support.killed import ADMIN, BATCHES, SIZE, UPN, batch, mail

if TYPE_CHECKING:
    from keystead.client.client import Client
    from keystead.wiring import Home

ROUNDS = 3
SLICES = 20
"""Of a move; each tells of at least one step."""


def as_admin(home: Home) -> Client:
    return home.client(home.as_person(ADMIN))


@pytest.fixture(scope="module")
def home_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dev home with a tenant and two policies, where a job whose runner is silent is waited for longer than a test may last."""
    path = tmp_path_factory.mktemp("homes") / "home"
    path.mkdir(mode=0o700)
    (path / "keystead.toml").write_text("[settings]\njob_lease = 3600000\n")
    create_home(path, dev=True, operator="operator@provider.example")
    home = open_home(path)
    operator = home.client(home.as_operator())
    operator.call("tenant.create", t.CreateTenant(name="Contoso", domain="contoso.example", geo=["EUR"]))
    operator.call("user.add", t.AddUser(upn=ADMIN, roles=["global-admin"]))
    admin = as_admin(home)
    keys = []
    for number, region in ((1, "westeurope"), (2, "eastus")):
        admin.call("subscription.create", v.SubscriptionCreate(name=f"s{number}"))
        admin.call("subscription.protect", v.SubscriptionNamed(name=f"s{number}"))
        admin.call("vault.create", v.VaultCreate(name=f"vault{number}", subscription=f"s{number}", region=region))
        admin.call(
            "vault.access.grant", v.AccessGrant(vault=f"vault{number}", principal="mail", permissions=["get", "wrapKey", "unwrapKey"])
        )
        keys.append(admin.call("key.create", v.KeyCreate(vault=f"vault{number}", name="root", ops=["wrapKey", "unwrapKey"])).base_id)
    admin.call("tenant.onboard", t.OnboardTenant(workload="mail", subscriptions=["s1", "s2"]))
    for name in ("First", "Second"):
        admin.call("policy.create", p.CreatePolicy(name=name, keys=keys))
    home.close()
    return path


def kill_after(path: Path, what: str, steps: int, seconds: float) -> None:
    """Start a process that does it, and kill it so long after so many steps: it has many more of them before it."""
    child = subprocess.Popen(
        [sys.executable, "-m", "support.killed", str(path), what],
        cwd=Path(__file__).parents[1],
        env=os.environ | {"KEYSTEAD_SLICE_ITEMS": str(BATCHES * SIZE // SLICES)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        assert child.stdout is not None
        for _ in range(1 + steps):
            assert child.stdout.readline(), child.stderr and child.stderr.read()
        time.sleep(seconds)  # somewhere within a step
        child.send_signal(signal.SIGKILL)
        assert child.wait(60) == -signal.SIGKILL, "it was still at it"
    finally:
        child.kill()
        child.communicate()


def contents(home: Home) -> list[bytes]:
    owner = home.client(home.as_person(UPN))
    found: list[m.ItemView] = []
    after = ""
    while page := owner.call("mailbox.items", m.ListItems(upn=UPN, after=after, limit=1000)):
        found += page
        after = page[-1].id
    return sorted(b"".join(owner.call("mailbox.read", m.NameItem(upn=UPN, item=item.id)).chunks) for item in found)


def test_a_killed_import_and_a_killed_move_lose_nothing(home_path: Path) -> None:
    """R-097, R-098."""
    chance = random.Random(20260601)
    home = open_home(home_path)
    as_admin(home).call("mailbox.create", m.CreateMailbox(upn=UPN))
    home.close()
    for _round in range(ROUNDS):
        kill_after(home_path, "import", chance.randrange(BATCHES // 2), chance.uniform(0, 0.01))
    home = open_home(home_path)
    results = [as_admin(home).call("mailbox.import", batch(number)) for number in range(BATCHES)]
    expected = sorted(data for number in range(BATCHES) for data in mail(number))
    assert sum(result.imported + result.already_present for result in results) == len(expected)
    assert contents(home) == expected
    for number in range(ROUNDS):
        policy = ("First", "Second")[number % 2]
        asked = as_admin(home).call("mailbox.assign", m.AssignPolicy(policy=policy, upns=[UPN]))
        home.close()
        kill_after(home_path, "work", chance.randrange(SLICES // 2), chance.uniform(0, 0.01))
        home = open_home(home_path)
        assert contents(home) == expected, "readable at once, wherever the move stands"
        assert as_admin(home).wait(asked.job_id).state == "done", "a killed process's lease is not waited for"
        found = as_admin(home).call("mailbox.statistics", m.NameMailbox(upn=UPN))
        assert (found.policy_name, found.is_encrypted, found.item_count) == (policy, True, len(expected))
        assert contents(home) == expected
    as_operator = home.client(home.as_operator())
    as_operator.call("dev.clock.advance", w.AdvanceClock(milliseconds=7_200_000))
    run_due(home.services)
    assert contents(home) == expected
    with home.services.db.read() as tx:
        mailbox = tx.mailboxes.find(as_admin(home).call("tenant.show", t.ShowTenant()).id, UPN)
        assert mailbox is not None
        assert len(tx.mailboxes.keys(mailbox.id)) == 1
    home.close()
    assert not [path for path in home_path.rglob("*") if path.is_file() and b"Persimmon" in path.read_bytes()]
