"""A database that is gone, full, damaged or read-only: a clear word, nothing half done, and the import can be run again."""

from __future__ import annotations

import os
import resource
import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from keystead.adapters.sql.sqlite import sqlite_engine
from keystead.adapters.sql.store import SqlDatabase
from keystead.core.errors import IntegrityFailure, Unavailable
from support.world import World, message

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.world import TenantWorld

FILES = ("keystead.db", "keystead.db-wal", "keystead.db-shm")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """On files, whatever else runs on both kinds."""
    made = World(tmp_path)
    yield made
    made.close()


@pytest.fixture
def contoso(world: World) -> TenantWorld:
    return world.tenant("contoso.example", ready=False)


def consume(calls: Iterator[object]) -> None:
    """Make every call."""
    for _answer in calls:
        pass


@contextmanager
def no_file_larger_than(size: int) -> Iterator[None]:
    """As on a full disk: a write that would make a file of this process larger fails."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_under_the_database_stops_an_import_which_can_be_run_again(world: World, contoso: TenantWorld) -> None:
    box = contoso.mailbox("alice", messages=2)
    source = [message(index) for index in range(2, 42)]
    with no_file_larger_than((world.path / "keystead.db-wal").stat().st_size + 4096), pytest.raises(Unavailable) as caught:
        consume(box.add(data) for data in source)
    assert caught.value.code in {"database_unavailable", "storage_full"}
    assert "try again" in caught.value.mend
    again = [box.add(data) for data in source]
    assert sum(result.imported + result.already_present for result in again) == 40
    assert box.read_all() == sorted([message(0), message(1), *source])
    assert box.statistics().item_count == 42


def test_a_file_that_was_taken_away_is_missed_at_once_and_found_again(world: World, contoso: TenantWorld) -> None:
    """Writes to a removed file would succeed and be lost: nothing may be acknowledged."""
    box = contoso.mailbox("alice", messages=1)
    away = world.path / "away"
    away.mkdir()
    for name in FILES:
        (world.path / name).rename(away / name)
    for _again in range(3):
        with pytest.raises(Unavailable) as caught:
            box.add(message(1))
    assert caught.value.code in {"database_lost", "database_unavailable"}
    assert not (world.path / "keystead.db").exists(), "an empty one in its place would look as if nothing had ever been there"
    for name in FILES:
        (away / name).rename(world.path / name)
    assert box.add(message(1)).imported == 1
    assert box.read_all() == sorted([message(0), message(1)])
    found = world.process("after").services
    with found.db.read() as tx:
        assert len(tx.mailboxes.items(box.statistics().id, after="", limit=10)) == 2


def test_a_file_that_was_replaced_is_not_written_through_the_old_connection(world: World, contoso: TenantWorld) -> None:
    box = contoso.mailbox("alice", messages=1)
    world.services.db._inner.close()  # type: ignore[attr-defined]  # the SQL database has it: as if everything had been idle
    copy = (world.path / "keystead.db").read_bytes()
    box.add(message(1))
    for name in FILES:
        (world.path / name).unlink(missing_ok=True)
    (world.path / "keystead.db").write_bytes(copy)
    result = box.add(message(1), message(2))
    assert (result.imported, result.already_present) == (2, 0), "the restored copy counts"
    assert box.statistics().item_count == 3


def test_a_file_that_was_replaced_is_not_read_through_the_old_connection(tmp_path: Path) -> None:
    path, other = tmp_path / "keystead.db", tmp_path / "other.db"
    for place, value in ((path, "1s"), (other, "2s")):
        database = SqlDatabase(sqlite_engine(place))
        with database.write() as tx:
            tx.settings.put("probe_interval", value)
        database.close()
    database = SqlDatabase(sqlite_engine(path))
    with database.read() as tx:
        assert tx.settings.all() == {"probe_interval": "1s"}
    for name in FILES:
        (tmp_path / name).unlink(missing_ok=True)
    with pytest.raises(Unavailable), database.read() as tx:
        tx.settings.all()
    other.rename(path)
    with database.read() as tx:
        assert tx.settings.all() == {"probe_interval": "2s"}


def test_a_damaged_file_is_an_integrity_failure(tmp_path: Path) -> None:
    path = tmp_path / "keystead.db"
    database = SqlDatabase(sqlite_engine(path))
    with database.write() as tx:
        tx.settings.put("probe_interval", "1s")
    database.close()
    path.write_bytes(b"this is no database at all".ljust(8192, b"?"))
    with pytest.raises(IntegrityFailure) as caught:
        SqlDatabase(sqlite_engine(path))
    assert caught.value.code == "database_damaged"


def test_a_database_that_somebody_holds_for_too_long_is_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keystead.adapters.sql.sqlite.BUSY_TIMEOUT_SECONDS", 0.05)
    path = tmp_path / "keystead.db"
    database = SqlDatabase(sqlite_engine(path))
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(Unavailable) as caught, database.write() as tx:
        tx.settings.put("probe_interval", "1s")
    assert caught.value.code == "database_unavailable"
    with database.read() as tx:
        assert tx.settings.all() == {}, "readers never wait"
    holder.execute("ROLLBACK")
    with database.write() as tx:
        tx.settings.put("probe_interval", "1s")
    holder.close()
    database.close()


def test_a_folder_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        SqlDatabase(sqlite_engine(tmp_path / "nowhere" / "keystead.db"))


def test_files_are_for_their_owner_alone_wherever_the_home_lies(tmp_path: Path) -> None:
    """R-253."""
    home = tmp_path / "an odd? #%41 home"
    home.mkdir()
    before = os.umask(0)
    try:
        database = SqlDatabase(sqlite_engine(home / "keystead.db"))
        with database.write() as tx:
            tx.settings.put("probe_interval", "1s")
        found = {path.name: path.stat().st_mode & 0o777 for path in home.iterdir()}
        database.close()
    finally:
        os.umask(before)
    assert found == dict.fromkeys(FILES, 0o600)
