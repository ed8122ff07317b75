"""A request that opened a site just before a move of it began, or a roll ended: it is served, or told to come again, never alarmed or misled."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING

import pytest

from keystead.api.call import Call
from keystead.core.errors import Conflict, KeyDenied
from keystead.core.stores.files import CHUNK_BYTES
from keystead.ports.clock import DAY
from keystead.services import file_locks, files, sites, tenants
from keystead.services.file_locks import Lock
from keystead.services.jobs.runner import run_due, run_one
from keystead.services.jobs.upkeep import schedule_upkeep
from support.file_world import FilesWorld, files_world
from support.world import World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from keystead.ports.tx import Tx
    from keystead.services.file_reading import Part
    from keystead.services.sites import OpenSite

ADMIN = "admin@contoso.example"


@pytest.fixture
def ready(tmp_path: Path, database: str) -> Iterator[FilesWorld]:
    world = World(tmp_path)
    made = files_world(world)
    made.site("plans", {"folder/a": b"1", "folder/b": b"2"})
    yield made
    world.close()


def caller(ready: FilesWorld) -> Call:
    return Call(tenants.impersonate(ready.world.services, ADMIN), ready.tenant.id, "site.put", "request")


def opened(ready: FilesWorld) -> OpenSite:
    return sites.open_site(ready.world.services, caller(ready), ready.sites[0], change=True)


def begin_move(ready: FilesWorld, slices: int = 0) -> None:
    """Until the site has its newer key, and so many slices more."""
    ready.register(wait=False)
    mover = ready.world.process("mover", settings=replace(ready.world.settings, slice_items=1, slice_bytes=1))
    while ready.world.sql("SELECT key_version FROM sites") == [(1,)]:
        run_one(mover.services, stopping=lambda: True)
    for _slice in range(slices):
        run_one(mover.services, stopping=lambda: True)


@pytest.mark.parametrize("slices", [0, 1, 40], ids=["begun", "names-under-both", "done"])
def test_what_was_opened_before_a_move_began_still_lists_and_reads(ready: FilesWorld, slices: int) -> None:
    """R-109: a copy of a tree over WebDAV opens the site once and goes on for hours."""
    services, call, old = ready.world.services, caller(ready), opened(ready)
    names = [entry.node.id for entry in files.listing(services, old, "/folder")]
    begin_move(ready, slices)
    assert sorted(entry.name for entry in files.listing(services, old, "/folder")) == ["a", "b"]
    assert files.find(services, old, "/folder/a").id in names
    assert files.versions(services, old, "/folder/a")[0].version == 1
    found, gone = files.open_many(services, call, old, names)
    assert (sorted(data for _part, data in files.read_many(services, call, old, found)), gone) == ([b"1", b"2"], [])


def in_batch(stream: Iterator[tuple[Part, bytes]], data: dict[str, bytes]) -> dict[str, bytes]:
    """What is left of a stream of many files, put behind what came before: bytes by the file's id."""
    for part, piece in stream:
        data[part.file.node.id] = data.get(part.file.node.id, b"") + piece
    return data


@pytest.mark.parametrize("slices", [0, 3, None], ids=["begun", "under-both", "done-and-collected"])
@pytest.mark.parametrize("taken", [0, 1, 3])
def test_a_batch_of_larger_files_goes_on_while_a_move_puts_them_elsewhere(ready: FilesWorld, taken: int, slices: int | None) -> None:
    """R-109: between two chunks of a file, too, and when what they were in is gone."""
    services, call, (url,), world = ready.world.services, caller(ready), ready.sites, ready.world
    tree = {"folder/c": os.urandom(3 * CHUNK_BYTES + 5), "folder/d": os.urandom(2 * CHUNK_BYTES), "folder/e": b""}
    ready.put(url, tree)
    old = opened(ready)
    ids = {path: files.find(services, old, path).id for path in tree}
    before = world.objects()
    found, gone = files.open_many(services, call, old, list(ids.values()))
    stream = files.read_many(services, call, old, found)
    data = in_batch(islice(stream, taken), {})
    begin_move(ready, slices or 0)
    if slices is None:
        for _look in range(3):
            run_due(services)
            world.clock.advance(2 * DAY)
            world.age_objects(2 * 24 * 3600)
            schedule_upkeep(services)
        run_due(services)
        assert not before & world.objects()
    assert (in_batch(stream, data), gone) == ({ids[path]: data for path, data in tree.items()}, [])


def test_a_batch_ends_between_two_chunks_of_a_file_when_the_customer_says_no(ready: FilesWorld) -> None:
    """R-109, R-145: what was fetched ahead is not given away either."""
    services, call, (url,) = ready.world.services, caller(ready), ready.sites
    data = [bytes([number]) * CHUNK_BYTES for number in range(4)]
    ready.put(url, {"large": b"".join(data)})
    old = opened(ready)
    found, _gone = files.open_many(services, call, old, [files.find(services, old, "/large").id])
    stream = files.read_many(services, call, old, found)
    assert next(stream)[1] == data[0]
    begin_move(ready)
    assert next(stream)[1] == data[1], "as long as the customer's keys open it goes on"
    revoke(ready)
    with pytest.raises(KeyDenied):
        next(stream)


def lock(path: str, token: str) -> Lock:
    return Lock(token, path, exclusive=True, deep=True, owner=b"", principal=ADMIN, timeout=3_000, expires=2**50)


def test_locks_are_seen_by_who_opened_the_site_before_a_move_began(ready: FilesWorld) -> None:
    """R-112: at the end of a long upload, too, what somebody has locked is not written over."""
    services, old = ready.world.services, opened(ready)
    begin_move(ready)
    file_locks.take(services, opened(ready), lock("/plans/a", "one"))
    assert [one.token for one in file_locks.listed(services, old)] == ["one"]
    with pytest.raises(Conflict, match="site_busy"):
        file_locks.take(services, old, lock("/plans/a", "two"))


def test_a_lock_is_not_kept_under_a_key_that_is_about_to_go(ready: FilesWorld) -> None:
    """R-112: it would end with the move, and nobody would tell its holder."""
    services, old = ready.world.services, opened(ready)
    begin_move(ready)
    with pytest.raises(Conflict, match="site_busy"):
        file_locks.take(services, old, lock("/plans/a", "one"))


def test_a_site_whose_policy_was_replaced_between_finding_and_opening_it_is_opened(ready: FilesWorld) -> None:
    """R-123: not "no such policy", which WebDAV would tell as "no such file"."""
    ready.register()
    key = ready.key(ready.vaults[0], "rolled")
    services = ready.world.process("reader").services
    once = [key]
    keyring_open = services.keyring.open

    def opens_late(*args: object, **named: object) -> object:
        if once:
            ready.roll("primary", once.pop())
        return keyring_open(*args, **named)  # type: ignore[arg-type]  # as it was called

    services.keyring.open = opens_late  # type: ignore[method-assign, assignment]  # something happens in between
    site = sites.open_site(services, caller(ready), ready.sites[0])
    assert sorted(entry.name for entry in files.listing(services, site, "/folder")) == ["a", "b"]


def revoke(ready: FilesWorld) -> None:
    """Both vaults of the customer refuse, and a probe interval goes by."""
    for vault in ready.vaults:
        ready.world.vaults.fail(vault, "denied")
    ready.world.clock.advance(61_000)


def test_a_stream_that_began_under_the_providers_policy_ends_when_the_customer_says_no(ready: FilesWorld) -> None:
    """R-109, R-116: from registration on the customer's vaults are asked, also for those who began before."""
    services, call, (url,) = ready.world.services, caller(ready), ready.sites
    data = [bytes([number]) * CHUNK_BYTES for number in range(6)]
    ready.put(url, {"large": b"".join(data)})
    old = opened(ready)
    stream = files.read(services, call, old, files.find(services, old, "/large"))
    found, _gone = files.open_many(services, call, old, [entry.node.id for entry in files.listing(services, old, "/folder")])
    many = files.read_many(services, call, old, found)
    assert next(stream) == data[0]
    assert next(many)[1] in {b"1", b"2"}

    def body() -> Iterator[bytes]:
        yield data[0]
        begin_move(ready)
        assert next(stream) == data[1], "as long as the customer's keys open it goes on"
        yield data[1]
        revoke(ready)
        yield data[2]

    with pytest.raises(KeyDenied):
        files.put(services, call, old, "/new", body())
    for reader in (stream, many):
        with pytest.raises(KeyDenied):
            next(reader)


def put(ready: FilesWorld, old: OpenSite) -> None:
    files.put(ready.world.services, caller(ready), old, "/folder/a", [b"new"], if_version=1)


def write(ready: FilesWorld, old: OpenSite) -> None:
    files.write(ready.world.services, caller(ready), old, "/folder/a", 0, [b"new"])


def put_many(ready: FilesWorld, old: OpenSite) -> None:
    files.put_many(ready.world.services, caller(ready), old, [files.NewFile("/folder/a", b"new"), files.NewFile("/folder/b", b"2")])


def restore(ready: FilesWorld, old: OpenSite) -> None:
    files.restore_version(ready.world.services, caller(ready), old, "/folder/a", 1)


@pytest.mark.parametrize("slices", [0, 1, 40], ids=["begun", "names-under-both", "well-under-way"])
@pytest.mark.parametrize("act", [put, write, put_many, restore])
def test_a_move_that_begins_just_as_a_writer_has_looked_at_the_site_is_no_alarm(
    ready: FilesWorld, monkeypatch: pytest.MonkeyPatch, act: Callable[[FilesWorld, OpenSite], None], slices: int
) -> None:
    """R-109: between finding the site and looking up what lies there nothing comes in: both are one snapshot."""
    ready.put(ready.sites[0], {"folder/a": b"1"})
    if act is restore:
        ready.put(ready.sites[0], {"folder/a": b"new"})
        ready.put(ready.sites[0], {"folder/a": b"newer"})
    old = opened(ready)
    db, waiting = ready.world.services.db, [lambda: begin_move(ready, slices)]
    read = db.read

    @contextmanager
    def reading() -> Iterator[Tx]:
        if waiting:
            with read() as tx:
                yield tx
            waiting.pop()()  # behind the first look, before whatever follows
        else:
            with read() as tx:
                yield tx

    monkeypatch.setattr(db, "read", reading)
    act(ready, old)
    monkeypatch.undo()
    now = opened(ready)
    node, kept = files.versions(ready.world.services, now, "/folder/a")
    assert b"".join(files.read(ready.world.services, caller(ready), now, node)) == (b"1" if act is restore else b"new")
    assert node.version == len(kept)
