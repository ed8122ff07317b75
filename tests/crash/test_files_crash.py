"""Every act on files killed at any step: what was acknowledged is whole, no half file is to be seen, and doing it again does it.

The act runs in a process that dies (support/crash.py); what it left is then read by another, `home verify` included. At the end the orphans
go, and nothing else.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING

import pytest

from keystead.api.call import Upload
from keystead.api.types import sites as s
from keystead.core.errors import Conflict, NotFound
from keystead.core.stores.files import CHUNK_BYTES
from keystead.ports.clock import DAY
from keystead.services import tenants
from keystead.services.jobs.runner import run_due
from keystead.services.jobs.upkeep import schedule_upkeep
from keystead.services.verification import verify
from support.crash import Fuse, Killed, die_at_every_step, dying_process
from support.world import World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from keystead.api.call import Content
    from keystead.client.client import Client
    from support.world import TenantWorld

ADMIN = "admin@contoso.example"
MIB = 1024 * 1024
_numbers = count(1)

Tree = dict[str, bytes | None]
"""What lies in a site by path; None for a folder."""


def noise(label: str, size: int) -> bytes:
    return hashlib.shake_256(label.encode()).digest(size)


LARGE = noise("large", 2 * CHUNK_BYTES + 7)
OTHER = LARGE[:CHUNK_BYTES] + noise("other", CHUNK_BYTES + MIB)
"""Shares its first chunk with LARGE."""
BEFORE: Tree = {"/plan": b"the plan Persimmon", "/notes": None, "/notes/one": b"one", "/notes/two": b"two", "/large": LARGE}
BATCH: Tree = {f"/batch/{number % 3}/{number:02}": noise(f"batch {number}", 40_000) for number in range(24)}


@dataclass(frozen=True)
class Site:
    """One site of the tenant, seen by its owner."""

    url: str
    client: Client

    def through(self, client: Client) -> Site:
        """The same in the hands of another process."""
        return Site(self.url, client)

    def put(self, path: str, data: bytes, **more: object) -> None:
        request = s.UploadFile(site=self.url, path=path, **more)  # type: ignore[arg-type]  # of its fields
        self.client.call("site.put", request, upload=Upload(len(data), io.BytesIO(data).read))

    def put_batch(self, files: Tree) -> None:
        batch = [s.BatchFile(path=path, data=data) for path, data in files.items() if data is not None]
        self.client.call("site.put-batch", s.UploadBatch(site=self.url, files=batch))

    def tree(self, path: str = "") -> Tree:
        found: Tree = {}
        for entry in self.client.call("site.ls", s.ListFiles(site=self.url, path=path or "/")):
            inner = f"{path}/{entry.name}"
            if entry.kind == "folder":
                found |= {inner: None} | self.tree(inner)
            else:
                found[inner] = self.read(inner)
                assert entry.size_bytes == len(found[inner] or b"")
        return found

    def read(self, path: str, version: int | None = None) -> bytes:
        content: Content = self.client.call("site.get", s.DownloadFile(site=self.url, path=path, version=version))
        return b"".join(bytes(piece) for piece in content.chunks)


@pytest.fixture(scope="module")
def contoso(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TenantWorld]:
    world = World(tmp_path_factory.mktemp("world"))
    yield world.tenant("contoso.example", ready=False)
    world.close()


def as_admin(contoso: TenantWorld, fuse: Fuse) -> Client:
    """The administrator in a process that dies."""
    world = contoso.world
    return dying_process(world, fuse).client(tenants.impersonate(world.services, ADMIN), contoso.id)


def new_site(contoso: TenantWorld) -> Site:
    """A site with some files, one of which has two versions."""
    site = Site(f"https://contoso.example/sites/{next(_numbers)}", contoso.admin)
    site.client.call("site.create", s.CreateSite(url=site.url))
    site.put_batch({**BEFORE, "/plan": b"an older plan", "/large": None})
    site.put("/large", LARGE)
    site.put("/plan", b"the plan Persimmon")
    return site


def with_(**changes: bytes | None) -> Tree:
    """BEFORE with other files; the names of paths have `__` for `/`."""
    return BEFORE | {"/" + name.replace("__", "/"): data for name, data in changes.items()}


def without(*paths: str) -> Tree:
    return {path: data for path, data in BEFORE.items() if path not in paths}


def send(path: str, data: bytes, **more: object) -> Callable[[Site], None]:
    return lambda site: site.put(path, data, **more)


def ask(name: str, **fields: object) -> Callable[[Site], None]:
    """A request to the site."""
    kinds = {"mv": s.MoveFile, "rm": s.RemoveFile, "mkdir": s.MakeFolder, "restore-version": s.RestoreVersion}
    return lambda site: void(site.client.call(f"site.{name}", kinds[name](site=site.url, **fields)))


ACTS: dict[str, tuple[Callable[[Site], None], Tree]] = {
    "new": (send("/fresh", b"fresh Persimmon"), with_(fresh=b"fresh Persimmon")),
    "new-in-folders": (send("/a/b/fresh", b"fresh", parents=True), with_(a=None, a__b=None, a__b__fresh=b"fresh")),
    "empty": (send("/fresh", b""), with_(fresh=b"")),
    "over": (send("/plan", b"another plan"), with_(plan=b"another plan")),
    "large": (send("/fresh", OTHER), with_(fresh=OTHER)),
    "large-over": (send("/large", OTHER), with_(large=OTHER)),
    "write": (
        send("/large", b"changed", offset=CHUNK_BYTES - 3),
        with_(large=LARGE[: CHUNK_BYTES - 3] + b"changed" + LARGE[CHUNK_BYTES + 4 :]),
    ),
    "batch": (lambda site: site.put_batch(BATCH), BEFORE | BATCH | {"/batch": None, "/batch/0": None, "/batch/1": None, "/batch/2": None}),
    "rename": (ask("mv", path="/plan", to="/plans"), without("/plan") | {"/plans": BEFORE["/plan"]}),
    "replace": (ask("mv", path="/plan", to="/large", replace=True), without("/plan") | {"/large": BEFORE["/plan"]}),
    "move-folder": (
        ask("mv", path="/notes", to="/memos"),
        without("/notes", "/notes/one", "/notes/two") | {"/memos": None, "/memos/one": b"one", "/memos/two": b"two"},
    ),
    "delete": (ask("rm", path="/large"), without("/large")),
    "delete-folder": (ask("rm", path="/notes", recursive=True), without("/notes", "/notes/one", "/notes/two")),
    "make-folder": (ask("mkdir", path="/c/d", parents=True), with_(c=None, c__d=None)),
    "restore-version": (ask("restore-version", path="/plan", version=1), with_(plan=b"an older plan")),
}
ONCE = {"rename", "replace", "move-folder", "delete", "delete-folder"}
"""Doing it again when it was done finds nothing to do it to."""


@pytest.mark.parametrize("name", ACTS)
def test_R_112_an_act_killed_at_any_step_is_done_or_not_done(contoso: TenantWorld, name: str) -> None:
    """R-114: and what was done is as durable as it was acknowledged."""
    world = contoso.world
    act, after = ACTS[name]
    sites: list[Site] = []
    acknowledged: list[bool] = []

    def prepare() -> Callable[[Fuse], None]:
        site = new_site(contoso)
        sites.append(site)
        acknowledged.append(False)

        def acted(fuse: Fuse) -> None:
            act(site.through(as_admin(contoso, fuse)))
            acknowledged[-1] = True

        return acted

    def check(fuse: Fuse) -> None:
        site = sites[-1]
        found = site.tree()
        assert found == after or (found == BEFORE and not acknowledged[-1]), fuse.steps
        assert world.files_holding(b"Persimmon") == [], "also what a crash leaves is sealed"
        if not acknowledged[-1]:
            try:
                act(site)
            except (NotFound, Conflict):
                assert found == after
                assert name in ONCE
        assert site.tree() == after

    assert die_at_every_step(prepare, check) >= 2
    assert acknowledged[-1]
    _whole(world)
    _collected(world)
    _whole(world)
    assert sites[0].tree() == sites[-1].tree() == after


def _whole(world: World) -> None:
    result = verify(world.services)
    assert (result.problems, result.unopened) == ([], [])


def _collected(world: World) -> None:
    """What no row names goes, and what nothing lies in; nothing else does."""
    world.age_objects(2 * 24 * 3600)
    for _look in range(3):
        world.clock.advance(2 * DAY)
        schedule_upkeep(world.services)
        run_due(world.services)
    there = world.objects()
    named = {str(row[0]) for row in world.sql("SELECT DISTINCT object_ref FROM file_chunks")}
    assert there == named
    rows = world.sql("SELECT ref, items FROM objects WHERE due IS NULL")
    counted = world.sql("SELECT object_ref, count(*) FROM file_chunks GROUP BY object_ref")
    assert sorted(rows) == sorted(counted), "what an object is said to hold is what lies in it"


def test_R_109_a_site_killed_while_it_is_made_is_there_or_not(contoso: TenantWorld) -> None:
    world = contoso.world
    urls: list[str] = []
    done: list[bool] = []

    def prepare() -> Callable[[Fuse], None]:
        urls.append(f"https://contoso.example/sites/{next(_numbers)}")
        done.append(False)

        def make(fuse: Fuse) -> None:
            as_admin(contoso, fuse).call("site.create", s.CreateSite(url=urls[-1]))
            done[-1] = True

        return make

    def check(fuse: Fuse) -> None:
        listed = {one.url for one in contoso.admin.call("site.list", s.ListSites(limit=1000))}
        if urls[-1] not in listed:
            assert not done[-1], fuse.steps
            contoso.admin.call("site.create", s.CreateSite(url=urls[-1]))
        site = Site(urls[-1], contoso.admin)
        site.put("/first", b"first")
        assert site.tree() == {"/first": b"first"}

    assert die_at_every_step(prepare, check) >= 3
    _whole(world)


def test_a_site_killed_while_it_is_deleted_is_whole_or_gone(contoso: TenantWorld) -> None:
    world = contoso.world
    sites: list[Site] = []

    def prepare() -> Callable[[Fuse], None]:
        sites.append(new_site(contoso))
        return lambda fuse: void(as_admin(contoso, fuse).call("site.delete", s.NameSite(site=sites[-1].url)))

    def check(fuse: Fuse) -> None:
        site = sites[-1]
        listed = {one.url for one in site.client.call("site.list", s.ListSites(limit=1000))}
        if site.url in listed:
            assert site.tree() == BEFORE, fuse.steps
            site.client.call("site.delete", s.NameSite(site=site.url))
        with pytest.raises(NotFound) as refused:
            site.tree()
        assert refused.value.code == "site_not_found"

    assert die_at_every_step(prepare, check) >= 2
    _whole(world)
    _collected(world)


def test_cleaning_killed_again_and_again_takes_what_nothing_lies_in(contoso: TenantWorld) -> None:
    """Objects of deleted files, and of a put that died; what is in use stays."""
    world = contoso.world
    kept, site = new_site(contoso), new_site(contoso)
    for path in ("/large", "/plan", "/notes"):
        site.client.call("site.rm", s.RemoveFile(site=site.url, path=path, recursive=True))
    with pytest.raises(Killed):
        kept.through(as_admin(contoso, Fuse(7))).put("/never", OTHER)
    world.age_objects(2 * 24 * 3600)
    kills = 0
    for at in range(200):
        world.clock.advance(2 * DAY)
        schedule_upkeep(world.services)
        try:
            run_due(dying_process(world, Fuse(at)).services)
        except Killed:
            kills += 1
            assert kept.tree() == BEFORE, at
            continue
        break
    run_due(world.process("after", alive=lambda owner: owner == "after").services)
    assert 5 <= kills < 200
    _collected(world)
    _whole(world)
    assert kept.tree() == BEFORE


def void(_value: object) -> None:
    """For lambdas whose value nobody wants."""
