"""A tenant that is ready for files: onboarded, with keys of two versions in two vaults, sites and what is in them."""

from __future__ import annotations

from dataclasses import dataclass, field
from io import BytesIO
from itertools import count
from typing import TYPE_CHECKING, Literal

from keystead.api.call import Content, Upload
from keystead.api.types import file_policies as t
from keystead.api.types import sites as s
from keystead.api.types import tenants as n
from keystead.api.types import vaults as v
from keystead.api.types import watching as w
from keystead.core.policies.policy import Workload
from keystead.services.jobs.runner import run_due
from support.world import OPERATOR, PERMISSIONS, TenantWorld

if TYPE_CHECKING:
    from collections.abc import Mapping

    from keystead.client.client import Client
    from support.world import World

_numbers = count(1)


@dataclass
class FilesWorld:
    """One tenant.

    Attributes:
        tenant: with two vaults, each with a key `files`.
        primary, secondary: their identifiers with version.
        sites: URLs of those that were made.
        spare: two more keys, for whoever wants them.
    """

    tenant: TenantWorld
    primary: str = ""
    secondary: str = ""
    sites: list[str] = field(default_factory=list)
    spare: tuple[str, str] = ("", "")

    @property
    def world(self) -> World:
        return self.tenant.world

    @property
    def admin(self) -> Client:
        return self.tenant.admin

    @property
    def vaults(self) -> tuple[str, str]:
        return f"{self.tenant.name}v1", f"{self.tenant.name}v2"

    # -- keys

    def key(self, vault: str, name: str) -> str:
        """A key of that name, or another version of it; its identifier with version."""
        made: v.KeyView = self.admin.call("key.create", v.KeyCreate(vault=vault, name=name, ops=["wrapKey", "unwrapKey"]))
        return made.id

    def pair(self, name: str) -> tuple[str, str]:
        """Keys of that name in both vaults."""
        first, second = self.vaults
        return self.key(first, name), self.key(second, name)

    def switch(self, uri: str, *, on: bool) -> None:
        """Enable or disable one key version; whatever is cached is asked again."""
        host, _keys, name, version = uri.removeprefix("https://").split("/")
        request = v.KeyVersionNamed(vault=host.partition(".")[0], name=name, version=version)
        self.admin.call("key.enable" if on else "key.disable", request)
        self.world.clock.advance(61_000)

    def forbid(self, vault: str) -> None:
        """Take the files application's rights in a vault away."""
        self.admin.call("vault.access.revoke", v.AccessRevoke(vault=vault, principal="files"))

    # -- the policy of a geo

    def register(self, geo: str = "EUR", *, wait: bool = True, primary: str = "", secondary: str = "") -> t.FilesStatus:
        """Register a geo, and by default run the jobs to their end."""
        request = t.RegisterFiles(geo=geo, primary=primary or self.primary, secondary=secondary or self.secondary)
        return self.finish(self.admin.call("files.register", request), wait=wait)

    def roll(self, which: Literal["primary", "secondary"], key: str, geo: str = "EUR", *, wait: bool = True) -> t.FilesStatus:
        return self.finish(self.admin.call("files.roll", t.RollFiles(geo=geo, which=which, key=key)), wait=wait)

    def recover(self, primary: str, secondary: str, geo: str = "EUR", *, wait: bool = True) -> t.FilesStatus:
        return self.finish(self.admin.call("files.recover", t.RecoverFiles(geo=geo, primary=primary, secondary=secondary)), wait=wait)

    def revert(self, geo: str = "EUR", *, wait: bool = True) -> t.FilesStatus:
        return self.finish(self.admin.call("files.revert", t.NameGeo(geo=geo)), wait=wait)

    def finish(self, started: t.FilesStatus, *, wait: bool = True) -> t.FilesStatus:
        if not wait:
            return started
        run_due(self.world.services)
        return self.status(started.geo)

    def status(self, geo: str = "EUR") -> t.FilesStatus:
        found: t.FilesStatus = self.admin.call("files.status", t.NameGeo(geo=geo))
        return found

    def health(self, geo: str = "EUR") -> str:
        found: t.FilesHealth = self.admin.call("files.health", t.NameGeo(geo=geo))
        return found.state

    def job(self, status: t.FilesStatus) -> w.JobView:
        assert status.job_id is not None
        found: w.JobView = self.admin.call("job.show", w.NameJob(job=status.job_id))
        return found

    # -- sites and what is in them

    def site(self, name: str = "", files: Mapping[str, bytes] | None = None, geo: str = "EUR") -> str:
        """Make a site of the administrator's with these files; its URL."""
        url = f"https://{self.tenant.name}.sharepoint.example/sites/{name or f'site-{next(_numbers)}'}"
        self.admin.call("site.create", s.CreateSite(url=url, geo=geo))
        self.sites.append(url)
        self.put(url, files or {})
        return url

    def put(self, url: str, files: Mapping[str, bytes]) -> None:
        for path, data in files.items():
            self.admin.call("site.put", s.UploadFile(site=url, path=path, parents=True), upload=Upload(len(data), BytesIO(data).read))

    def get(self, url: str, path: str, *, version: int | None = None, client: Client | None = None) -> bytes:
        content: Content = (client or self.admin).call("site.get", s.DownloadFile(site=url, path=path, version=version))
        return b"".join(bytes(chunk) for chunk in content.chunks)

    def show(self, url: str) -> s.SiteStatus:
        found: s.SiteStatus = self.admin.call("site.status", s.NameSite(site=url))
        return found

    def policies(self) -> set[str]:
        """Ids of the files policies that are in the database."""
        return {str(row[0]) for row in self.world.sql("SELECT id FROM policies WHERE workload = ?", Workload.FILES.value)}


def files_world(world: World, domain: str = "contoso.example", geos: tuple[str, ...] = ("EUR",)) -> FilesWorld:
    """A tenant with a global administrator, two protected vaults that the files application may use, and a key in each."""
    name = domain.partition(".")[0]
    made = world.operator.call("tenant.create", n.CreateTenant(name=name.title(), domain=domain, geo=list(geos)))
    world.client(OPERATOR, made.id).call("user.add", n.AddUser(upn=f"admin@{domain}", roles=["global-admin"]))
    tenant = TenantWorld(world, made.id, name, domain)
    for vault, region in ((f"{name}v1", "westeurope"), (f"{name}v2", "eastus")):
        tenant.make_vault(vault, f"{vault}-s", region)
        tenant.admin.call("vault.access.grant", v.AccessGrant(vault=vault, principal="files", permissions=PERMISSIONS))
    for workload in ("mail", "files"):
        onboard = n.OnboardTenant(workload=workload, subscriptions=[f"{name}v1-s", f"{name}v2-s"])
        tenant.admin.call("tenant.onboard", onboard)
    made_world = FilesWorld(tenant)
    made_world.primary, made_world.secondary = made_world.pair("files")
    return made_world
