"""Two people, or a person and a job, at one file at the same time: what was acknowledged stays readable, and nobody honest is refused (R-112)."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest

from keystead.api.call import Call
from keystead.api.types.sites import CreateSite
from keystead.core.errors import Conflict, PreconditionFailed
from keystead.core.stores.files import CHUNK_BYTES
from keystead.ports.clock import HOUR
from keystead.services import files, sites, tenants
from keystead.services.jobs.runner import run_due, run_one
from keystead.services.jobs.upkeep import schedule_upkeep
from support.file_world import FilesWorld, files_world
from support.world import World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from keystead.services.files import Entry
    from keystead.services.sites import OpenSite
    from support.world import Process

ADMIN = "admin@contoso.example"
URL = "https://contoso.example/sites/plans"
ONE, TWO, THREE = (os.urandom(CHUNK_BYTES) for _ in range(3))
END = b"end"


@dataclass
class Bench:
    """A site whose geo is about to be registered, and shorthands."""

    ready: FilesWorld
    opened: OpenSite
    caller: Call

    @property
    def world(self) -> World:
        return self.ready.world

    def put(self, path: str, *pieces: bytes, process: Process | None = None, **options: Any) -> Entry:
        services = (process or self.world.first).services
        return files.put(services, self.caller, self.opened, path, pieces, **{"parents": True, **options})

    def read(self, path: str, **options: Any) -> bytes:
        opened = sites.open_site(self.world.services, self.caller, URL, change=True)
        return b"".join(files.read(self.world.services, self.caller, opened, files.find(self.world.services, opened, path), **options))

    def move(self, path: str, to: str, **options: Any) -> None:
        files.move(self.world.services, self.caller, self.opened, path, to, **options)

    def delete(self, path: str) -> None:
        files.delete(self.world.services, self.caller, self.opened, path)

    def meanwhile(self, act: Callable[[], object], step: str = "put: objects stored", **options: Any) -> Process:
        """A process in which something happens once at a step."""
        waiting = [act]

        def at(name: str) -> None:
            if name == step and waiting:
                waiting.pop()()

        return self.world.process(f"p{len(os.urandom(1))}", checkpoint=at, **options)


@pytest.fixture
def bench(tmp_path: Path, database: str) -> Iterator[Bench]:
    world = World(tmp_path)
    ready = files_world(world)
    caller = Call(tenants.impersonate(world.services, ADMIN), ready.tenant.id, "site.put", "request")
    sites.create_site(world.services, caller, CreateSite(url=URL))
    yield Bench(ready, sites.open_site(world.services, caller, URL, change=True), caller)
    world.close()


# -- a writer that keeps chunks, and somebody who takes the file away ------------------------------------------------------------------


def test_a_file_that_is_deleted_while_a_new_version_keeps_its_chunks_is_not_half_there(bench: Bench) -> None:
    """R-112: an acknowledged file names no chunk that went with the file it was of."""
    bench.put("/report", ONE, END)
    writer = bench.meanwhile(lambda: bench.delete("/report"))
    with pytest.raises(Conflict, match="file_busy"):
        bench.put("/report", ONE, b"another end", process=writer)
    bench.put("/report", ONE, b"another end")
    assert bench.read("/report") == ONE + b"another end"


@pytest.mark.parametrize("again", [True, False], ids=["and-another-made", "and-nothing-made"])
def test_a_file_that_is_moved_away_while_a_new_version_keeps_its_chunks_shares_none(bench: Bench, again: bool) -> None:  # noqa: FBT001
    """R-112: editors save by renaming the old file and writing a new one; the chunks stay the old one's alone."""
    bench.put("/report", ONE, END)

    def safe_save() -> None:
        bench.move("/report", "/report.old")
        if again:
            bench.put("/report", TWO, END)

    with pytest.raises(Conflict, match="file_busy"):
        bench.put("/report", ONE, b"another end", process=bench.meanwhile(safe_save))
    entry = bench.put("/report", ONE, b"another end")
    bench.delete("/report.old")
    assert bench.read("/report", version=entry.node.version) == ONE + b"another end"


def test_a_part_is_not_written_into_another_file_of_the_same_version(bench: Bench) -> None:
    """R-112: a number alone does not say which file it was read from."""
    bench.put("/report", ONE, TWO)

    def safe_save() -> None:
        bench.move("/report", "/report.old")
        bench.put("/report", THREE, END)

    writer = bench.meanwhile(safe_save, "write: objects stored")
    with pytest.raises((Conflict, PreconditionFailed)):
        files.write(writer.services, bench.caller, bench.opened, "/report", CHUNK_BYTES, [b"part"])
    assert bench.read("/report") == THREE + END


# -- a writer and a move ---------------------------------------------------------------------------------------------------------------


def small_slices(bench: Bench, owner: str) -> Process:
    return bench.world.process(owner, settings=replace(bench.world.settings, slice_items=2, slice_bytes=1))


def test_a_version_that_keeps_chunks_a_move_has_moved_already_outlives_the_older_versions(bench: Bench) -> None:
    """R-109, R-112: version 3 keeps a chunk of version 1, which went out of use with it and has a successor by now."""
    bench.put("/report", ONE, TWO, END)
    keeping = bench.world.settings

    def meanwhile() -> None:
        bench.put("/report", THREE)  # version 2 does without
        bench.ready.register(wait=False)
        mover = small_slices(bench, "mover")
        for _slice in range(200):
            run_one(mover.services, stopping=lambda: True)
            if bench.world.sql("SELECT 1 FROM file_chunks WHERE successor <> '' AND last_version = 1"):
                return
        raise AssertionError("no chunk of version 1 was moved")

    entry = bench.put("/report", ONE, b"other", process=bench.meanwhile(meanwhile))
    assert entry.node.version == 3
    run_due(small_slices(bench, "mover2").services)
    assert bench.ready.status().state == "Registered"
    opened = sites.open_site(bench.world.services, bench.caller, URL, change=True)
    trimming = bench.world.process("t", settings=replace(keeping, file_versions_kept=2))
    files.put(trimming.services, bench.caller, opened, "/report", [ONE, b"last"])
    assert bench.read("/report") == ONE + b"last"
    assert bench.read("/report", version=3) == ONE + b"other"


def test_chunks_a_move_has_moved_already_go_with_the_version_that_went_out_of_use_meanwhile(bench: Bench) -> None:
    """R-112: what no version names is not kept for ever."""
    bench.put("/report", ONE, TWO, END)
    bench.ready.register(wait=False)
    mover = small_slices(bench, "mover")
    while not bench.world.sql("SELECT 1 FROM file_chunks WHERE successor <> ''"):
        run_one(mover.services, stopping=lambda: True)
    bench.put("/report", THREE)
    run_due(mover.services)
    assert bench.ready.status().state == "Registered"
    opened = sites.open_site(bench.world.services, bench.caller, URL, change=True)
    trimming = bench.world.process("t", settings=replace(bench.world.settings, file_versions_kept=1))
    files.put(trimming.services, bench.caller, opened, "/report", [END])
    assert len(bench.world.sql("SELECT id FROM file_chunks")) == 1


def test_chunks_a_move_has_made_go_with_a_version_that_is_trimmed_before_the_move_names_them(bench: Bench) -> None:
    """R-112: nor what no version ever named."""
    bench.put("/report", ONE, TWO, END)
    bench.ready.register(wait=False)
    mover = small_slices(bench, "mover")
    while not bench.world.sql("SELECT 1 FROM file_chunks WHERE successor <> ''"):
        run_one(mover.services, stopping=lambda: True)
    assert bench.world.sql("SELECT count(*) FROM file_versions WHERE key_version = 1") == [(1,)], "the move has not finished it"
    trimming = bench.world.process("t", settings=replace(bench.world.settings, file_versions_kept=1))
    entry = bench.put("/report", THREE, process=trimming)
    assert bench.world.sql("SELECT number FROM file_versions") == [(2,)]
    run_due(mover.services)
    assert bench.ready.status().state == "Registered"
    assert bench.world.sql("SELECT node_id FROM file_chunks") == [(entry.node.id,)]
    assert bench.world.sql("SELECT stored_bytes FROM sites") == bench.world.sql("SELECT sum(length) FROM file_chunks")
    assert bench.read("/report") == THREE


def days_pass(bench: Bench, count: int) -> None:
    """Days on which the upkeep runs."""
    for _day in range(count):
        bench.world.clock.advance(26 * HOUR)
        bench.world.age_objects(26 * 3600)
        schedule_upkeep(bench.world.services)
        run_due(bench.world.services)


def test_a_file_that_comes_in_for_days_is_refused_and_not_acknowledged_without_its_beginning(bench: Bench) -> None:
    """R-112: nothing names what is stored while it comes in, and `collect-orphans` removes what nothing names."""

    def body() -> Iterator[bytes]:
        yield from (ONE, TWO, TWO, TWO, THREE)
        days_pass(bench, 3)
        yield END

    with pytest.raises(Conflict, match="upload_too_slow"):
        files.put(bench.world.services, bench.caller, bench.opened, "/slow", body())
    assert files.listing(bench.world.services, bench.opened, "/") == []
    assert not [path for path in (bench.world.path / "objects").rglob("*") if path.is_file()], "what was stored of it is gone too"


def test_a_part_that_comes_in_for_days_leaves_the_file_as_it_was(bench: Bench) -> None:
    """R-112: the same when a part of a file is written."""
    bench.put("/file", ONE, END)

    def body() -> Iterator[bytes]:
        yield from (TWO, TWO, TWO, THREE, THREE)
        days_pass(bench, 3)
        yield THREE

    with pytest.raises(Conflict, match="upload_too_slow"):
        files.write(bench.world.services, bench.caller, bench.opened, "/file", 0, body())
    assert bench.read("/file") == ONE + END


def test_a_process_that_stands_still_for_days_before_it_commits_is_refused(bench: Bench) -> None:
    """R-112: a machine may be suspended at any moment; the commit itself asks."""
    slow = bench.meanwhile(lambda: days_pass(bench, 3))
    with pytest.raises(Conflict, match="upload_too_slow"):
        bench.put("/slow", ONE, END, process=slow)
    assert files.listing(bench.world.services, bench.opened, "/") == []


def test_a_file_that_comes_in_for_most_of_a_day_stays(bench: Bench) -> None:
    """R-112: what took less than the grace period is never collected, whenever the upkeep looks."""

    def body() -> Iterator[bytes]:
        yield from (ONE, TWO, TWO, TWO, THREE)
        for _look in range(23):
            bench.world.clock.advance(HOUR)
            bench.world.age_objects(3600)
            schedule_upkeep(bench.world.services)
            run_due(bench.world.services)
        yield END

    files.put(bench.world.services, bench.caller, bench.opened, "/slow", body())
    days_pass(bench, 3)
    assert bench.read("/slow") == ONE + TWO * 3 + THREE + END
