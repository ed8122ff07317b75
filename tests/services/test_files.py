"""Files of a site: what goes in comes out, versions, folders, conflicts, limits, and what is damaged (R-112 to R-115)."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from keystead.api import frames
from keystead.api.call import Call
from keystead.api.types.sites import CreateSite, GetBatch
from keystead.core.audit.record import RecordType
from keystead.core.errors import Conflict, IntegrityFailure, InvalidRequest, KeyDenied, KeysteadError, NotFound, PreconditionFailed
from keystead.core.stores.files import CHUNK_BYTES, MAX_BATCH_FILE, NodeKind
from keystead.core.stores.paths import MAX_NAMES
from keystead.ports.tx import AuditQuery
from keystead.services import file_changes, file_chunks, files, site_files, sites, tenants
from keystead.services.files import NewFile
from keystead.services.jobs.runner import run_due
from keystead.services.jobs.upkeep import schedule_upkeep
from support.file_world import FilesWorld, files_world
from support.world import World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from keystead.core.stores.files import Node
    from keystead.services.file_reading import Part
    from keystead.services.sites import OpenSite

ADMIN = "admin@contoso.example"
MIB = 1024 * 1024
URL = "https://contoso.example/sites/plans"


@dataclass
class Bench:
    """One private site of the administrator's, opened for changing, and shorthands for what is done to it."""

    world: World
    tenant_id: str
    opened: OpenSite
    caller: Call

    def put(self, path: str, *pieces: bytes, **options: Any) -> files.Entry:
        return files.put(self.world.services, self.caller, self.opened, path, pieces, **{"parents": True, **options})

    def read(self, path: str, **options: Any) -> bytes:
        return b"".join(files.read(self.world.services, self.caller, self.opened, self.find(path), **options))

    def many(self, found: Sequence[Part]) -> dict[str, bytes]:
        """What opening many files has found, read: bytes by the file's id."""
        data: dict[str, bytes] = {}
        for part, chunk in files.read_many(self.world.services, self.caller, self.opened, found):
            data[part.file.node.id] = data.get(part.file.node.id, b"") + chunk
        return data

    def find(self, path: str) -> Node:
        return files.find(self.world.services, self.opened, path)

    def names(self, path: str = "") -> list[str]:
        return sorted(entry.name for entry in files.listing(self.world.services, self.opened, path))

    def chunks(self, node_id: str = "") -> list[tuple[Any, ...]]:
        found = self.world.sql("SELECT id, node_id, object_ref, last_version, size FROM file_chunks ORDER BY id")
        return [row for row in found if not node_id or row[1] == node_id]

    def order(self, path: str) -> list[str]:
        """Ids of a file's chunks, as its manifest has them."""
        file = files.open_file(self.world.services, self.caller, self.opened, self.find(path))
        return [entry.chunk_id for entry in file.manifest.entries]

    def site(self) -> Any:
        with self.world.services.db.read() as tx:
            return tx.sites.find(self.tenant_id, self.opened.site.id)

    def counts_hold(self) -> None:
        """The site's counts are those of its rows."""
        site = self.site()
        nodes = self.world.sql("SELECT kind, size FROM file_nodes WHERE site_id = ?", site.id)
        stored = self.world.sql("SELECT coalesce(sum(length), 0) FROM file_chunks WHERE site_id = ?", site.id)[0][0]
        of_files = [size for kind, size in nodes if kind == "file"]
        assert (site.file_count, site.size_bytes, site.stored_bytes) == (len(of_files), sum(of_files), stored)

    def records(self) -> list[Any]:
        with self.world.services.db.read() as tx:
            found = tx.audit.search(AuditQuery(tenant_id=self.tenant_id, limit=1_000))
        return [one for one in found if one.record_type is RecordType.SHAREPOINT_FILE]

    def as_call(self, upn: str) -> Call:
        return Call(tenants.impersonate(self.world.services, upn), self.tenant_id, "site.put", "request")

    def use(self, upn: str) -> OpenSite:
        return sites.open_site(self.world.services, self.as_call(upn), URL)


def bench_on(world: World) -> Bench:
    tenant = world.tenant(ready=False)
    caller = Call(tenants.impersonate(world.services, ADMIN), tenant.id, "site.put", "request")
    sites.create_site(world.services, caller, sites_request(URL))
    return Bench(world, tenant.id, sites.open_site(world.services, caller, URL, change=True), caller)


def sites_request(url: str, **options: Any) -> Any:
    return CreateSite(url=url, **{"private": True, **options})


@pytest.fixture
def bench(tmp_path: Path, database: str) -> Iterator[Bench]:
    world = World(tmp_path)
    yield bench_on(world)
    world.close()


@pytest.fixture
def lite(tmp_path: Path) -> Iterator[Bench]:
    """On SQLite alone, for what does not depend on the database."""
    world = World(tmp_path)
    yield bench_on(world)
    world.close()


def refused(kind: type[KeysteadError], code: str, act: Callable[[], Any]) -> KeysteadError:
    with pytest.raises(kind) as caught:
        act()
    assert caught.value.code == code
    return caught.value


def clean(world: World) -> None:
    """Let the grace period pass, and the upkeep do what is due then."""
    world.clock.advance(world.settings.object_grace + 1)
    schedule_upkeep(world.services)
    run_due(world.services)


# -- what goes in comes out -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 60_000, MIB, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 9 * MIB + 17])
def test_files_of_any_size_come_out_as_they_went_in_R_112(bench: Bench, size: int) -> None:
    """R-112: as many chunks as the size needs, each with a key of its own; counts are right."""
    data = os.urandom(size)
    entry = bench.put("a/b/file.bin", data)
    assert bench.read("/a/b/file.bin") == data
    assert (entry.node.version, entry.node.size, entry.name) == (1, size, "file.bin")
    assert len(bench.chunks()) == -(-size // CHUNK_BYTES)
    wrapped = bench.world.sql("SELECT wrapped FROM file_chunks")
    assert len(set(wrapped)) == len(wrapped)
    bench.counts_hold()


@pytest.mark.parametrize("pieces", [(1,), (999, 1), (MIB + 1,), (CHUNK_BYTES * 4,), (CHUNK_BYTES - 1, 2), (5 * MIB, 3)])
def test_it_does_not_matter_in_which_pieces_a_file_comes(lite: Bench, pieces: tuple[int, ...]) -> None:
    data = os.urandom(2 * CHUNK_BYTES + 12_345)

    def body() -> Iterator[bytes]:
        start, turn = 0, 0
        while start < len(data):
            step = max(pieces[turn % len(pieces)], 64 * 1024 if min(pieces) < 10 and len(pieces) == 1 else 1)
            yield data[start : start + step]
            start, turn = start + step, turn + 1

    small = sum(pieces) < 10_000
    wanted = data[: 3 * MIB] if small and len(pieces) > 1 else data
    source: Iterable[bytes] = body() if wanted is data else (wanted[at : at + 999] for at in range(0, len(wanted), 999))
    files.put(lite.world.services, lite.caller, lite.opened, "f", source)
    assert lite.read("f") == wanted


def test_cutting_gives_whole_chunks_and_copies_nothing_that_comes_whole() -> None:
    block = memoryview(bytes(4 * CHUNK_BYTES + 5))
    sizes = []
    for view in file_chunks.cut([block]):
        sizes.append(len(view))
        assert view.obj is block.obj or len(view) == 5
    assert sizes == [CHUNK_BYTES] * 4 + [5]
    assert [len(view) for view in file_chunks.cut([b"x" * 10, b"", b"y" * CHUNK_BYTES])] == [CHUNK_BYTES, 10]
    assert list(file_chunks.cut([])) == []


@pytest.mark.parametrize(
    ("offset", "length"),
    [(0, 0), (0, 1), (CHUNK_BYTES - 1, 2), (CHUNK_BYTES, CHUNK_BYTES), (5, None), (9 * MIB, None), (9 * MIB - 1, 10), (100, 9 * MIB)],
)
def test_ranges_are_cut_out_of_the_right_chunks(lite: Bench, offset: int, length: int | None) -> None:
    data = os.urandom(9 * MIB)
    lite.put("f", data)
    end = None if length is None else offset + length
    assert lite.read("f", offset=offset, length=length) == data[offset:end]


def test_ranges_out_of_bounds_are_refused(lite: Bench) -> None:
    lite.put("f", b"12345")
    for offset, length in ((6, None), (-1, None), (0, -1), (2**60, 1)):
        refused(InvalidRequest, "range_invalid", partial(lite.read, "f", offset=offset, length=length))
    assert lite.read("f", offset=5) == b""


def test_nothing_of_content_or_names_lies_in_the_clear_R_110(bench: Bench) -> None:
    """R-110, R-115: neither in the database nor in the objects, and no record names a file."""
    bench.put("Quarterly figures/Merger with Fabrikam.txt", b"the price is four hundred million " * 3)
    files.set_properties(bench.world.services, bench.caller, bench.opened, "Quarterly figures", b"<colour>crimson tide</colour>")
    needles = [b"Quarterly", b"Merger", b"four hundred million", b"crimson"]
    assert bench.world.files_holding(*needles) == []
    assert all("Merger" not in str(record.parameters) for record in bench.records())


# -- versions and chunks -------------------------------------------------------------------------------------------------------------


def test_a_changed_part_writes_new_chunks_with_new_keys_and_leaves_the_others_R_112(bench: Bench) -> None:
    """R-112: of three chunks the middle one is written anew; the file before is still the old version."""
    data = bytearray(os.urandom(3 * CHUNK_BYTES))
    first = bench.put("f", bytes(data))
    before = {row[0] for row in bench.chunks()}
    data[CHUNK_BYTES + 5 : CHUNK_BYTES + 15] = b"0123456789"
    entry = files.write(bench.world.services, bench.caller, bench.opened, "f", CHUNK_BYTES + 5, [b"01234", b"56789"])
    assert (entry.node.version, entry.node.size) == (2, len(data))
    after = bench.chunks()
    assert len(after) == 4
    assert [row[3] for row in after if row[0] in before].count(1) == 1
    assert [row[3] for row in after if row[0] not in before] == [None]
    assert bench.read("f") == data
    assert bench.read("f", version=1) != data
    assert bench.put("f", bytes(data)).unchanged
    assert first.node.id == entry.node.id
    bench.counts_hold()


@pytest.mark.parametrize(
    ("size", "offset", "length"),
    [
        (10, 10, 5),
        (10, 3, 2),
        (10, 3, 50),
        (CHUNK_BYTES, CHUNK_BYTES, 1),
        (2 * CHUNK_BYTES + 7, CHUNK_BYTES - 2, CHUNK_BYTES + 4),
        (0, 0, 3),
    ],
)
def test_parts_are_written_where_they_belong(lite: Bench, size: int, offset: int, length: int) -> None:
    old, new = os.urandom(size), os.urandom(length)
    lite.put("f", old)
    entry = files.write(lite.world.services, lite.caller, lite.opened, "f", offset, [new])
    assert lite.read("f") == old[:offset] + new + old[offset + length :]
    assert entry.node.size == max(size, offset + length)
    lite.counts_hold()


def test_a_part_that_would_leave_a_hole_is_refused_and_one_without_bytes_changes_nothing(lite: Bench) -> None:
    lite.put("f", b"12345")
    services, caller, opened = lite.world.services, lite.caller, lite.opened
    refused(InvalidRequest, "range_invalid", lambda: files.write(services, caller, opened, "f", 6, [b"x"]))
    refused(NotFound, "file_not_found", lambda: files.write(services, caller, opened, "none", 0, [b"x"]))
    assert files.write(services, caller, opened, "f", 2, []).unchanged
    assert lite.find("f").version == 1


def test_putting_the_same_bytes_again_makes_no_version(bench: Bench) -> None:
    data = os.urandom(CHUNK_BYTES + 100)
    bench.put("f", data)
    objects = bench.world.objects()
    again = bench.put("f", data)
    assert (again.unchanged, again.node.version) == (True, 1)
    assert bench.world.objects() == objects
    shorter = bench.put("f", data[:-1])
    assert (shorter.unchanged, shorter.node.version, bench.read("f")) == (False, 2, data[:-1])
    assert not bench.put("f", b"").unchanged
    assert bench.put("f", b"").unchanged
    assert bench.read("f", version=1) == data


def test_old_versions_beyond_the_setting_go_with_their_chunks(tmp_path: Path, database: str) -> None:
    world = World(tmp_path, file_versions_kept=3)
    bench = bench_on(world)
    same = os.urandom(CHUNK_BYTES)
    for number in range(6):
        bench.put("f", same, b"%d" % number * 100)
    _node, found = files.versions(world.services, bench.opened, "f")
    assert [one.number for one in found] == [6, 5, 4]
    assert len(bench.chunks()) == 4
    refused(NotFound, "version_not_found", lambda: bench.read("f", version=3))
    assert bench.read("f", version=4) == same + b"3" * 100
    bench.counts_hold()
    before = len(world.objects())
    clean(world)
    assert before - len(world.objects()) == 3
    assert bench.read("f", version=4) == same + b"3" * 100
    world.close()


def test_an_old_version_comes_back_as_a_new_one_over_its_own_chunks(bench: Bench) -> None:
    data = os.urandom(CHUNK_BYTES + 5)
    bench.put("f", data)
    bench.put("f", b"short")
    entry = files.restore_version(bench.world.services, bench.caller, bench.opened, "f", 1)
    assert (entry.node.version, bench.read("f"), len(bench.chunks())) == (3, data, 3)
    assert bench.read("f", version=2) == b"short"
    assert files.restore_version(bench.world.services, bench.caller, bench.opened, "f", 3).unchanged
    refused(NotFound, "version_not_found", lambda: files.restore_version(bench.world.services, bench.caller, bench.opened, "f", 9))
    bench.put("f", b"other")
    assert bench.read("f", version=3) == data
    bench.counts_hold()


# -- many at once ----------------------------------------------------------------------------------------------------------------------


def test_many_small_files_share_objects_and_come_about_together(bench: Bench) -> None:
    tree = {f"tree/{number % 7}/{number}.txt": os.urandom(1 + 997 * number) for number in range(300)} | {"tree/empty": b""}
    tree["tree/large"] = os.urandom(CHUNK_BYTES)
    done = files.put_many(
        bench.world.services, bench.caller, bench.opened, [NewFile(path, data) for path, data in tree.items()], folders=["tree/bare/er"]
    )
    assert [entry.node.size for entry in done] == [len(data) for data in tree.values()]
    assert len({row[2] for row in bench.chunks()}) < 10
    for path, data in list(tree.items())[::17]:
        assert bench.read(path) == data
    assert bench.names("tree/bare") == ["er"]
    bench.counts_hold()
    found, gone = files.open_many(bench.world.services, bench.caller, bench.opened, [entry.node.id for entry in done])
    assert gone == []
    by_id = {entry.node.id: data for entry, data in zip(done, tree.values(), strict=True)}
    assert bench.many(found) == by_id
    again = files.put_many(bench.world.services, bench.caller, bench.opened, [NewFile(path, data) for path, data in tree.items()])
    assert all(entry.unchanged for entry in again)
    changed = [NewFile(path, data + b"!") for path, data in list(tree.items())[:5]]
    assert [entry.node.version for entry in files.put_many(bench.world.services, bench.caller, bench.opened, changed)] == [2] * 5
    bench.counts_hold()


def test_larger_files_of_a_batch_are_cut_like_any_other_and_keep_what_did_not_change(bench: Bench) -> None:
    """R-112."""
    services, caller = bench.world.services, bench.caller
    tree = {f"f{chunks}": os.urandom(chunks * CHUNK_BYTES + 10) for chunks in (1, 2, 3)} | {"whole": os.urandom(MAX_BATCH_FILE)}
    done = files.put_many(services, caller, bench.opened, [NewFile(path, data) for path, data in tree.items()])
    ids = {path: entry.node.id for path, entry in zip(tree, done, strict=True)}
    assert {path: bench.read(path) for path in tree} == tree
    found, gone = files.open_many(services, caller, bench.opened, list(ids.values()))
    assert (bench.many(found), gone) == ({ids[path]: data for path, data in tree.items()}, [])
    assert [part.number for part in found if part.file.node.id == ids["f3"]] == [0, 1, 2, 3]
    before = {row[0] for row in bench.chunks()}
    tree["f2"] = tree["f2"][:CHUNK_BYTES] + b"!" + tree["f2"][CHUNK_BYTES + 1 :] + b"more"
    tree["whole"] = tree["whole"][:CHUNK_BYTES]
    again = files.put_many(services, caller, bench.opened, [NewFile(path, data) for path, data in tree.items()])
    assert [(entry.node.version, entry.unchanged) for entry in again] == [(1, True), (2, False), (1, True), (2, False)]
    assert {path: bench.read(path) for path in tree} == tree
    assert len({row[0] for row in bench.chunks()} - before) == 2
    assert len({row[0] for row in bench.chunks(ids["f2"])} & before) == 3
    bench.counts_hold()


def test_a_chunk_that_is_gone_from_a_larger_file_of_many_is_told_for_that_file(lite: Bench) -> None:
    """R-112: the others are unaffected."""
    tree = [NewFile(f"f{number}", os.urandom(2 * CHUNK_BYTES)) for number in range(3)]
    done = files.put_many(lite.world.services, lite.caller, lite.opened, tree)
    _objects_of(lite, "f1")[1].unlink()
    for entry, file in zip(done, tree, strict=True):
        found, _gone = files.open_many(lite.world.services, lite.caller, lite.opened, [entry.node.id])
        if file.path == "f1":
            refused(IntegrityFailure, "file_damaged", partial(lite.many, found))
        else:
            assert lite.many(found) == {entry.node.id: file.data}


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES, CHUNK_BYTES + 1, MAX_BATCH_FILE, MAX_BATCH_FILE + 1])
def test_a_file_goes_out_in_a_batch_up_to_its_largest_size(lite: Bench, size: int) -> None:
    """R-112: one with a byte more is named as one that is not in the answer."""
    services, caller, data = lite.world.services, lite.caller, os.urandom(size)
    ids = [lite.put("f", data).node.id, lite.put("beside", b"beside").node.id]
    answer = site_files.download_batch(services, caller, GetBatch(site=URL, files=ids))
    pieces = [bytes(piece) for piece in answer.chunks]
    assert sum(map(len, pieces)) == answer.size
    found = {
        node: b"".join(map(bytes, parts)) if parts is not None else None for node, parts in frames.split(pieces, largest=MAX_BATCH_FILE)
    }
    assert found == {ids[0]: data if size <= MAX_BATCH_FILE else None, ids[1]: b"beside"}


def test_a_larger_file_that_was_put_back_is_refused_in_a_batch(lite: Bench) -> None:
    """R-111: its older version is there whole, and is not shown for the newer one."""
    services, caller, opened = lite.world.services, lite.caller, lite.opened
    node = files.put_many(services, caller, opened, [NewFile("f", os.urandom(2 * CHUNK_BYTES))])[0].node
    lite.put("f", os.urandom(2 * CHUNK_BYTES))
    now = lite.find("f")
    columns = "version = ?, manifest_digest = ?, size = ?"
    lite.world.sql(f"UPDATE file_nodes SET {columns} WHERE id = ?", node.version, node.manifest_digest, node.size, node.id)  # noqa: S608
    error = refused(IntegrityFailure, "file_rolled_back", lambda: files.open_many(services, caller, opened, [node.id]))
    assert node.id in error.detail
    lite.world.sql(f"UPDATE file_nodes SET {columns} WHERE id = ?", now.version, now.manifest_digest, now.size, now.id)  # noqa: S608
    assert files.open_many(services, caller, opened, [node.id])[1] == []


def test_a_batch_whose_kept_chunks_went_meanwhile_says_which_file_to_send_again(lite: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """R-112: among thousands of files; nothing of the batch is in."""
    services, caller, opened = lite.world.services, lite.caller, lite.opened
    first, second, third = (os.urandom(CHUNK_BYTES) for _ in range(3))
    lite.put("f", first, second)
    commit = file_changes.committed

    def late(*args: Any, **named: Any) -> Any:
        monkeypatch.setattr(files, "committed", commit)
        files.delete(services, caller, opened, "f")
        lite.put("f", b"another")
        return commit(*args, **named)

    monkeypatch.setattr(files, "committed", late)
    batch = [NewFile("f", first + third), NewFile("new", b"new")]
    error = refused(Conflict, "file_busy", lambda: files.put_many(services, caller, opened, batch))
    assert lite.find("f").id in error.detail
    assert lite.names() == ["f"]
    assert lite.read("f") == b"another"
    lite.counts_hold()


def test_a_batch_keeps_chunks_though_a_version_between_did_without_them(lite: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """R-112: they are in use again, and stay as long as the newest version does."""
    services, caller, opened = lite.world.services, lite.caller, lite.opened
    first, second, third = (os.urandom(CHUNK_BYTES) for _ in range(3))
    lite.put("f", first, second)
    commit = file_changes.committed

    def late(*args: Any, **named: Any) -> Any:
        lite.put("f", third)
        return commit(*args, **named)

    monkeypatch.setattr(files, "committed", late)
    (done,) = files.put_many(services, caller, opened, [NewFile("f", first + third)])
    assert (done.node.version, lite.read("f")) == (3, first + third)
    assert [row[3] for row in lite.chunks() if row[0] in lite.order("f")] == [None, None]
    lite.counts_hold()


def test_a_batch_with_one_bad_file_leaves_nothing(lite: Bench) -> None:
    services, caller, opened = lite.world.services, lite.caller, lite.opened
    lite.put("there/is.txt", b"x")
    good = NewFile("good.txt", b"good")
    for kind, code, bad in (
        (InvalidRequest, "path_invalid", NewFile("../up", b"x")),
        (InvalidRequest, "path_repeated", NewFile("good.txt", b"y")),
        (InvalidRequest, "file_too_large", NewFile("large", bytes(MAX_BATCH_FILE + 1))),
        (InvalidRequest, "media_type_invalid", NewFile("typed", b"x", media_type="text/plain\n")),
        (Conflict, "not_a_folder", NewFile("there/is.txt/below", b"x")),
        (Conflict, "not_a_file", NewFile("there", b"x")),
    ):
        objects = lite.world.objects()
        refused(kind, code, partial(files.put_many, services, caller, opened, [good, bad]))
        assert lite.world.objects() == objects, code
    refused(InvalidRequest, "batch_too_long", lambda: files.put_many(services, caller, opened, [good] * 5_001))
    assert lite.names() == ["there"]


@pytest.mark.parametrize("beside", [0, 6])
def test_a_batch_with_a_file_where_it_has_a_folder_says_so_however_many_are_beside_it(lite: Bench, beside: int) -> None:
    lite.put("there/kept", b"before")
    batch = [NewFile(f"there/{name}", b"new") for name in ("both", *map(str, range(beside)))]
    act = partial(files.put_many, lite.world.services, lite.caller, lite.opened, batch, folders=["there/both"])
    refused(Conflict, "not_a_file", act)
    assert lite.names("there") == ["kept"]


def test_a_site_grows_through_many_sizes_of_its_tree(lite: Bench) -> None:
    """Files of before are found and checked after each growth; then most go again."""
    for turn in range(8):
        files.put_many(
            lite.world.services,
            lite.caller,
            lite.opened,
            [NewFile(f"{turn}/{number}", b"%d" % number) for number in range(60 * (turn + 1))],
        )
        assert lite.read(f"0/{turn}") == b"%d" % turn
    tree = lite.world.sql("SELECT sealed FROM site_trees")[0][0]
    assert len(tree) >= 60 + 16 * 32
    for turn in range(7):
        files.delete(lite.world.services, lite.caller, lite.opened, f"{turn}", recursive=True)
    assert lite.read("7/11") == b"11"
    lite.counts_hold()


# -- folders, moving, deleting ----------------------------------------------------------------------------------------------------------


def test_folders_are_made_where_they_should_be(bench: Bench) -> None:
    services, caller, opened = bench.world.services, bench.caller, bench.opened
    refused(NotFound, "folder_not_found", lambda: files.make_folder(services, caller, opened, "a/b"))
    refused(NotFound, "folder_not_found", lambda: bench.put("a/f", b"x", parents=False))
    assert files.make_folder(services, caller, opened, "a/b", parents=True).node.kind is NodeKind.FOLDER
    refused(Conflict, "file_exists", lambda: files.make_folder(services, caller, opened, "a/b"))
    assert files.make_folder(services, caller, opened, "a/b", parents=True).unchanged
    bench.put("a/f", b"x")
    refused(Conflict, "file_exists", lambda: files.make_folder(services, caller, opened, "a/f", parents=True))
    refused(Conflict, "not_a_folder", lambda: files.make_folder(services, caller, opened, "a/f/c", parents=True))
    refused(Conflict, "not_a_file", lambda: bench.put("a/b", b"x"))
    refused(Conflict, "not_a_file", lambda: bench.read("a"))
    refused(InvalidRequest, "path_invalid", lambda: bench.put("/", b"x"))
    assert bench.names("a") == ["b", "f"]
    assert [entry.name for entry in files.listing(services, opened, "a/f")] == ["f"]


def test_files_and_folders_are_renamed_and_moved_with_all_that_is_in_them(bench: Bench) -> None:
    services, caller, opened = bench.world.services, bench.caller, bench.opened
    bench.put("a/b/one", b"1")
    bench.put("two", b"22")
    moved = files.move(services, caller, opened, "a/b", "c")
    assert (bench.read("c/one"), bench.names("a"), moved.name) == (b"1", [], "c")
    files.move(services, caller, opened, "two", "Two")
    assert bench.names() == ["Two", "a", "c"]
    refused(Conflict, "file_exists", lambda: files.move(services, caller, opened, "Two", "c/one"))
    files.move(services, caller, opened, "Two", "c/one", replace=True)
    assert bench.read("c/one") == b"22"
    refused(Conflict, "file_exists", lambda: files.move(services, caller, opened, "c/one", "a", replace=True))
    refused(InvalidRequest, "folder_into_itself", lambda: files.move(services, caller, opened, "c", "c/d"))
    refused(NotFound, "file_not_found", lambda: files.move(services, caller, opened, "none", "x"))
    refused(NotFound, "folder_not_found", lambda: files.move(services, caller, opened, "c", "none/x"))
    bench.counts_hold()


def test_a_folder_does_not_go_so_deep_that_what_is_in_it_has_no_path(lite: Bench) -> None:
    deep = "/".join(["d"] * (MAX_NAMES - 2))
    files.make_folder(lite.world.services, lite.caller, lite.opened, deep, parents=True)
    lite.put("a/b/c", b"x")
    move = files.move
    refused(InvalidRequest, "path_too_long", lambda: move(lite.world.services, lite.caller, lite.opened, "a", f"{deep}/a"))
    assert move(lite.world.services, lite.caller, lite.opened, "a/b", f"{deep}/b").name == "b"
    assert lite.read(f"{deep}/b/c") == b"x"


def test_what_is_deleted_is_gone_and_its_objects_after_the_grace(bench: Bench) -> None:
    services, caller, opened = bench.world.services, bench.caller, bench.opened
    bench.put("a/b/one", os.urandom(3 * MIB))
    bench.put("a/two", b"2")
    bench.put("three", b"3")
    refused(Conflict, "folder_not_empty", lambda: files.delete(services, caller, opened, "a"))
    gone = files.delete(services, caller, opened, "a", recursive=True)
    assert (gone.files, gone.folders, bench.names()) == (2, 2, ["three"])
    refused(NotFound, "file_not_found", lambda: bench.find("a/two"))
    bench.counts_hold()
    assert len(bench.world.objects()) == 3
    clean(bench.world)
    assert len(bench.world.objects()) == 1
    assert bench.read("three") == b"3"


def test_properties_stay_with_a_file_wherever_it_goes(bench: Bench) -> None:
    services, caller, opened = bench.world.services, bench.caller, bench.opened
    bench.put("f", b"x")
    node = files.set_properties(services, caller, opened, "f", b"<a/>")
    assert files.properties(opened, node) == b"<a/>"
    bench.put("f", b"y")
    files.move(services, caller, opened, "f", "g")
    assert files.properties(opened, bench.find("g")) == b"<a/>"
    assert files.properties(opened, files.set_properties(services, caller, opened, "g", b"")) == b""
    refused(InvalidRequest, "properties_too_large", lambda: files.set_properties(services, caller, opened, "g", bytes(256 * 1024 + 1)))


# -- names ----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("a/../b", "path_invalid"),
        ("..", "path_invalid"),
        ("./a", "path_invalid"),
        ("a//b", "path_invalid"),
        ("a\0b", "path_invalid"),
        ("a\nb", "path_invalid"),
        ("a\x85b", "path_invalid"),
        ("\ud800", "path_invalid"),
        ("", "path_invalid"),
        ("n" * 256, "path_too_long"),
        ("n" * 5_000, "path_too_long"),
        ("a/" * 65 + "b", "path_too_long"),
    ],
)
def test_path_tricks_are_refused_and_not_repeated(lite: Bench, path: str, code: str) -> None:
    error = refused(InvalidRequest, code, lambda: lite.put(path, b"x"))
    assert not path.strip("./a") or path not in str(error)
    assert lite.chunks() == []
    assert lite.names() == []


def test_case_matters_and_unicode_forms_do_not(bench: Bench) -> None:
    """Two names whose NFC is equal are the same file, whose name stays as it was given first."""
    composed, decomposed = "r\u00e9sum\u00e9", "re\u0301sume\u0301"
    bench.put(composed, b"1")
    bench.put("R\u00c9SUM\u00c9", b"2")
    assert bench.put(decomposed, b"3").node.version == 2
    assert bench.read(decomposed) == bench.read(composed) == b"3"
    assert bench.names() == sorted([composed, "R\u00c9SUM\u00c9"])
    files.move(bench.world.services, bench.caller, bench.opened, composed, decomposed)
    assert decomposed in bench.names()
    assert bench.put("n" * 255, b"x").node.version == 1
    assert bench.put("\U0001f511" * 255, b"x").node.version == 1


# -- two writers, limits, cut off ----------------------------------------------------------------------------------------------------------


def test_two_writers_of_one_file_both_succeed_unless_a_version_is_asked_for(bench: Bench) -> None:
    data = os.urandom(CHUNK_BYTES) + b"first"
    bench.put("f", data)

    def slow() -> Iterator[bytes]:
        yield data[:CHUNK_BYTES]
        bench.put("f", b"between")
        yield b"second"

    last = files.put(bench.world.services, bench.caller, bench.opened, "f", slow())
    assert (last.node.version, bench.read("f"), bench.read("f", version=2)) == (3, data[:CHUNK_BYTES] + b"second", b"between")
    assert [row[3] for row in bench.chunks()].count(None) == 2
    bench.counts_hold()
    refused(PreconditionFailed, "file_changed", lambda: bench.put("f", b"late", if_version=2))
    assert bench.put("f", b"in time", if_version=3).node.version == 4
    refused(PreconditionFailed, "file_changed", lambda: bench.put("f", b"x", if_version=0))
    assert bench.put("new", b"x", if_version=0).node.version == 1
    refused(Conflict, "file_exists", lambda: bench.put("new", b"y", replace=False))


def test_two_writers_who_make_the_same_file_make_one(bench: Bench) -> None:
    def slow() -> Iterator[bytes]:
        yield b"a"
        bench.put("x/f", b"first")
        yield b"b"

    last = files.put(bench.world.services, bench.caller, bench.opened, "x/f", slow(), parents=True)
    assert (last.node.version, bench.read("x/f"), bench.names("x")) == (2, b"ab", ["f"])
    bench.counts_hold()


def test_a_part_of_a_file_that_changed_meanwhile_is_refused(lite: Bench) -> None:
    lite.put("f", b"12345")

    def slow() -> Iterator[bytes]:
        lite.put("f", b"abcde")
        yield b"x"

    write = files.write
    refused(PreconditionFailed, "file_changed", lambda: write(lite.world.services, lite.caller, lite.opened, "f", 1, slow()))
    assert lite.read("f") == b"abcde"


def test_an_upload_that_is_cut_off_leaves_nothing(bench: Bench) -> None:
    bench.put("f", b"as it was")
    objects = bench.world.objects()

    def broken() -> Iterator[bytes]:
        yield os.urandom(3 * CHUNK_BYTES)
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        files.put(bench.world.services, bench.caller, bench.opened, "f", broken())
    refused(InvalidRequest, "upload_cut_off", lambda: bench.put("g", os.urandom(5 * MIB), size=6 * MIB))
    refused(InvalidRequest, "upload_cut_off", lambda: bench.put("g", os.urandom(5 * MIB), size=4 * MIB))
    assert (bench.read("f"), bench.names(), bench.world.objects()) == (b"as it was", ["f"], objects)
    bench.counts_hold()


def test_a_site_holds_no_more_than_its_quota(bench: Bench) -> None:
    with bench.world.services.db.write() as tx:
        tx.sites.update(replace(bench.site(), quota_bytes=5 * MIB))
    bench.opened = sites.open_site(bench.world.services, bench.caller, URL, change=True)
    bench.put("a", bytes(3 * MIB))
    objects = bench.world.objects()
    refused(PreconditionFailed, "quota_exceeded", lambda: bench.put("b", bytes(3 * MIB), size=3 * MIB))
    refused(PreconditionFailed, "quota_exceeded", lambda: bench.put("b", *[bytes(MIB)] * 3))
    refused(
        PreconditionFailed,
        "quota_exceeded",
        lambda: files.put_many(bench.world.services, bench.caller, bench.opened, [NewFile("x", bytes(MIB)), NewFile("y", bytes(2 * MIB))]),
    )
    refused(
        PreconditionFailed,
        "quota_exceeded",
        lambda: files.write(bench.world.services, bench.caller, bench.opened, "a", 3 * MIB, [bytes(3 * MIB)]),
    )
    assert bench.world.objects() == objects
    assert bench.put("a", bytes(5 * MIB)).node.version == 2
    assert bench.put("a", b"less").node.version == 3
    bench.counts_hold()


def test_the_quota_holds_for_two_who_write_at_once(lite: Bench) -> None:
    with lite.world.services.db.write() as tx:
        tx.sites.update(replace(lite.site(), quota_bytes=3 * MIB))
    lite.opened = sites.open_site(lite.world.services, lite.caller, URL, change=True)

    def slow() -> Iterator[bytes]:
        yield os.urandom(MIB)
        lite.put("first", os.urandom(2 * MIB))
        yield os.urandom(MIB)

    refused(PreconditionFailed, "quota_exceeded", lambda: files.put(lite.world.services, lite.caller, lite.opened, "second", slow()))
    assert lite.names() == ["first"]
    assert len(lite.world.objects()) == len(lite.chunks())


def test_a_file_over_the_setting_is_refused(tmp_path: Path) -> None:
    world = World(tmp_path, max_file_bytes=2 * MIB)
    bench = bench_on(world)
    refused(InvalidRequest, "file_too_large", lambda: bench.put("f", size=3 * MIB))
    refused(InvalidRequest, "file_too_large", lambda: bench.put("f", bytes(2 * MIB + 1)))
    batch = [NewFile("f", bytes(2 * MIB + 1))]
    refused(InvalidRequest, "file_too_large", lambda: files.put_many(world.services, bench.caller, bench.opened, batch))
    assert world.objects() == set()
    world.close()


# -- what is missing or damaged ------------------------------------------------------------------------------------------------------------


def _objects_of(bench: Bench, path: str) -> list[Path]:
    node = bench.find(path)
    rows = {row[0]: row[2] for row in bench.chunks(node.id)}
    refs = [rows[chunk_id] for chunk_id in bench.order(path)]
    root = bench.world.path / "objects"
    return [root / ref.partition("/")[0] / ref.partition("/")[2][:2] / ref.partition("/")[2] for ref in refs]


def test_a_missing_or_damaged_chunk_names_file_and_chunk_and_leaves_others_alone(bench: Bench) -> None:
    """An integrity error, never other data; the chunks before it are still given."""
    data = os.urandom(3 * CHUNK_BYTES)
    bench.put("bad", data)
    bench.put("good", data)
    node, order = bench.find("bad"), bench.order("bad")
    second = _objects_of(bench, "bad")[1]
    whole = second.read_bytes()
    for harm in (whole[:-1], whole[:100] + b"\0\0\0\0" + whole[104:], None):
        second.unlink() if harm is None else second.write_bytes(harm)
        stream = files.read(bench.world.services, bench.caller, bench.opened, node)
        assert next(stream) == data[:CHUNK_BYTES]
        error = refused(IntegrityFailure, "file_damaged", partial(next, stream))
        assert node.id in error.detail
        assert order[1] in error.detail
        assert bench.read("good") == data
    assert bench.put("bad", b"mended").node.version == 2
    assert bench.read("bad") == b"mended"


def test_a_damaged_small_file_is_told_apart_from_those_beside_it(lite: Bench) -> None:
    made = files.put_many(lite.world.services, lite.caller, lite.opened, [NewFile(f"f{n}", bytes([n]) * 5_000) for n in range(5)])
    path = _objects_of(lite, "f2")[0]
    data = bytearray(path.read_bytes())
    place = lite.world.sql("SELECT offset FROM file_chunks WHERE node_id = ?", made[2].node.id)[0][0]
    data[place + 100] ^= 1
    path.write_bytes(data)
    refused(IntegrityFailure, "file_damaged", lambda: lite.read("f2"))
    assert [lite.read(f"f{n}") for n in (0, 1, 3, 4)] == [bytes([n]) * 5_000 for n in (0, 1, 3, 4)]
    found, _gone = files.open_many(lite.world.services, lite.caller, lite.opened, [entry.node.id for entry in made])
    stream = files.read_many(lite.world.services, lite.caller, lite.opened, found)
    assert [next(stream)[1][0] for _ in range(2)] == [0, 1]
    refused(IntegrityFailure, "file_damaged", lambda: next(stream))


def test_a_file_whose_manifest_is_damaged_is_mended_by_writing_it_again(lite: Bench) -> None:
    lite.put("f", b"one")
    lite.world.sql("UPDATE file_versions SET manifest = ?", bytes(100))
    refused(IntegrityFailure, "file_damaged", lambda: lite.read("f"))
    assert lite.put("f", b"one").node.version == 2
    assert lite.read("f") == b"one"


def test_what_somebody_did_to_the_rows_is_not_made_good_by_the_next_change(lite: Bench) -> None:
    """A node that was put back or taken away in the database stops every change beside it, and every read."""
    lite.put("f", b"one")
    lite.put("g", b"two")
    row = lite.world.sql("SELECT version, manifest_digest, size FROM file_nodes WHERE id = ?", lite.find("f").id)[0]
    lite.put("f", b"three")
    lite.world.sql("UPDATE file_nodes SET version = ?, manifest_digest = ?, size = ? WHERE id = ?", *row, lite.find("f").id)
    for act in (lambda: lite.read("f"), lambda: lite.put("f", b"new"), lambda: lite.put("h", b"new")):
        refused(IntegrityFailure, "file_rolled_back", act)
    assert len(lite.chunks()) == 3


# -- who, records, keys --------------------------------------------------------------------------------------------------------------------


def test_what_is_done_is_recorded_with_ids_alone(bench: Bench) -> None:
    services, caller, opened = bench.world.services, bench.caller, bench.opened
    node = bench.put("secret plans/f", b"x").node
    bench.put("secret plans/f", b"y")
    files.move(services, caller, opened, "secret plans/f", "secret plans/g")
    files.move(services, caller, opened, "secret plans/g", "g")
    files.delete(services, caller, opened, "g")
    files.delete(services, caller, opened, "secret plans")
    told = [(record.operation, record.object_id) for record in reversed(bench.records())]
    assert [operation for operation, _id in told] == [
        "FileUploaded", "FileModified", "FileRenamed", "FileMoved", "FileDeleted", "FolderDeleted",
    ]  # fmt: skip
    assert {object_id for _operation, object_id in told[:5]} == {node.id}
    assert {record.workload for record in bench.records()} == {"SharePoint"}
    assert "secret" not in repr(bench.records())


def test_reads_of_members_are_recorded_and_those_of_the_owner_as_the_setting_says(tmp_path: Path) -> None:
    for owners, expected in ((False, 1), (True, 2)):
        (tmp_path / str(owners)).mkdir()
        world = World(tmp_path / str(owners), record_owner_reads=owners)
        bench = bench_on(world)
        with world.services.db.write() as tx:
            tenants.ensure_person(world.services, tx, bench.caller, "sam@contoso.example")
            tx.sites.add_member(bench.opened.site.id, "sam@contoso.example")
        bench.put("f", b"x")
        node = bench.find("f")
        b"".join(files.read(world.services, bench.caller, bench.opened, node))
        b"".join(files.read(world.services, bench.as_call("sam@contoso.example"), bench.use("sam@contoso.example"), node))
        read = [record for record in bench.records() if record.operation == "FileDownloaded"]
        assert len(read) == expected
        assert read[0].user_id == "sam@contoso.example"
        assert read[0].object_id == node.id
        world.close()


@pytest.fixture
def keyed(tmp_path: Path) -> Iterator[FilesWorld]:
    world = World(tmp_path)
    yield files_world(world)
    world.close()


def test_a_revoked_key_stops_a_long_read_and_a_long_write_within_the_probe_interval_R_116(keyed: FilesWorld) -> None:
    """R-116, R-117: both sides of the stream ask again before each chunk."""
    world = keyed.world
    keyed.register()
    data = os.urandom(4 * CHUNK_BYTES)
    url = keyed.site(files={"f": data})
    caller = Call(tenants.impersonate(world.services, ADMIN), keyed.tenant.id, "site.put", "request")
    opened = sites.open_site(world.services, caller, url, change=True)
    stream = files.read(world.services, caller, opened, files.find(world.services, opened, "f"))
    assert next(stream) == data[:CHUNK_BYTES]

    def revoke() -> None:
        for vault in keyed.vaults:
            world.vaults.fail(vault, "denied")
        world.clock.advance(61_000)

    def body() -> Iterator[bytes]:
        yield data[:CHUNK_BYTES]
        revoke()
        yield data

    refused(KeyDenied, "denied_by_customer_key", lambda: files.put(world.services, caller, opened, "g", body()))
    with pytest.raises(KeyDenied):
        next(stream)
    with pytest.raises(KeyDenied):
        sites.open_site(world.services, caller, url)
    for vault in keyed.vaults:
        world.vaults.fail(vault, "success")
    world.clock.advance(61_000)
    opened = sites.open_site(world.services, caller, url)
    assert [entry.name for entry in files.listing(world.services, opened, "")] == ["f"]
    assert b"".join(files.read(world.services, caller, opened, files.find(world.services, opened, "f"))) == data


def test_reads_and_writes_go_on_while_a_site_moves_under_customer_keys_R_109(keyed: FilesWorld) -> None:
    """R-106, R-109: a stream that began before the move ends well after it, and so does a write."""
    world = keyed.world
    data = os.urandom(3 * CHUNK_BYTES)
    url = keyed.site(files={"d/f": data, "g": data})
    caller = Call(tenants.impersonate(world.services, ADMIN), keyed.tenant.id, "site.put", "request")
    opened = sites.open_site(world.services, caller, url, change=True)
    node = files.find(world.services, opened, "d/f")
    stream = files.read(world.services, caller, opened, node)
    got = next(stream)

    def body() -> Iterator[bytes]:
        yield data[:CHUNK_BYTES]
        assert keyed.register().state == "Registered"
        yield b"end"

    with pytest.raises(Conflict) as caught:
        files.put(world.services, caller, opened, "g", body())
    assert caught.value.code == "file_busy"
    assert got + b"".join(stream) == data
    later = sites.open_site(world.services, caller, url, change=True)
    assert later.site.key_version == 2
    assert files.put(world.services, caller, opened, "g", [data[:CHUNK_BYTES], b"end"]).node.version == 2
    assert keyed.get(url, "g") == data[:CHUNK_BYTES] + b"end"
    assert files.make_folder(world.services, caller, opened, "made with old keys in hand").node.key_version == 2


def test_chunks_are_spread_over_several_containers_R_114(lite: Bench) -> None:
    """R-114."""
    lite.put("f", os.urandom(12 * CHUNK_BYTES))
    assert len({row[2].partition("/")[0] for row in lite.chunks()}) > 1


def test_another_site_or_tenant_opens_nothing(lite: Bench) -> None:
    """Rows that are carried to another site do not open there."""
    sites.create_site(lite.world.services, lite.caller, sites_request("https://contoso.example/sites/other"))
    other = sites.open_site(lite.world.services, lite.caller, "https://contoso.example/sites/other", change=True)
    lite.put("f", b"x")
    lite.world.sql("UPDATE file_nodes SET site_id = ?, parent_id = ?", other.site.id, other.site.id)
    lite.world.sql("UPDATE file_versions SET site_id = ?", other.site.id)
    lite.world.sql("UPDATE file_chunks SET site_id = ?", other.site.id)
    refused(IntegrityFailure, "file_damaged", lambda: files.listing(lite.world.services, other, ""))
    with pytest.raises(KeysteadError):
        files.find(lite.world.services, other, "f")


def test_a_chunk_that_a_row_makes_up_is_not_asked_for(lite: Bench) -> None:
    lite.put("f", b"12345")
    for harm in ("length = 2000000000", "offset = -1", "size = 9", "wrapped = x'00'"):
        before = lite.world.sql("SELECT length, offset, size, wrapped FROM file_chunks")[0]
        lite.world.sql(f"UPDATE file_chunks SET {harm}")  # noqa: S608 - written above
        if harm.startswith("size"):
            assert lite.read("f") == b"12345"  # the manifest says how long it is
        else:
            with pytest.raises(IntegrityFailure):
                lite.read("f")
        lite.world.sql("UPDATE file_chunks SET length = ?, offset = ?, size = ?, wrapped = ?", *before)
    assert lite.read("f") == b"12345"


def test_a_large_file_takes_little_memory(lite: Bench) -> None:
    """Buffers are used again: what one writer holds does not grow with the file."""
    held = len(file_chunks._buffers._free)

    def block() -> Iterator[memoryview]:
        data = memoryview(bytes(16 * MIB))
        for _ in range(12):
            yield data

    files.put(lite.world.services, lite.caller, lite.opened, "f", block())
    assert len(file_chunks._buffers._free) <= max(held, file_chunks.UNDER_WAY + 2)
    assert sum(len(piece) for piece in files.read(lite.world.services, lite.caller, lite.opened, lite.find("f"))) == 192 * MIB
