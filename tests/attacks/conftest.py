"""Two tenants with mail under their own keys, made once; every attack works on a copy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from keystead.api.types.vault_clients import ClientCreate, ClientSecretShown
from keystead.core.access.tokens import TokenKind
from keystead.services import tenants
from keystead.services.tokens import issue
from support.world import MailboxWorld, World, message

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from keystead.api.types import policies as p
    from keystead.client.client import Client
    from support.world import Process, TenantWorld

LARGE = message(9, subject="Large", size=5 * 1024 * 1024)
"""Two parts."""


@dataclass
class Scene:
    """`contoso` with the mailboxes alice (with a large item) and bob under the policy Mail, carol under provider keys; `fabrikam` with dave
    and a client of its vaults."""

    world: World
    contoso: TenantWorld
    fabrikam: TenantWorld
    mail: p.PolicyView
    other: p.PolicyView
    client: ClientSecretShown

    def box(self, upn: str) -> MailboxWorld:
        tenant = self.contoso if upn.endswith("@contoso.example") else self.fabrikam
        return MailboxWorld(tenant, upn)

    @property
    def alice(self) -> MailboxWorld:
        return self.box("alice@contoso.example")

    @property
    def boxes(self) -> list[MailboxWorld]:
        return [
            self.box(name) for name in ("alice@contoso.example", "bob@contoso.example", "carol@contoso.example", "dave@fabrikam.example")
        ]

    def owner(self, upn: str, process: Process) -> Client:
        return process.client(tenants.impersonate(process.services, upn))

    def fail(self, kind: str, process: Process | None = None, vaults: tuple[str, ...] = ("contosov1", "contosov2")) -> None:
        for vault in vaults:
            (process or self.world.first).vaults.fail(vault, kind)

    def id_of(self, upn: str) -> str:
        return str(self.world.sql("SELECT id FROM mailboxes WHERE upn = ?", upn)[0][0])


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Scene]]:
    """What every scene is a copy of, one for each kind of database."""
    known: dict[str, Scene] = {}

    def scene_on(kind: str) -> Scene:
        if kind not in known:
            known[kind] = _made(tmp_path_factory.mktemp("attacked"))
        return known[kind]

    yield scene_on
    for scene in known.values():
        scene.world.close()


def _made(path: Path) -> Scene:
    world = World(path)
    contoso, fabrikam = world.tenant("contoso.example"), world.tenant("fabrikam.example")
    mail, other = contoso.policy("Mail"), fabrikam.policy("Mail")
    alice, bob, dave = contoso.mailbox("alice"), contoso.mailbox("bob"), fabrikam.mailbox("dave")
    carol = contoso.mailbox("carol")
    for number, box in enumerate((alice, bob, carol, dave)):
        box.add(
            *(message(index, subject=f"{box.upn} {index}", body=f"body {number} {index}") for index in range(3)), folder=f"Folder {number}"
        )
    alice.add_large(LARGE)
    contoso.assign(mail, alice, bob)
    fabrikam.assign(other, dave)
    with world.services.db.write() as tx:
        issue(world.services, tx, TokenKind.SIGN_IN, dave.upn, fabrikam.id)
    client: ClientSecretShown = fabrikam.admin.call("vault.client.create", ClientCreate(name="backup-job"))
    return Scene(world, contoso, fabrikam, mail, other, client)


@pytest.fixture
def scene(made: Callable[[str], Scene], tmp_path: Path, database: str) -> Iterator[Scene]:
    first = made(database)
    world = World(tmp_path, like=first.world)
    yield Scene(world, first.contoso.within(world), first.fabrikam.within(world), first.mail, first.other, first.client)
    world.close()
