"""An installation with mail under a customer's keys and a site of files, made and read by way of wiring, in this process.

For tests of whole installations.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from io import BytesIO
from typing import TYPE_CHECKING

from keystead.api.call import Upload
from keystead.api.types import mailboxes as m
from keystead.api.types import policies as p
from keystead.api.types import sites as s
from keystead.api.types import tenants as t
from keystead.api.types import vaults as v
from keystead.core.stores.files import CHUNK_BYTES
from keystead.wiring import open_home

if TYPE_CHECKING:
    from pathlib import Path

    from keystead.wiring import Home
    from support.postgres import Databases

OPERATOR = "operator@provider.example"
ADMIN, ALEX = "admin@contoso.example", "alex@contoso.example"
MESSAGES = [b"From: sam@fabrikam.example\r\nSubject: number %d\r\n\r\nbody %d\r\n" % (n, n) for n in range(30)]
LARGE = b"From: sam@fabrikam.example\r\nSubject: large\r\n\r\n" + b"0123456789abcdef" * 56_000


SITE = "https://contoso.example/sites/plans"
FILES = {"plan": b"the second plan", "notes/today": b"today", "empty": b"", "large": bytes(range(251)) * (CHUNK_BYTES // 250)}


@dataclass
class Source:
    """An installation, and what is in it: items by id, and versions of files by path and number."""

    path: Path
    items: dict[str, bytes]
    files: dict[tuple[str, int], bytes] = field(default_factory=dict)


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
    """A tenant with two vaults, a policy, one mailbox of small items and a larger one, moved under the policy, and a site."""
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
    admin.call("site.create", s.CreateSite(url=SITE))
    for name, data in (("plan", b"the first plan"), *FILES.items()):
        admin.call("site.put", s.UploadFile(site=SITE, path=name, parents=True), upload=Upload(len(data), BytesIO(data).read))
    files = read_files(home)
    assert len(files) == len(FILES) + 1
    home.close()
    return Source(path, items, files)


def add_policy(home: Home, name: str) -> p.PolicyView:
    """A policy with keys of its own, one in each of the two vaults."""
    admin = home.client(home.as_person(ADMIN))
    keys = [
        admin.call("key.create", v.KeyCreate(vault=f"contoso-ck-{number}", name=name.lower(), ops=["wrapKey", "unwrapKey"])).base_id
        for number in (1, 2)
    ]
    made: p.PolicyView = admin.call("policy.create", p.CreatePolicy(name=name, workload="mail", keys=keys))
    return made


def read_files(home: Home) -> dict[tuple[str, int], bytes]:
    """Every version of every file of the site, as a member reads it."""
    alex = home.client(home.as_person(ALEX))
    found = {}
    for name in FILES:
        for version in alex.call("site.versions", s.NameFile(site=SITE, path=name)):
            content = alex.call("site.get", s.DownloadFile(site=SITE, path=name, version=version.number))
            found[name, version.number] = b"".join(map(bytes, content.chunks))
    return found


def read_all(home: Home) -> dict[str, bytes]:
    """Every item as its owner reads it, under the customer's keys."""
    alex = home.client(home.as_person(ALEX))
    assert alex.call("mailbox.statistics", m.NameMailbox(upn=ALEX)).is_encrypted
    listed = alex.call("mailbox.items", m.ListItems(upn=ALEX, limit=1000))
    return {one.id: b"".join(alex.call("mailbox.read", m.NameItem(upn=ALEX, item=one.id)).chunks) for one in listed}
