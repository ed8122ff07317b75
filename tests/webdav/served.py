"""A real `keystead serve` with WebDAV: a dev home with a site, in a process of its own."""

from __future__ import annotations

from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from keystead.api.types import sites as s
from keystead.api.types import tenants as t
from keystead.client.running import FILE, SECRET, ServerFile
from keystead.wiring import create_home
from support.http import start
from support.webdav import PLANS, ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.http import Server

ADMIN, ALEX = "admin@contoso.example", "alex@contoso.example"


@dataclass(frozen=True)
class Served:
    """What runs.

    Attributes:
        url: of the site, over WebDAV.
        password: everybody's, in a dev home.
    """

    server: Server
    url: str
    password: str

    @property
    def log(self) -> str:
        return self.server.log.read_text()


def make_home(home: Path) -> None:
    """A dev home; what is in it is made when it is served for the first time."""
    create_home(home, dev=True, operator="operator@provider.example")


def fill(server: Server) -> None:
    """Contoso, alex, and a site for all of its people."""
    with closing(server.client()) as operator:
        operator.call("tenant.create", t.CreateTenant(name="Contoso", domain="contoso.example", geo=["EUR"]))
    with closing(server.client(tenant="contoso.example")) as operator:
        operator.call("user.add", t.AddUser(upn=ADMIN, roles=["global-admin"]))
    with closing(server.client(ADMIN)) as admin:
        admin.call("user.add", t.AddUser(upn=ALEX, roles=["user"]))
        admin.call("site.create", s.CreateSite(url=PLANS))


@contextmanager
def webdav_served(home: Path, *options: str, new: bool = False) -> Iterator[Served]:
    """Serve a home with WebDAV until the block ends; it must have ended cleanly."""
    server = start(home, "--webdav", "127.0.0.1:0", *options)
    try:
        if new:
            fill(server)
        described = msgspec.json.decode((home / "run" / FILE).read_bytes(), type=ServerFile)
        yield Served(server, described.webdav + ROOT, (home / "run" / SECRET).read_text())
        assert server.stop() == 0, server.log.read_text()
    finally:
        server.process.kill()
