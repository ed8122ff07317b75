"""Sites: who makes them, who uses them, how they are shown (R-103, R-121, R-193, R-194)."""

from __future__ import annotations

import io
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from keystead.api.call import Content, Upload
from keystead.api.types import sites as t
from keystead.core.audit.record import RecordType
from keystead.core.errors import Conflict, Forbidden, InvalidRequest, KeysteadError, NotFound, PreconditionFailed
from keystead.core.policies.policy import Workload
from keystead.ports.tx import AuditQuery
from support.file_world import files_world
from support.world import OPERATOR, World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from keystead.client.client import Client
    from support.world import TenantWorld

URL = "https://contoso.example/sites/plans"
DRIVE = "https://contoso.example/personal/alice"


@pytest.fixture
def tenant(tmp_path: Path, database: str) -> Iterator[TenantWorld]:
    world = World(tmp_path)
    made = world.tenant(ready=False)
    for name in ("alice", "bob", "eve"):
        made.person(name, "user")
    made.person("carol", "exchange-admin")
    made.person("audrey", "audit-reader")
    yield made
    world.close()


def person(tenant: TenantWorld, name: str) -> Client:
    return tenant.world.as_person(f"{name}@contoso.example")


def refused(kind: type[KeysteadError], code: str, act: Callable[[], Any]) -> KeysteadError:
    with pytest.raises(kind) as caught:
        act()
    assert caught.value.code == code
    return caught.value


def put(client: Client, url: str = URL, path: str = "f", data: bytes = b"content") -> t.FileView:
    request = t.UploadFile(site=url, path=path, parents=True)
    view: t.FileView = client.call("site.put", request, upload=Upload(len(data), io.BytesIO(data).read))
    return view


def get(client: Client, url: str = URL, path: str = "f") -> bytes:
    content: Content = client.call("site.get", t.DownloadFile(site=url, path=path))
    return b"".join(content.chunks)


# -- making ---------------------------------------------------------------------------------------------------------------------------


def test_administrators_make_sites_and_everybody_a_drive_of_their_own(tenant: TenantWorld) -> None:
    made: t.SiteView = person(tenant, "carol").call("site.create", t.CreateSite(url="HTTPS://Contoso.example/Sites/Plans/", kind="team"))
    assert (made.url, made.kind, made.geo, made.owner, made.shared) == (URL, "team", "EUR", "carol@contoso.example", True)
    drive: t.SiteView = person(tenant, "alice").call("site.create", t.CreateSite(url=DRIVE, kind="onedrive"))
    assert (drive.owner, drive.shared) == ("alice@contoso.example", False)
    bob = person(tenant, "bob")
    refused(Forbidden, "role_missing", lambda: bob.call("site.create", t.CreateSite(url=URL + "2")))
    of_alice = t.CreateSite(url=DRIVE + "2", kind="onedrive", owner="alice@contoso.example")
    refused(Forbidden, "role_missing", lambda: bob.call("site.create", of_alice))
    assert tenant.admin.call("site.create", of_alice).owner == "alice@contoso.example"


def test_what_is_wrong_with_a_new_site_is_said(tenant: TenantWorld) -> None:
    admin = tenant.admin
    admin.call("site.create", t.CreateSite(url=URL))
    refused(Conflict, "site_exists", lambda: admin.call("site.create", t.CreateSite(url=URL)))
    for url in (
        "http://contoso.example/x",
        "https://contoso.example/a/b/c/d",
        "https://u@contoso.example/",
        "https://contoso.example/?q",
        "",
    ):
        refused(InvalidRequest, "site_url_invalid", partial(admin.call, "site.create", t.CreateSite(url=url)))
    refused(PreconditionFailed, "geo_unknown", lambda: admin.call("site.create", t.CreateSite(url=URL + "x", geo="NAM")))
    refused(InvalidRequest, "geo_invalid", lambda: admin.call("site.create", t.CreateSite(url=URL + "x", geo="Europe")))
    stranger = t.CreateSite(url=URL + "x", owner="dave@fabrikam.example")
    refused(NotFound, "user_not_found", lambda: admin.call("site.create", stranger))
    operator = tenant.world.client(OPERATOR, tenant.id)
    refused(InvalidRequest, "owner_missing", lambda: operator.call("site.create", t.CreateSite(url=URL + "x")))
    assert operator.call("site.create", t.CreateSite(url=URL + "x", owner="alice@contoso.example")).owner == "alice@contoso.example"


def test_two_tenants_do_not_meet_by_a_url(tenant: TenantWorld) -> None:
    """R-194: a URL is a name in one tenant; the other hears that it is not there, or that it is taken, as for any other."""
    fabrikam = tenant.world.tenant("fabrikam.example", ready=False)
    tenant.admin.call("site.create", t.CreateSite(url=URL))
    put(tenant.admin)
    refused(NotFound, "site_not_found", lambda: get(fabrikam.admin))
    refused(NotFound, "site_not_found", lambda: fabrikam.admin.call("site.delete", t.NameSite(site=URL)))
    site_id = tenant.admin.call("site.list", t.ListSites())[0].id
    refused(NotFound, "site_not_found", lambda: fabrikam.admin.call("site.ls", t.ListFiles(site=site_id)))
    assert fabrikam.admin.call("site.list", t.ListSites()) == []
    assert get(tenant.admin) == b"content"


# -- who may what ----------------------------------------------------------------------------------------------------------------------


CONTENT: dict[str, Callable[[], Any]] = {
    "site.ls": lambda: t.ListFiles(site=URL),
    "site.get": lambda: t.DownloadFile(site=URL, path="f"),
    "site.get-batch": lambda: t.GetBatch(site=URL, files=["11111111-1111-4111-8111-111111111111"]),
    "site.versions": lambda: t.NameFile(site=URL, path="f"),
    "site.restore-version": lambda: t.RestoreVersion(site=URL, path="f", version=1),
    "site.mv": lambda: t.MoveFile(site=URL, path="f", to="g"),
    "site.rm": lambda: t.RemoveFile(site=URL, path="g"),
}
"""What shows or changes what is there, in an order in which all of it works."""


def test_owner_members_and_for_shared_sites_everybody_use_them_R_193(tenant: TenantWorld) -> None:
    """R-193: administrators put files in and never see what is there; the operator of a dev home neither."""
    tenant.admin.call("site.create", t.CreateSite(url=URL, owner="alice@contoso.example", private=True))
    tenant.admin.call("site.member.add", t.SiteMember(site=URL, member="bob@contoso.example"))
    operator = tenant.world.client(OPERATOR, tenant.id)
    for client in (tenant.admin, person(tenant, "carol"), operator):
        put(client)
        client.call("site.put-batch", t.UploadBatch(site=URL, files=[t.BatchFile(path="b", data=b"x")]))
        client.call("site.mkdir", t.MakeFolder(site=URL, path="d", parents=True))
        for route, request in CONTENT.items():
            code = "provider_never_reads" if client is operator else "not_a_member"
            refused(Forbidden, code, partial(client.call, route, request()))
        part = t.UploadFile(site=URL, path="f", offset=0)
        refused(Forbidden, "not_a_member", partial(client.call, "site.put", part, upload=Upload(1, io.BytesIO(b"x").read)))
    for name in ("eve", "audrey"):
        refused(Forbidden, "not_a_member", partial(put, person(tenant, name)))
        for route, request in CONTENT.items():
            refused(Forbidden, "not_a_member", partial(person(tenant, name).call, route, request()))
    for name in ("alice", "bob"):
        put(person(tenant, name))
        for route, request in CONTENT.items():
            person(tenant, name).call(route, request())
    tenant.admin.call("site.member.remove", t.SiteMember(site=URL, member="bob@contoso.example"))
    refused(Forbidden, "not_a_member", lambda: get(person(tenant, "bob"), path="g"))
    tenant.admin.call("site.set", t.SetSite(site=URL, shared=True))
    assert put(person(tenant, "eve")).version == 1
    assert get(person(tenant, "bob")) == b"content"


def test_a_personal_drive_is_its_persons_alone(tenant: TenantWorld) -> None:
    alice = person(tenant, "alice")
    alice.call("site.create", t.CreateSite(url=DRIVE, kind="onedrive"))
    put(alice, DRIVE)
    for change in (t.SetSite(site=DRIVE, shared=True), t.SetSite(site=DRIVE, owner="admin@contoso.example")):
        refused(PreconditionFailed, "personal_drive", partial(tenant.admin.call, "site.set", change))
    add = t.SiteMember(site=DRIVE, member="admin@contoso.example")
    refused(Forbidden, "not_the_owner", lambda: tenant.admin.call("site.member.add", add))
    refused(Forbidden, "not_a_member", lambda: get(tenant.admin, DRIVE))
    assert tenant.admin.call("site.set", t.SetSite(site=DRIVE, quota_bytes=7)).quota_bytes == 7
    refused(PreconditionFailed, "quota_exceeded", lambda: put(alice, DRIVE, "g"))
    view: t.MembersView = alice.call("site.member.add", t.SiteMember(site=DRIVE, member="bob@contoso.example"))
    assert view.members == ["bob@contoso.example"]
    assert get(person(tenant, "bob"), DRIVE) == b"content"
    refused(Forbidden, "not_the_owner", lambda: person(tenant, "bob").call("site.member.add", add))


def test_members_are_people_of_the_tenant_once(tenant: TenantWorld) -> None:
    tenant.admin.call("site.create", t.CreateSite(url=URL))
    tenant.world.tenant("fabrikam.example", ready=False)
    call = tenant.admin.call
    refused(NotFound, "user_not_found", lambda: call("site.member.add", t.SiteMember(site=URL, member="admin@fabrikam.example")))
    call("site.member.add", t.SiteMember(site=URL, member="bob@contoso.example"))
    refused(Conflict, "member_exists", lambda: call("site.member.add", t.SiteMember(site=URL, member="BOB@contoso.example")))
    refused(NotFound, "member_not_found", lambda: call("site.member.remove", t.SiteMember(site=URL, member="eve@contoso.example")))
    assert person(tenant, "eve").call("site.member.list", t.NameSite(site=URL)).members == ["bob@contoso.example"]


def test_lists_show_what_one_may_use_page_by_page(tenant: TenantWorld) -> None:
    for number in range(5):
        tenant.admin.call("site.create", t.CreateSite(url=f"{URL}{number}", private=number % 2 == 0))
    urls = [site.url for site in tenant.admin.call("site.list", t.ListSites())]
    assert urls == [f"{URL}{number}" for number in range(5)]
    assert [site.url for site in person(tenant, "audrey").call("site.list", t.ListSites(after=urls[1], limit=2))] == urls[2:4]
    assert [site.url for site in person(tenant, "eve").call("site.list", t.ListSites(limit=1))] == [urls[1]]
    assert [site.url for site in person(tenant, "eve").call("site.list", t.ListSites(after=urls[1]))] == [urls[3]]
    assert tenant.admin.call("site.list", t.ListSites(geo="EUR", limit=1))[0].url == urls[0]


# -- status, deleting, records -----------------------------------------------------------------------------------------------------------


def test_the_status_of_a_site_is_an_error_until_customer_keys_are_set_up_R_121(tmp_path: Path, database: str) -> None:
    """R-121."""
    world = World(tmp_path)
    made = files_world(world)
    url = made.site(files={"f": b"12345"})
    error = refused(PreconditionFailed, "customer_key_not_set_up", lambda: made.show(url))
    assert "keystead files register --geo EUR" in error.mend
    made.register()
    status = made.show(url)
    assert (status.geo, status.geo_state, status.is_encrypted, status.progress_percent) == ("EUR", "Registered", True, 100.0)
    assert (status.files, status.size_bytes, status.key_version, status.move_state) == (1, 5, 2, "done")
    assert status.moved is not None
    with world.services.db.read() as tx:
        policy = tx.policies.by_id(status.policy_id)
    assert policy is not None
    assert policy.workload is Workload.FILES
    later = made.show(made.site())
    assert (later.is_encrypted, later.key_version, later.moved) == (True, 1, None)
    world.close()


def test_a_deleted_site_is_gone_with_everything_in_it(tenant: TenantWorld) -> None:
    tenant.admin.call("site.create", t.CreateSite(url=URL))
    put(tenant.admin, data=bytes(5_000_000))
    tenant.admin.call("site.member.add", t.SiteMember(site=URL, member="bob@contoso.example"))
    tenant.admin.call("site.delete", t.NameSite(site=URL))
    refused(NotFound, "site_not_found", lambda: get(tenant.admin))
    for table in ("sites", "site_keys", "site_members", "site_trees", "file_nodes", "file_versions", "file_chunks"):
        assert tenant.world.sql(f"SELECT count(*) FROM {table}") == [(0,)], table  # noqa: S608 - the names above
    tenant.admin.call("site.create", t.CreateSite(url=URL))
    assert tenant.admin.call("site.ls", t.ListFiles(site=URL)) == []


def test_what_is_done_to_sites_is_recorded(tenant: TenantWorld) -> None:
    call = tenant.admin.call
    call("site.create", t.CreateSite(url=URL))
    call("site.set", t.SetSite(site=URL, quota_bytes=10))
    call("site.member.add", t.SiteMember(site=URL, member="bob@contoso.example"))
    call("site.member.remove", t.SiteMember(site=URL, member="bob@contoso.example"))
    call("site.delete", t.NameSite(site=URL))
    with tenant.world.services.db.read() as tx:
        found = tx.audit.search(AuditQuery(tenant_id=tenant.id, limit=100))
    told = [one.operation for one in reversed(found) if one.record_type is RecordType.SHAREPOINT]
    assert told == ["SiteCreated", "SiteChanged", "SiteMemberAdded", "SiteMemberRemoved", "SiteDeleted"]
    assert len({one.object_id for one in found if one.record_type is RecordType.SHAREPOINT}) == 1


def test_downloads_say_how_much_comes_and_of_which_type(tenant: TenantWorld) -> None:
    tenant.admin.call("site.create", t.CreateSite(url=URL))
    request = t.UploadFile(site=URL, path="f", media_type="text/plain")
    tenant.admin.call("site.put", request, upload=Upload(10, io.BytesIO(b"0123456789").read))
    for offset, length, expected in ((0, None, b"0123456789"), (3, 4, b"3456"), (8, 100, b"89"), (10, None, b"")):
        content: Content = tenant.admin.call("site.get", t.DownloadFile(site=URL, path="f", offset=offset, length=length))
        assert (content.size, content.media_type) == (len(expected), "text/plain")
        assert b"".join(content.chunks) == expected
    refused(InvalidRequest, "range_invalid", lambda: tenant.admin.call("site.get", t.DownloadFile(site=URL, path="f", offset=11)))


def test_only_ids_name_files_of_a_batch(tenant: TenantWorld) -> None:
    tenant.admin.call("site.create", t.CreateSite(url=URL))
    batch = t.GetBatch(site=URL, files=["../etc"])
    refused(InvalidRequest, "file_id_invalid", lambda: tenant.admin.call("site.get-batch", batch))
