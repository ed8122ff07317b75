"""An installation with mail under a customer's keys, made and read by way of wiring, in this process: for tests of whole installations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from keystead.api.types import mailboxes as m
from keystead.api.types import policies as p
from keystead.api.types import tenants as t
from keystead.api.types import vaults as v
from keystead.wiring import open_home

if TYPE_CHECKING:
    from pathlib import Path

    from keystead.wiring import Home
    from support.postgres import Databases

OPERATOR = "operator@provider.example"
ADMIN, ALEX = "admin@contoso.example", "alex@contoso.example"
MESSAGES = [b"From: sam@fabrikam.example\r\nSubject: number %d\r\n\r\nbody %d\r\n" % (n, n) for n in range(30)]
LARGE = b"From: sam@fabrikam.example\r\nSubject: large\r\n\r\n" + b"0123456789abcdef" * 56_000


@dataclass
class Source:
    """An installation, and what is in it by the id of each item."""

    path: Path
    items: dict[str, bytes]


def write_member(path: Path, databases: Databases, more: str = "") -> None:
    """keystead.toml of a member of a dev fleet; `more` is put behind."""
    path.mkdir(exist_ok=True)
    (path / "keystead.toml").write_text(
        f"""
[installation]
dev = true
operator = "{OPERATOR}"
[database]
url = "{databases.keystead_url}"
[keystore]
url = "{databases.keys_url}"
[vault]
url = "{databases.vault_url}"
{more}
"""
    )


def fill(path: Path) -> Source:
    """A tenant with two vaults, a policy, and one mailbox of small items and a larger one, moved under the policy."""
    home = open_home(path, {})
    operator = home.client(home.as_operator(), "contoso.example")
    operator.call("tenant.create", t.CreateTenant(name="contoso", domain="contoso.example", geo=["EUR"]))
    operator.call("user.add", t.AddUser(upn=ADMIN, roles=["global-admin", "key-vault-administrator"]))
    admin = home.client(home.as_person(ADMIN))
    for number, region in ((1, "westeurope"), (2, "eastus")):
        vault = f"contoso-ck-{number}"
        admin.call("subscription.create", v.SubscriptionCreate(name=f"s{number}"))
        admin.call("subscription.protect", v.SubscriptionNamed(name=f"s{number}"))
        admin.call("vault.create", v.VaultCreate(name=vault, subscription=f"s{number}", region=region))
        admin.call("vault.access.grant", v.AccessGrant(vault=vault, principal="mail", permissions=["get", "wrapKey", "unwrapKey"]))
    admin.call("tenant.onboard", t.OnboardTenant(workload="mail", subscriptions=["s1", "s2"]))
    add_policy(home, "Mail")
    admin.call("mailbox.create", m.CreateMailbox(upn=ALEX))
    batch = [m.ImportItem(position=n, ordinal=1, folder="Inbox", data=data) for n, data in enumerate([*MESSAGES, LARGE], start=1)]
    admin.call("mailbox.import", m.ImportBatch(upn=ALEX, items=batch))
    admin.wait(admin.call("mailbox.assign", m.AssignPolicy(policy="Mail", upns=[ALEX])).job_id)
    items = read_all(home)
    assert len(items) == len(batch)
    home.close()
    return Source(path, items)


def add_policy(home: Home, name: str) -> p.PolicyView:
    """A policy with keys of its own, one in each of the two vaults."""
    admin = home.client(home.as_person(ADMIN))
    keys = [
        admin.call("key.create", v.KeyCreate(vault=f"contoso-ck-{number}", name=name.lower(), ops=["wrapKey", "unwrapKey"])).base_id
        for number in (1, 2)
    ]
    made: p.PolicyView = admin.call("policy.create", p.CreatePolicy(name=name, workload="mail", keys=keys))
    return made


def read_all(home: Home) -> dict[str, bytes]:
    """Every item as its owner reads it, under the customer's keys."""
    alex = home.client(home.as_person(ALEX))
    assert alex.call("mailbox.statistics", m.NameMailbox(upn=ALEX)).is_encrypted
    listed = alex.call("mailbox.items", m.ListItems(upn=ALEX, limit=1000))
    return {one.id: b"".join(alex.call("mailbox.read", m.NameItem(upn=ALEX, item=one.id)).chunks) for one in listed}
