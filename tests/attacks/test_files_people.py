"""What one person of a tenant can do to the others of a site: paths nobody reaches, batches that hold up everybody, names given again."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest

from keystead.api.call import Upload
from keystead.api.types import sites as s
from keystead.api.types import tenants as t
from keystead.api.types import watching as w
from keystead.core.access.tokens import TokenKind
from keystead.core.errors import Forbidden, InvalidRequest, PreconditionFailed
from keystead.core.stores.paths import MAX_PATH_CHARACTERS
from keystead.services import tenants
from keystead.services.tokens import issue
from support.webdav import PLANS, ROOT, make_plans, running
from support.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from keystead.client.client import Client


@dataclass
class Plans:
    """Contoso with alex and blake, and a site for all of its people."""

    world: World

    def client(self, local: str) -> Client:
        return self.world.as_person(f"{local}@contoso.example")

    def put(self, path: str, data: bytes, local: str = "alex", **options: object) -> s.FileView:
        request = s.UploadFile(site=PLANS, path=path, parents=True, **options)  # type: ignore[arg-type]  # by name
        made: s.FileView = self.client(local).call("site.put", request, upload=Upload(len(data), io.BytesIO(data).read))
        return made

    def everything(self, local: str = "blake", path: str = "/") -> list[str]:
        found: list[str] = []
        for entry in self.client(local).call("site.ls", s.ListFiles(site=PLANS, path=path)):
            found.append(entry.path)
            if entry.kind == "folder":
                found += self.everything(local, entry.path)
        return found


@pytest.fixture
def plans(tmp_path: Path, database: str) -> Iterator[Plans]:
    world = World(tmp_path)
    make_plans(world)
    yield Plans(world)
    world.close()


def test_a_folder_is_not_moved_so_that_what_is_in_it_has_a_path_nobody_may_give(plans: Plans) -> None:
    """R-112: else one rename ends every recursive copy out of the site."""
    deep = "/a/" + "/".join(letter * 255 for letter in "bcdefghijklmno")
    assert len(deep) + 255 < MAX_PATH_CHARACTERS
    plans.put(deep + "/" + "x" * 230, b"1")
    plans.put("/" + "q" * 255 + "/file", b"2")
    with pytest.raises(InvalidRequest, match="path_too_long"):
        plans.client("alex").call("site.mv", s.MoveFile(site=PLANS, path="/a", to="/" + "q" * 255 + "/" + "z" * 255))
    plans.client("alex").call("site.mv", s.MoveFile(site=PLANS, path="/a", to="/ab"))
    assert any(path.endswith("x" * 230) for path in plans.everything())


def test_names_of_many_bytes_are_counted_as_characters_when_a_folder_moves(plans: Plans) -> None:
    """R-112: what a path may hold is said in characters."""
    deep = "/a/" + "/".join("字" * 250 for _ in range(12))
    plans.put(deep + "/x", b"1")
    plans.client("alex").call("site.mv", s.MoveFile(site=PLANS, path="/a", to="/b"))
    assert any(path.endswith("/x") for path in plans.everything())


@pytest.mark.parametrize("count", [100_000, 4_000])
def test_a_batch_does_not_make_folders_without_end(plans: Plans, count: int) -> None:
    """R-112: all of it is one transaction, and everybody of every tenant waits for that."""
    deep = 1 if count > 10_000 else 60
    folders = ["/".join([str(number), *"abcdefghij" * 6][:deep]) for number in range(count)]
    with pytest.raises(InvalidRequest, match="batch_too_long"):
        plans.client("alex").call("site.put-batch", s.UploadBatch(site=PLANS, files=[], folders=folders))
    assert plans.everything() == []


@pytest.mark.parametrize(
    "when",
    [
        datetime(1, 1, 1, tzinfo=UTC),
        datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14))),
        datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
        datetime(9999, 12, 31, 23, 59, tzinfo=timezone(timedelta(hours=-12))),
    ],
    ids=["first", "before-the-first", "last", "after-the-last"],
)
def test_a_time_that_cannot_be_shown_is_refused_or_shown(plans: Plans, when: datetime) -> None:
    """R-112: one file's time must not end the listing of its folder for everybody."""
    try:
        plans.put("/odd", b"1", modified=when)
    except InvalidRequest:
        plans.put("/odd", b"1")
    assert plans.everything() == ["/odd"]
    with running(plans.world) as face:
        assert face.person("blake@contoso.example").names(ROOT) == {ROOT + "/", ROOT + "/odd"}


def test_who_is_given_the_name_of_somebody_who_left_does_not_get_their_membership(plans: Plans) -> None:
    """R-194: as for mailboxes: whoever is given the same name one day is somebody else."""
    admin = plans.client("admin")
    admin.call("site.set", s.SetSite(site=PLANS, shared=False))
    admin.call("site.member.add", s.SiteMember(site=PLANS, member="alex@contoso.example"))
    plans.put("/secret", b"1")
    admin.call("user.remove", t.RemoveUser(upn="alex@contoso.example"))
    admin.call("user.add", t.AddUser(upn="alex@contoso.example", roles=["user"]))
    with pytest.raises(Forbidden, match="not_a_member"):
        plans.everything("alex")


@pytest.mark.parametrize(
    ("start", "length"), [(1, 4 * 1024 * 1024), (1, 4 * 1024 * 1024 + 1), (4194303, 2), (3, 4194304 * 2 - 10), (0, 4194305)]
)
def test_ranges_that_begin_inside_a_chunk_come_whole_and_no_longer(plans: Plans, start: int, length: int) -> None:
    """R-112: by WebDAV."""
    data = bytes(range(251)) * (13 * 1024 * 1024 // 251)
    plans.put("/large", data)
    with running(plans.world) as face:
        answer = face.person("blake@contoso.example").get(f"{ROOT}/large", Range=f"bytes={start}-{start + length - 1}")
    assert (answer.status, answer.body == data[start : start + length]) == (206, True)


@pytest.mark.parametrize(
    ("method", "headers"),
    [
        ("MOVE", {"Destination": "http://[::1/x"}),
        ("COPY", {"Destination": "http://[v1.x]/y"}),
        ("MOVE", {"Destination": "//["}),
        ("GET", {"If_Modified_Since": "Mon, 99 Foo 99999 99:99:99"}),
        ("GET", {"If_Modified_Since": "Mon, 01 Jan 0001 00:00:00 +9999"}),
        ("GET", {"If_Unmodified_Since": "0"}),
        ("GET", {"Range": "bytes=" + "9" * 5000 + "-"}),
        ("GET", {"Range": "bytes=-" + "9" * 5000}),
        ("GET", {"If_Range": "Mon, 99 Foo 99999 99:99:99", "Range": "bytes=0-0"}),
        ("LOCK", {"Timeout": "Second-" + "9" * 5000}),
        ("LOCK", {"Timeout": "Second-x, Infinite"}),
        ("PROPFIND", {"Depth": "0", "If": "(<"}),
        ("PROPFIND", {"Depth": "0", "If": '([x] <y>) (Not <z> ["w"]'}),
        ("PROPFIND", {"Depth": "9" * 5000}),
        ("UNLOCK", {"Lock_Token": "<"}),
        ("DELETE", {"Depth": "x"}),
    ],
)
def test_headers_of_a_hostile_client_are_no_defects(plans: Plans, method: str, headers: dict[str, str]) -> None:
    """R-190: a defect is logged with a trace, which anybody could fill the log with."""
    plans.put("/file", b"1")
    body = (
        b'<D:lockinfo xmlns:D="DAV:"><D:lockscope><D:exclusive/></D:lockscope><D:locktype><D:write/></D:locktype></D:lockinfo>'
        if method == "LOCK"
        else None
    )
    with running(plans.world) as face:
        answer = face.person("blake@contoso.example").ask(method, f"{ROOT}/file", body, **headers)
    assert answer.status < 500 or answer.status in (501, 502), answer


@pytest.mark.parametrize("length", ["9" * 5000, "-1", "1e3", "٣"])
def test_the_length_that_macos_says_of_a_body_may_be_anything(plans: Plans, length: str) -> None:
    with running(plans.world) as face:
        answer = face.person("blake@contoso.example").ask(
            "PUT", f"{ROOT}/new", [b"1"], X_Expected_Entity_Length=length.encode().decode("latin-1"), Transfer_Encoding="chunked"
        )
    assert answer.status < 500, answer


@pytest.mark.parametrize("method", ["COPY", "MOVE"])
def test_a_program_without_the_scope_that_deletes_empties_no_folder_by_putting_another_in_its_place(plans: Plans, method: str) -> None:
    """R-194: what a token's scopes do not name it does not do by another way."""
    with running(plans.world) as face:
        secret = program(plans, "site.put", "site.get", "site.ls", "site.mkdir", "site.mv")
        alex, backup = face.person("alex@contoso.example"), face.basic("alex@contoso.example", secret)
        for path in ("/a/x", "/b/y"):
            plans.put(path, b"1")
        assert backup.ask("DELETE", f"{ROOT}/a").status == 403
        assert backup.ask(method, f"{ROOT}/b/", Destination=f"{ROOT}/a/").status == 403
        assert sorted(plans.everything()) == ["/a", "/a/x", "/b", "/b/y"]
        assert backup.ask(method, f"{ROOT}/b/y", Destination=f"{ROOT}/a/").status == 403, "nor a file in a folder's place"
        assert sorted(plans.everything()) == ["/a", "/a/x", "/b", "/b/y"]
        assert backup.ask(method, f"{ROOT}/b/", Destination=f"{ROOT}/c/").status == 201
        assert alex.ask(method, f"{ROOT}/c/", Destination=f"{ROOT}/a/").status == 204
        assert "/a/x" not in plans.everything()


def program(plans: Plans, *scopes: str) -> str:
    """A token of a program of alex's."""
    services = plans.world.services
    with services.db.write() as tx:
        person = tx.tenants.person("alex@contoso.example")
        assert person is not None
        return issue(services, tx, TokenKind.SERVICE, person.upn, person.tenant_id, name="backup", scopes=frozenset(scopes)).secret


URL = "https://contoso.example/sites/budget"
DRIVE = "https://contoso.example/personal/alex"


def put_into(client: Client, site: str, path: str, data: bytes, **options: object) -> s.FileView:
    request = s.UploadFile(site=site, path=path, **options)  # type: ignore[arg-type]  # by name
    made: s.FileView = client.call("site.put", request, upload=Upload(len(data), io.BytesIO(data).read))
    return made


def stored(plans: Plans, path: str = DRIVE) -> int:
    found: list[s.SiteView] = plans.client("admin").call("site.list", s.ListSites())
    return next(one.stored_bytes for one in found if one.url == path)


def test_an_administrator_does_not_learn_by_putting_what_is_in_a_drive(plans: Plans) -> None:
    """R-193: who may put but not read gets the same answer, and makes as much, whether they guessed the bytes or not."""
    alex, admin = plans.client("alex"), plans.client("admin")
    alex.call("site.create", s.CreateSite(url=DRIVE, kind="onedrive"))
    chunk = bytes(4 * 1024 * 1024)
    for path in ("/one", "/two"):
        put_into(alex, DRIVE, path, chunk + b"salary: 100")
    put_into(alex, DRIVE, "/small-1", b"salary: 100")
    put_into(alex, DRIVE, "/small-2", b"salary: 100")
    sizes = [stored(plans)]
    answers = []
    for path, guess in (("/one", b"salary: 100"), ("/two", b"salary: 200")):
        answers.append(put_into(admin, DRIVE, path, chunk + guess))
        sizes.append(stored(plans))
    assert [(one.unchanged, one.version) for one in answers] == [(False, 2), (False, 2)]
    assert sizes[1] - sizes[0] == sizes[2] - sizes[1], "nor does what is stored tell"
    for path, guess in (("/small-1", b"salary: 100"), ("/small-2", b"salary: 200")):
        batch = s.UploadBatch(site=DRIVE, files=[s.BatchFile(path=path, data=guess)])
        done: s.BatchResult = admin.call("site.put-batch", batch)
        assert (done.uploaded, done.unchanged) == (1, 0)
    assert put_into(alex, DRIVE, "/one", chunk + b"salary: 100").unchanged, "its own person is told"


def test_a_program_that_may_put_but_not_get_does_not_learn_what_is_there(plans: Plans) -> None:
    """R-194: a scope that does not read does not compare either."""
    plans.put("/diary", b"salary: 100")
    services = plans.world.services
    alex = tenants.impersonate(services, "alex@contoso.example")
    for scopes, told in ((frozenset({"site.put"}), False), (frozenset({"site.put", "site.get"}), True)):
        backup = plans.world.client(replace(alex, scopes=scopes))
        assert put_into(backup, PLANS, "/diary", b"salary: 100").unchanged == told


def test_who_is_given_the_name_of_an_owner_who_left_does_not_get_their_sites(plans: Plans) -> None:
    """R-194: a drive is nobody's then, until an administrator gives it an owner, under a record."""
    alex, blake, admin = (plans.client(local) for local in ("alex", "blake", "admin"))
    alex.call("site.create", s.CreateSite(url=DRIVE, kind="onedrive"))
    alex.call("site.member.add", s.SiteMember(site=DRIVE, member="blake@contoso.example"))
    admin.call("site.create", s.CreateSite(url=URL, owner="alex@contoso.example", private=True))
    for site in (DRIVE, URL):
        put_into(alex, site, "/diary", b"1")
    admin.call("user.remove", t.RemoveUser(upn="alex@contoso.example"))
    admin.call("user.add", t.AddUser(upn="alex@contoso.example", roles=["user"]))
    for site in (DRIVE, URL):
        with pytest.raises(Forbidden, match="not_a_member"):
            alex.call("site.ls", s.ListFiles(site=site))
        with pytest.raises(Forbidden, match="not_the_owner"):
            alex.call("site.member.add", s.SiteMember(site=site, member="alex@contoso.example"))
    assert {one.url for one in alex.call("site.list", s.ListSites())} == {PLANS}
    with pytest.raises(Forbidden, match="not_a_member"):
        blake.call("site.ls", s.ListFiles(site=DRIVE))
    assert {one.url: one.owner for one in admin.call("site.list", s.ListSites())}[DRIVE] == ""

    given = s.SetSite(site=DRIVE, owner="blake@contoso.example")
    assert admin.call("site.set", given).owner == "blake@contoso.example"
    assert [one.path for one in blake.call("site.ls", s.ListFiles(site=DRIVE))] == ["/diary"]
    with pytest.raises(PreconditionFailed, match="personal_drive"):
        admin.call("site.set", s.SetSite(site=DRIVE, owner="alex@contoso.example"))
    with pytest.raises(PreconditionFailed, match="personal_drive"):
        admin.call("site.set", s.SetSite(site=DRIVE, shared=True))
    found: list[w.AuditRecordView] = admin.call("audit.search", w.SearchAudit(operations=["SiteChanged"]))
    assert any(w.Parameter(name="Owner", value="blake@contoso.example") in record.parameters for record in found)
