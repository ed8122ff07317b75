"""Sites, files and their keys of another tenant: not found by any name, nothing of theirs shown, and rows carried over open nothing."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import pytest

from keystead.api.call import Content, Upload
from keystead.api.types import file_policies as f
from keystead.api.types import sites as s
from keystead.core.errors import IntegrityFailure, KeysteadError, NotFound, PreconditionFailed
from keystead.services import tenants
from keystead.services.verification import verify
from support.file_world import files_world
from support.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator

    from keystead.client.client import Client

FILES = {"/plan": b"their plan", "/notes/one": b"one"}


class Pair:
    """Two tenants, each with a registered geo and a site of the same files."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.ours, self.theirs = files_world(world), files_world(world, "fabrikam.example")
        self.our_site, self.their_site = (side.site("plans", FILES) for side in (self.ours, self.theirs))
        for side in (self.ours, self.theirs):
            side.register()

    def id(self, url: str) -> str:
        return str(self.world.sql("SELECT id FROM sites WHERE url = ?", url)[0][0])

    def node(self, url: str, kind: str = "file") -> str:
        return str(self.world.sql("SELECT id FROM file_nodes WHERE site_id = ? AND kind = ? LIMIT 1", self.id(url), kind)[0][0])

    def rows(self) -> list[Any]:
        """All that is theirs."""
        site = self.id(self.their_site)
        queries = {
            "SELECT * FROM sites WHERE id = ?": site,
            "SELECT * FROM site_keys WHERE site_id = ?": site,
            "SELECT * FROM site_members WHERE site_id = ?": site,
            "SELECT * FROM site_trees WHERE site_id = ?": site,
            "SELECT * FROM file_nodes WHERE site_id = ? ORDER BY id": site,
            "SELECT * FROM file_versions WHERE site_id = ? ORDER BY node_id": site,
            "SELECT * FROM file_chunks WHERE site_id = ? ORDER BY id": site,
            "SELECT * FROM objects WHERE owner_id = ? ORDER BY ref": site,
            "SELECT * FROM file_geos WHERE tenant_id = ?": self.theirs.tenant.id,
        }
        return [self.world.sql(query, value) for query, value in queries.items()]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, database: str) -> Iterator[Pair]:
    world = World(tmp_path_factory.mktemp("world"))
    yield Pair(world)
    world.close()


def ask(client: Client, route: str, request: Any) -> Any:
    """Do it; the first bytes of what is streamed, too."""
    if route == "site.put":
        return client.call(route, request, upload=Upload(4, io.BytesIO(b"spam").read))
    found = client.call(route, request)
    return next(iter(found.chunks)) if isinstance(found, Content) else found


def requests(site: str, node: str) -> list[tuple[str, Any]]:
    """Everything that names a site."""
    return [
        ("site.status", s.NameSite(site=site)),
        ("site.set", s.SetSite(site=site, shared=True)),
        ("site.delete", s.NameSite(site=site)),
        ("site.member.add", s.SiteMember(site=site, member="admin@contoso.example")),
        ("site.member.remove", s.SiteMember(site=site, member="admin@fabrikam.example")),
        ("site.member.list", s.NameSite(site=site)),
        ("site.unlock", s.NameSite(site=site)),
        ("site.ls", s.ListFiles(site=site)),
        ("site.put", s.UploadFile(site=site, path="/plan")),
        ("site.put-batch", s.UploadBatch(site=site, files=[s.BatchFile(path="/plan", data=b"spam")])),
        ("site.get", s.DownloadFile(site=site, path="/plan")),
        ("site.get-batch", s.GetBatch(site=site, files=[node])),
        ("site.mkdir", s.MakeFolder(site=site, path="/spam")),
        ("site.mv", s.MoveFile(site=site, path="/plan", to="/spam")),
        ("site.rm", s.RemoveFile(site=site, path="/plan")),
        ("site.versions", s.NameFile(site=site, path="/plan")),
        ("site.restore-version", s.RestoreVersion(site=site, path="/plan", version=1)),
    ]


def test_R_241_sites_of_another_tenant_are_not_found_by_url_or_id(pair: Pair) -> None:
    before = pair.rows()
    impersonated = pair.world.client(tenants.impersonate(pair.world.services, "admin@contoso.example"), pair.ours.tenant.id)
    for client in (pair.ours.admin, impersonated):
        for site in (pair.their_site, pair.their_site.upper().replace("HTTPS", "https"), pair.id(pair.their_site)):
            for route, request in requests(site, pair.node(pair.their_site)):
                with pytest.raises(NotFound) as refused:
                    ask(client, route, request)
                assert refused.value.code == "site_not_found", (route, refused.value)
    assert pair.rows() == before


def test_R_241_ids_of_their_files_are_nothing_in_our_site(pair: Pair) -> None:
    before = pair.rows()
    client = pair.ours.admin
    content: Content = client.call("site.get-batch", s.GetBatch(site=pair.our_site, files=[pair.node(pair.their_site)]))
    assert b"their plan" not in b"".join(map(bytes, content.chunks))
    own = client.call("site.ls", s.ListFiles(site=pair.our_site))
    for after in (pair.node(pair.their_site), pair.node(pair.their_site, "folder")):
        listed = client.call("site.ls", s.ListFiles(site=pair.our_site, after=after))
        assert {entry.id for entry in listed} <= {entry.id for entry in own}
    listed = client.call("site.list", s.ListSites(after=pair.their_site))
    assert all(one.url == pair.our_site for one in listed)
    assert [one.url for one in client.call("site.list", s.ListSites())] == [pair.our_site]
    assert pair.rows() == before


def test_R_103_the_geo_of_another_tenant_and_its_keys_are_not_ours(pair: Pair) -> None:
    before = pair.rows()
    client = pair.ours.admin
    status: f.FilesStatus = client.call("files.status", f.NameGeo(geo="EUR"))
    assert "fabrikam" not in repr(status)
    with pytest.raises(KeysteadError) as refused:
        client.call("files.roll", f.RollFiles(geo="EUR", which="primary", key=pair.theirs.primary))
    assert isinstance(refused.value, PreconditionFailed) or refused.value.code == "checks_failed", refused.value
    for side, other in ((pair.ours, "fabrikam"), (pair.theirs, "contoso")):
        assert f"@{other}.example" not in repr([one for one in side.tenant.audit() if "ailed" not in one.result_status])
    assert pair.rows() == before
    assert pair.theirs.get(pair.their_site, "/plan") == b"their plan"


@pytest.mark.parametrize("how", ["site", "site-and-policy", "nodes", "chunks", "keys"])
def test_rows_moved_to_another_tenant_or_site_open_nothing(pair: Pair, how: str) -> None:
    """The tenant and the site are part of every AAD: who can write to the database cannot carry content over."""
    world = pair.world
    stolen = pair.theirs.site(f"stolen-{how}", {"/plan": b"stolen plan"})
    ours = pair.ours.site(f"thief-{how}", {"/plan": b"our plan"})
    theirs, own = pair.id(stolen), pair.id(ours)
    policy = world.sql("SELECT policy_id FROM sites WHERE id = ?", own)[0][0]
    reading = ours
    if how.startswith("site"):
        world.sql("UPDATE sites SET tenant_id = ?, owner = 'admin@contoso.example' WHERE id = ?", pair.ours.tenant.id, theirs)
        if how == "site-and-policy":
            world.sql("UPDATE sites SET policy_id = ? WHERE id = ?", policy, theirs)
        reading = stolen
    elif how == "nodes":
        world.sql("DELETE FROM file_nodes WHERE site_id = ?", own)
        for table in ("file_nodes", "file_versions", "file_chunks"):
            world.sql(f"UPDATE {table} SET site_id = ? WHERE site_id = ?", own, theirs)  # noqa: S608 - ours
        world.sql("UPDATE file_nodes SET parent_id = ? WHERE site_id = ?", own, own)
    elif how == "chunks":
        chunk = world.sql('SELECT wrapped, object_ref, "offset", length FROM file_chunks WHERE site_id = ?', theirs)[0]
        world.sql('UPDATE file_chunks SET wrapped = ?, object_ref = ?, "offset" = ?, length = ? WHERE site_id = ?', *chunk, own)
    else:
        wrapped = world.sql("SELECT wrapped FROM site_keys WHERE site_id = ?", theirs)[0][0]
        world.sql("UPDATE site_keys SET wrapped = ? WHERE site_id = ?", wrapped, own)
    for client in (pair.ours.admin, world.process("fresh").client(tenants.impersonate(world.services, "admin@contoso.example"))):
        with pytest.raises((IntegrityFailure, NotFound)) as refused:
            ask(client, "site.get", s.DownloadFile(site=reading, path="/plan"))
        assert how == "nodes" or isinstance(refused.value, IntegrityFailure), refused.value
    named = pair.id(reading)
    assert any(named in problem for problem in verify(world.services).problems), "and a look at all there is finds it"
