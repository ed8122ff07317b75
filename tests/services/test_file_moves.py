"""Moves of sites: reading and writing goes on, what is deleted is not brought back, and what is damaged is named (R-106, R-109, R-112)."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from keystead.api.call import Upload
from keystead.api.types import file_policies as t
from keystead.api.types import sites as s
from keystead.api.types import watching as w
from keystead.core.errors import IntegrityFailure, NotFound, PreconditionFailed
from keystead.core.keys.decide import Operation
from keystead.ports.clock import DAY, HOUR, MINUTE
from keystead.ports.keystore import Compartment
from keystead.services import file_locks
from keystead.services.alerting import watch
from keystead.services.jobs import site_moves
from keystead.services.jobs.runner import run_due, run_one
from keystead.services.jobs.upkeep import schedule_upkeep
from keystead.services.sites import Use, opened_site
from support.file_world import FilesWorld, files_world
from support.world import OPERATOR, World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from keystead.services.sites import OpenSite
    from support.world import Process

CHUNK = 4 * 1024 * 1024
LARGE = os.urandom(3 * CHUNK + 17)
FILES = {"a.txt": b"apples", "folder/b.txt": b"bread" * 1000, "folder/deep/large.bin": LARGE, "empty": b"", "über/ä ö.txt": b"umlauts"}
STORED, TREE = "move site: new objects stored", "move site: tree made"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, database: str) -> Iterator[FilesWorld]:
    world = World(tmp_path_factory.mktemp("made"))
    ready = files_world(world)
    url = ready.site("given", FILES)
    ready.put(url, {"a.txt": b"pears", "folder/deep/large.bin": LARGE[:CHUNK] + b"changed" + LARGE[CHUNK + 7 :]})
    ready.put(url, {"folder/deep/large.bin": LARGE})
    yield ready
    world.close()


@pytest.fixture
def files(made: FilesWorld, tmp_path: Path) -> Iterator[FilesWorld]:
    """The same in a copy of its own: three versions of a large file that share chunks, two of a small one."""
    world = World(tmp_path, like=made.world)
    yield FilesWorld(made.tenant.within(world), made.primary, made.secondary, list(made.sites))
    world.close()


def expected() -> dict[tuple[str, int | None], bytes]:
    """What every version of the given site's files holds."""
    changed = LARGE[:CHUNK] + b"changed" + LARGE[CHUNK + 7 :]
    current: dict[tuple[str, int | None], bytes] = {(path, None): data for path, data in (FILES | {"a.txt": b"pears"}).items()}
    large = "folder/deep/large.bin"
    return current | {("a.txt", 1): b"apples", ("a.txt", 2): b"pears", (large, 1): LARGE, (large, 2): changed, (large, 3): LARGE}


def all_there(files: FilesWorld, url: str, but: frozenset[str] = frozenset()) -> None:
    for (path, version), data in expected().items():
        if path not in but:
            assert files.get(url, path, version=version) == data, (path, version)


def mover(files: FilesWorld, owner: str, at: Callable[[str], None] = lambda _step: None) -> Process:
    """A process with small slices, and something that happens between its steps."""
    return files.world.process(owner, checkpoint=at, settings=replace(files.world.settings, slice_items=2, slice_bytes=1))


def once(action: Callable[[], object], step: str = STORED, times: int = 1) -> Callable[[str], None]:
    """Do something the first times a step is reached."""
    done: list[str] = []

    def at(name: str) -> None:
        if name == step and len(done) < times:
            done.append(name)
            action()

    return at


def nothing_old_is_left(files: FilesWorld, url: str) -> None:
    """After the grace periods: one site key, all rows under it, and on the disk just the objects that rows name."""
    world = files.world
    ((site_id, version),) = world.sql("SELECT id, key_version FROM sites WHERE url = ?", url)
    assert world.sql("SELECT version FROM site_keys WHERE site_id = ?", site_id) == [(version,)]
    for table in ("file_nodes", "file_versions", "file_chunks", "site_trees"):
        found = {row[0] for row in world.sql(f"SELECT key_version FROM {table} WHERE site_id = ?", site_id)}  # noqa: S608 - our own names
        assert found <= {version}, table
    used = {str(row[0]) for row in world.sql("SELECT object_ref FROM file_chunks")}
    named = {row[0] for row in world.sql("SELECT ref FROM objects WHERE due IS NULL")}
    assert named == used
    for _look in range(3):
        world.clock.advance(2 * DAY)
        world.age_objects(2 * 24 * 3600)
        schedule_upkeep(world.services)
        run_due(world.services)
    assert world.objects() == used
    stored = world.sql("SELECT stored_bytes FROM sites WHERE id = ?", site_id)[0][0]
    assert stored == world.sql("SELECT SUM(length) FROM file_chunks WHERE site_id = ?", site_id)[0][0]


def end(files: FilesWorld, process: Process) -> None:
    run_due(process.services)
    assert files.status().state == "Registered"


def test_every_version_is_there_between_all_slices_and_nothing_old_at_the_end(files: FilesWorld) -> None:
    """R-109: content lies under either key at every moment, and reads do not care which."""
    (url,) = files.sites
    process = mover(files, "slow")
    files.register(wait=False)
    turns = 0
    while (
        run_one(replace(process.services, settings=replace(process.services.settings, job_lease=30_000)), stopping=lambda: True) is not None
    ):
        turns += 1
        all_there(files, url)
    assert turns > 10, "small slices"
    assert files.status().state == "Registered"
    nothing_old_is_left(files, url)
    all_there(files, url)


def test_chunks_that_versions_share_are_shared_afterwards(files: FilesWorld) -> None:
    """R-112: what did not change between versions is stored once."""
    before = files.world.sql("SELECT COUNT(*), SUM(length) FROM file_chunks")
    files.register(wait=False)
    end(files, mover(files, "m"))
    assert files.world.sql("SELECT COUNT(*), SUM(length) FROM file_chunks") == before


def test_a_process_that_was_not_there_at_the_beginning_goes_on(files: FilesWorld) -> None:
    """What one process keeps in memory another finds again: two that take turns come to the same end."""

    (url,) = files.sites
    files.register(wait=False)
    process = mover(files, "forgetful")
    before = files.world.sql("SELECT COUNT(*), SUM(length) FROM file_chunks")
    while run_one(process.services, stopping=lambda: True) is not None:
        site_moves._known._entries.clear()
    assert files.status().state == "Registered"
    assert files.world.sql("SELECT COUNT(*), SUM(length) FROM file_chunks") == before
    all_there(files, url)
    nothing_old_is_left(files, url)


def test_what_is_written_between_the_slices_is_kept(files: FilesWorld) -> None:
    """R-106: a new version, a new file, a rename, a folder, an append: all under the newer key, none overwritten by the move."""
    (url,) = files.sites
    written: dict[str, bytes] = {}
    number = [0]

    def act() -> None:
        number[0] += 1
        name = f"new/{number[0]}.txt"
        files.put(url, {name: name.encode() * 100, "a.txt": name.encode()})
        written[name] = name.encode() * 100
        written["a.txt"] = name.encode()

    files.register(wait=False)
    end(files, mover(files, "m", once(act, times=6)))
    assert number[0] == 6
    for path, data in written.items():
        assert files.get(url, path) == data
    all_there(files, url, but=frozenset({"a.txt"}))
    assert files.get(url, "a.txt", version=1) == b"apples"
    nothing_old_is_left(files, url)


def test_what_is_deleted_between_the_slices_stays_deleted(files: FilesWorld) -> None:
    (url,) = files.sites
    files.register(wait=False)
    gone = ["a.txt", "folder/deep/large.bin", "über"]

    def act() -> None:
        files.admin.call("site.rm", s.RemoveFile(site=url, path=gone.pop(), recursive=True))

    end(files, mover(files, "m", once(act, times=3)))
    assert gone == []
    for path in ("a.txt", "folder/deep/large.bin", "über/ä ö.txt"):
        with pytest.raises(NotFound):
            files.get(url, path)
    assert files.get(url, "folder/b.txt") == FILES["folder/b.txt"]
    nothing_old_is_left(files, url)


def test_a_name_may_be_given_while_the_other_one_of_its_folder_lies_under_the_older_key(files: FilesWorld) -> None:
    """Look-ups go by the hashes of all keys: nobody makes a second file of one name."""
    (url,) = files.sites
    files.register(wait=False)

    def act() -> None:
        files.admin.call("site.mv", s.MoveFile(site=url, path="folder", to="moved"))
        files.put(url, {"moved/b.txt": b"new"})

    end(files, mover(files, "m", once(act, TREE)))
    assert files.get(url, "moved/b.txt") == b"new"
    assert files.get(url, "moved/b.txt", version=1) == FILES["folder/b.txt"]
    assert files.get(url, "moved/deep/large.bin") == LARGE
    nothing_old_is_left(files, url)


def test_a_site_that_changes_while_its_tree_is_made_is_looked_at_again(files: FilesWorld) -> None:
    (url,) = files.sites
    files.register(wait=False)
    end(files, mover(files, "m", once(lambda: files.put(url, {"late": b"late"}), TREE)))
    assert files.get(url, "late") == b"late"
    all_there(files, url)


def test_a_site_deleted_in_the_middle_lets_the_geo_be_done(files: FilesWorld) -> None:
    """R-109: the last one that a registration waits for may be deleted."""
    (url,) = files.sites
    started = files.register(wait=False)
    end(files, mover(files, "m", once(lambda: files.admin.call("site.delete", s.NameSite(site=url)))))
    assert files.job(started).state == "done"
    assert files.status().sites == 0


def test_reading_goes_on_over_the_end_of_a_move_and_of_a_roll(files: FilesWorld) -> None:
    """A stream that began before: it finds its chunks where they are by now, under the policy there is by now."""
    (url,) = files.sites
    started = files.register(wait=False)
    content = files.admin.call("site.get", s.DownloadFile(site=url, path="folder/deep/large.bin"))
    parts = [bytes(next(content.chunks))]
    files.finish(started)
    files.world.clock.advance(2 * HOUR)
    run_due(files.world.services)
    parts.append(bytes(next(content.chunks)))
    files.roll("primary", files.key(files.vaults[0], "files"))
    files.world.clock.advance(2 * MINUTE)
    parts += [bytes(part) for part in content.chunks]
    assert b"".join(parts) == LARGE


def test_writing_goes_on_over_the_end_of_a_roll(files: FilesWorld) -> None:
    (url,) = files.sites
    files.register()
    newer = files.key(files.vaults[0], "files")
    pieces = iter([LARGE[:CHUNK], LARGE[CHUNK : 2 * CHUNK], LARGE[2 * CHUNK :], b""])

    def read(_size: int) -> bytes:
        piece = next(pieces)
        if piece == LARGE[2 * CHUNK :]:
            files.roll("primary", newer)
            files.world.clock.advance(2 * MINUTE)
        return piece

    files.admin.call("site.put", s.UploadFile(site=url, path="slow.bin"), upload=Upload(len(LARGE), read))
    assert files.get(url, "slow.bin") == LARGE


# -- what does not open -------------------------------------------------------------------------------------------------------------------


def lasting(files: FilesWorld, kind: str) -> list[w.AlertView]:
    found: list[w.AlertView] = files.admin.call("alerts.list", w.ListAlerts(kinds=[kind], lasting_only=True))
    return found


@pytest.mark.parametrize("how", ["missing", "changed"])
def test_a_damaged_chunk_is_named_and_other_sites_go_on(files: FilesWorld, how: str) -> None:
    """Other files and sites are unaffected; restoring it lets the registration be done."""
    (url,) = files.sites
    other = files.site("other", {"fine": b"fine"})
    ((chunk, ref),) = files.world.sql(
        "SELECT c.id, c.object_ref FROM file_chunks c JOIN sites s ON s.id = c.site_id WHERE s.url = ? AND c.size = 17", url
    )
    (path,) = [one for one in (files.world.path / "objects").rglob("*") if one.is_file() and str(ref).endswith(one.name)]
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1])) if how == "changed" else path.unlink()
    started = files.register()
    assert started.state == "Registering"
    assert files.show(other).is_encrypted
    assert files.get(other, "fine") == b"fine"
    assert files.show(url).move_state == "failed"
    (alert,) = lasting(files, "file-damaged")
    assert (alert.subject_name, str(chunk) in alert.detail) == (url, True)
    ((node,),) = files.world.sql("SELECT node_id FROM file_chunks WHERE id = ?", chunk)
    assert str(node) in alert.detail
    job = files.job(started)
    assert job.error.partition(":")[0] in {"file_damaged", "object_missing"}
    assert files.get(url, "a.txt") == b"pears"
    with pytest.raises(IntegrityFailure):
        files.get(url, "folder/deep/large.bin", version=1)
    path.write_bytes(data)
    files.world.clock.advance(10 * MINUTE)
    run_due(files.world.services)
    assert files.status().state == "Registered"
    assert lasting(files, "file-damaged") == []
    all_there(files, url)


def test_deleting_the_damaged_file_lets_the_registration_be_done(files: FilesWorld) -> None:
    (url,) = files.sites
    ((ref,),) = files.world.sql("SELECT object_ref FROM file_chunks WHERE length > 100000 ORDER BY id LIMIT 1")
    files.world.services.objects.delete(str(ref))
    assert files.register().state == "Registering"
    files.admin.call("site.rm", s.RemoveFile(site=url, path="folder/deep/large.bin"))
    files.world.clock.advance(10 * MINUTE)
    run_due(files.world.services)
    assert files.status().state == "Registered"
    assert files.get(url, "a.txt") == b"pears"


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE file_nodes SET version = 1 WHERE version = 2",
        "DELETE FROM file_nodes WHERE size = 0 AND kind = 'file'",
        "DELETE FROM site_trees",
    ],
)
def test_rows_that_were_put_back_or_taken_away_are_not_made_good_by_a_move(files: FilesWorld, change: str) -> None:
    """docs/spec/files.md section 7: all rows match the tree before a tree is made under the newer key."""
    (url,) = files.sites
    files.world.sql(change)
    assert files.register().state == "Registering"
    assert files.show(url).move_state == "failed"
    (alert,) = lasting(files, "file-damaged")
    assert alert.detail.startswith("file_rolled_back")


def test_a_forged_successor_is_not_taken(files: FilesWorld) -> None:
    """The column only says where to look: another chunk's content never becomes part of a file."""
    (url,) = files.sites
    files.register(wait=False)
    process = mover(files, "m")

    def forge() -> bool:
        made = files.world.sql("SELECT id, successor FROM file_chunks WHERE successor <> '' ORDER BY id")
        if len(made) < 2:
            return False
        files.world.sql("UPDATE file_chunks SET successor = ? WHERE id = ?", made[1][1], made[0][0])
        return True

    forged = 0
    while run_one(process.services, stopping=lambda: True) is not None:
        site_moves._known._entries.clear()
        forged += forged < 2 and forge()
    assert forged == 2
    assert files.status().state == "Registered"
    all_there(files, url)


def test_a_site_whose_key_does_not_open_stays_where_it_is_and_others_go_on(files: FilesWorld) -> None:
    (url,) = files.sites
    other = files.site("other", {"fine": b"fine"})
    site_id = files.world.sql("SELECT id FROM sites WHERE url = ?", url)[0][0]
    ((wrapped,),) = files.world.sql("SELECT wrapped FROM site_keys WHERE site_id = ?", site_id)
    files.world.sql("UPDATE site_keys SET wrapped = ? WHERE site_id = ?", bytes(86), site_id)
    started = files.register()
    assert (started.state, started.sites_done, started.sites) == ("Registering", 1, 2)
    assert files.show(other).is_encrypted
    assert files.job(started).error.startswith("wrapped_key_damaged")
    files.world.sql("UPDATE site_keys SET wrapped = ? WHERE site_id = ?", bytes(wrapped), site_id)
    files.world.clock.advance(10 * MINUTE)
    run_due(files.world.services)
    assert files.status().state == "Registered"
    all_there(files, url)


def test_a_site_without_any_key_is_told_and_not_taken_for_done(files: FilesWorld) -> None:
    (url,) = files.sites
    other = files.site("other", {"fine": b"fine"})
    files.register()
    ((site_id,),) = files.world.sql("SELECT id FROM sites WHERE url = ?", url)
    ((version, wrapped),) = files.world.sql("SELECT version, wrapped FROM site_keys WHERE site_id = ?", site_id)
    files.world.sql("DELETE FROM site_keys WHERE site_id = ?", site_id)
    started = files.roll("primary", files.key(files.vaults[0], "files"))
    assert (started.state, started.sites_done) == ("Rolling", 1)
    assert files.job(started).error.startswith("site_key_missing")
    assert files.get(other, "fine") == b"fine"
    files.world.sql("INSERT INTO site_keys (site_id, version, wrapped) VALUES (?, ?, ?)", site_id, version, bytes(wrapped))
    files.world.clock.advance(10 * MINUTE)
    run_due(files.world.services)
    assert files.status().state == "Registered"
    all_there(files, url)


def test_a_job_that_names_another_policy_than_its_geo_goes_to_does_nothing(files: FilesWorld) -> None:
    """A job's row that was put back, or forged: sites lie where the geo's row says."""
    (url,) = files.sites
    ended = files.register()
    files.world.sql("UPDATE jobs SET state = 'queued', not_before = 0 WHERE kind = 'register-files'")
    ((provider,),) = files.world.sql("SELECT id FROM policies WHERE workload = 'provider'")
    files.world.sql("UPDATE jobs SET parameters = ? WHERE kind = 'register-files'", json.dumps({"geo": "EUR", "policy_id": provider}))
    run_due(files.world.services)
    assert files.show(url).policy_id == ended.policy_id
    assert files.status().state == "Registered"
    all_there(files, url)


# -- around it ----------------------------------------------------------------------------------------------------------------------------


def test_the_jobs_of_a_change_cannot_be_cancelled(files: FilesWorld) -> None:
    started = files.register(wait=False)
    assert started.job_id is not None
    with pytest.raises(PreconditionFailed) as refused:
        files.admin.call("job.cancel", w.NameJob(job=started.job_id))
    assert refused.value.code == "job_needed"
    assert files.finish(started).state == "Registered"


def test_a_registration_that_takes_over_four_hours_is_told(files: FilesWorld) -> None:
    """R-122."""
    started = files.register(wait=False)
    files.world.clock.advance(4 * HOUR)
    watch(files.world.services)
    assert not files.status().overdue
    assert lasting(files, "files-overdue") == []
    files.world.clock.advance(1)
    watch(files.world.services)
    watch(files.world.services)
    assert files.status().overdue
    (alert,) = lasting(files, "files-overdue")
    assert (alert.subject_name, alert.times) == ("EUR", 1)
    assert files.finish(started).state == "Registered"
    assert lasting(files, "files-overdue") == []


def test_a_lock_lasts_through_a_move(files: FilesWorld) -> None:
    (url,) = files.sites
    services = files.world.services

    def opened() -> OpenSite:
        with services.db.read() as tx:
            site = tx.sites.find(files.tenant.id, url)
            assert site is not None
            keys = tx.sites.keys(site.id)
        return opened_site(services, site, keys, Use.CHANGE, owner=True, reads=True, request_id="r")

    lock = file_locks.Lock(
        token="opaquelocktoken:1",
        path="a.txt",
        exclusive=True,
        deep=False,
        owner=b"<me/>",
        principal="me@contoso.example",
        timeout=600,
        expires=services.clock.now() + 10 * HOUR,
    )
    file_locks.take(services, opened(), lock)
    files.register()
    assert file_locks.listed(services, opened()) == [lock]
    files.world.clock.advance(11 * HOUR)
    schedule_upkeep(services)
    assert files.world.sql("SELECT * FROM file_locks") == []


def test_the_availability_key_of_a_geo_rolls_and_still_recovers(files: FilesWorld) -> None:
    """R-138, R-140, R-152."""
    (url,) = files.sites
    files.register()
    keystore = files.world.services.keystore
    (before,) = keystore.entries(Compartment.AVAILABILITY_FILES)
    operator = files.world.client(OPERATOR, files.tenant.id)
    fresh = operator.call("keystore.roll-files", t.NameGeo(geo="EUR")).id
    assert [entry.key_id for entry in keystore.entries(Compartment.AVAILABILITY_FILES)] == [fresh]
    assert fresh != before.key_id
    keys = files.pair("fresh")
    files.switch(files.primary, on=False)
    files.switch(files.secondary, on=False)
    assert files.recover(*keys).state == "Registered"
    all_there(files, url)
    assert (
        files.world.services.keyring.open(files.status().policy_id or "", Operation.USER, request_id="r").policy.availability_key_id
        == fresh
    )
