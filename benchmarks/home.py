"""A dev home to measure in: one tenant with two vaults and keys, onboarded, with two policies."""

from __future__ import annotations

import gc
from contextlib import contextmanager
from typing import TYPE_CHECKING

from keystead.api.types import file_policies as f
from keystead.api.types import mailboxes as m
from keystead.api.types import policies as p
from keystead.api.types import sites as s
from keystead.api.types import tenants as t
from keystead.api.types import vaults as v
from keystead.cli.main import GC_THRESHOLD
from keystead.wiring import create_home, open_home

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from keystead.client.client import Client
    from keystead.wiring import Home

DOMAIN = "contoso.example"
ADMIN = f"admin@{DOMAIN}"
POLICIES = ("bench-1", "bench-2")
GEO = "EUR"
SITE = f"https://{DOMAIN}/sites/bench"
SITE_OWNER = f"alex@{DOMAIN}"
_VAULTS = (("bench-vault-1", "bench-s1", "westeurope"), ("bench-vault-2", "bench-s2", "eastus"))


@contextmanager
def bench_home(path: Path) -> Iterator[Home]:
    """Make the home, or in a folder with a keystead.toml the member of a fleet, and open it until the block ends."""
    gc.set_threshold(GC_THRESHOLD)  # as the program itself runs
    create_home(path, dev=True, operator="operator@provider.example")
    home = open_home(path, {})
    try:
        home.client(home.as_operator()).call("tenant.create", t.CreateTenant(name="Contoso", domain=DOMAIN, geo=[GEO]))
        home.client(home.as_operator(), DOMAIN).call("user.add", t.AddUser(upn=ADMIN, roles=["global-admin"]))
        _onboard(admin(home))
        yield home
    finally:
        home.close()


@contextmanager
def files_home(path: Path) -> Iterator[Home]:
    """The same, its geo registered under two customer keys, with one empty site."""
    with bench_home(path) as home:
        client = admin(home)
        for vault, _subscription, _region in _VAULTS:
            client.call("vault.access.grant", v.AccessGrant(vault=vault, principal="files", permissions=["get", "wrapKey", "unwrapKey"]))
        client.call("tenant.onboard", t.OnboardTenant(workload="files", subscriptions=[subscription for _v, subscription, _r in _VAULTS]))
        primary, secondary = file_keys(home)
        done(client, client.call("files.register", f.RegisterFiles(geo=GEO, primary=primary, secondary=secondary)))
        client.call("user.add", t.AddUser(upn=SITE_OWNER, roles=["user"]))
        client.call("site.create", s.CreateSite(url=SITE, geo=GEO, owner=SITE_OWNER))
        yield home


def file_keys(home: Home) -> list[str]:
    """A new version of a key in each vault; their identifiers, primary first."""
    made = [
        admin(home).call("key.create", v.KeyCreate(vault=vault, name="files", ops=["wrapKey", "unwrapKey"]))
        for vault, _subscription, _region in _VAULTS
    ]
    return [key.id for key in made]


def done(client: Client, asked: f.FilesStatus) -> None:
    """Get on with what was asked for a geo, to its end."""
    assert asked.job_id is not None
    job = client.wait(asked.job_id)
    if job.state != "done":
        raise RuntimeError(f"the job of {asked.geo} ended as {job.state}: {job.error}")


@contextmanager
def opened(path: Path) -> Iterator[Home]:
    """Open a home that another process made."""
    gc.set_threshold(GC_THRESHOLD)  # as the program itself runs
    home = open_home(path, {})
    try:
        yield home
    finally:
        home.close()


def admin(home: Home) -> Client:
    return home.client(home.as_person(ADMIN), DOMAIN)


def owner(home: Home, upn: str) -> Client:
    return home.client(home.as_person(upn), DOMAIN)


def mailbox(home: Home, local: str) -> str:
    """Make a mailbox; its UPN."""
    upn = f"{local}@{DOMAIN}"
    admin(home).call("mailbox.create", m.CreateMailbox(upn=upn))
    return upn


def assign(home: Home, policy: str, upn: str) -> str:
    """Ask for a policy; the job that makes it so."""
    asked: m.AssignmentView = admin(home).call("mailbox.assign", m.AssignPolicy(policy=policy, upns=[upn]))
    return asked.job_id


def item_ids(client: Client, upn: str) -> list[str]:
    """Ids of all items of a mailbox."""
    found: list[str] = []
    while True:
        page: list[m.ItemView] = client.call("mailbox.items", m.ListItems(upn=upn, after=found[-1] if found else "", limit=1000))
        if not page:
            return found
        found += [item.id for item in page]


def read(client: Client, upn: str, item: str) -> int:
    """Read an item whole; its bytes."""
    return sum(len(chunk) for chunk in client.call("mailbox.read", m.NameItem(upn=upn, item=item)).chunks)


def _onboard(client: Client) -> None:
    keys: list[str] = []
    for vault, subscription, region in _VAULTS:
        client.call("subscription.create", v.SubscriptionCreate(name=subscription))
        client.call("subscription.protect", v.SubscriptionNamed(name=subscription))
        client.call("vault.create", v.VaultCreate(name=vault, subscription=subscription, region=region))
        client.call("vault.access.grant", v.AccessGrant(vault=vault, principal="mail", permissions=["get", "wrapKey", "unwrapKey"]))
        keys.append(client.call("key.create", v.KeyCreate(vault=vault, name="root", ops=["wrapKey", "unwrapKey"])).base_id)
    client.call("tenant.onboard", t.OnboardTenant(workload="mail", subscriptions=[subscription for _v, subscription, _r in _VAULTS]))
    for policy in POLICIES:
        client.call("policy.create", p.CreatePolicy(name=policy, keys=keys))
