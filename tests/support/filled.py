"""A tenant with something in it, made through a running server: for tests that need data behind the wire."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from keystead.api.types import mailboxes as m
from keystead.api.types import policies as p
from keystead.api.types import tenants as t
from keystead.api.types import vaults as v
from support.world import PERMISSIONS, message

if TYPE_CHECKING:
    from collections.abc import Iterator

    from keystead.client.client import Client
    from support.http import Server

ADMIN = "admin@contoso.example"
OWNER = "alex@contoso.example"
PEOPLE = ["get", "list", "create", "import", "update", "delete", "recover", "purge", "rotate", "backup", "restore"]


@dataclass
class Filled:
    """What was made.

    Attributes:
        items: ids of the owner's items.
        job: of the assignment.
    """

    server: Server
    items: list[str] = field(default_factory=list)
    job: str = ""
    clients: dict[str, Client] = field(default_factory=dict)

    def client(self, upn: str = "", tenant: str = "") -> Client:
        """As somebody; the operator for nobody named."""
        key = f"{upn} {tenant}"
        if key not in self.clients:
            self.clients[key] = self.server.client(upn, tenant)
        return self.clients[key]

    @property
    def admin(self) -> Client:
        return self.client(ADMIN)

    @property
    def owner(self) -> Client:
        return self.client(OWNER)

    def statistics(self) -> m.MailboxStatistics:
        found: m.MailboxStatistics = self.admin.call("mailbox.statistics", m.NameMailbox(upn=OWNER))
        return found


@contextmanager
def filled(server: Server, *messages: bytes) -> Iterator[Filled]:
    """Contoso: an administrator, two vaults with a key each, a policy, and a mailbox under it with these messages."""
    made = Filled(server)
    try:
        _fill(made, messages or (message(0),))
        yield made
    finally:
        for client in made.clients.values():
            client.close()


def _fill(made: Filled, messages: tuple[bytes, ...]) -> None:
    made.client().call("tenant.create", t.CreateTenant(name="Contoso", domain="contoso.example", geo=["EUR"]))
    made.client(tenant="contoso.example").call("user.add", t.AddUser(upn=ADMIN, roles=["global-admin"]))
    admin = made.admin
    keys = []
    for number, region in ((1, "westeurope"), (2, "eastus")):
        vault, subscription = f"contosov{number}", f"contoso-s{number}"
        admin.call("subscription.create", v.SubscriptionCreate(name=subscription))
        admin.call("subscription.protect", v.SubscriptionNamed(name=subscription))
        admin.call("vault.create", v.VaultCreate(name=vault, subscription=subscription, region=region))
        admin.call("vault.access.grant", v.AccessGrant(vault=vault, principal="mail", permissions=PERMISSIONS))
        admin.call("vault.access.grant", v.AccessGrant(vault=vault, upn=ADMIN, permissions=PEOPLE))
        key: v.KeyView = admin.call("key.create", v.KeyCreate(vault=vault, name="root", ops=["wrapKey", "unwrapKey"]))
        keys.append(key.base_id)
    admin.call("tenant.onboard", t.OnboardTenant(workload="mail", subscriptions=["contoso-s1", "contoso-s2"]))
    admin.call("policy.create", p.CreatePolicy(name="Mail", keys=keys))
    admin.call("mailbox.create", m.CreateMailbox(upn=OWNER))
    items = [m.ImportItem(position=at, ordinal=1, folder="Inbox", data=data) for at, data in enumerate(messages, 1)]
    admin.call("mailbox.import", m.ImportBatch(upn=OWNER, items=items))
    made.job = admin.call("mailbox.assign", m.AssignPolicy(policy="Mail", upns=[OWNER])).job_id
    admin.wait(made.job)
    made.items = [item.id for item in made.owner.call("mailbox.items", m.ListItems(upn=OWNER))]
