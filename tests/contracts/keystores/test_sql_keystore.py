"""What the key store of a home promises beyond the port: destruction that reaches backups, and several processes."""

from __future__ import annotations

import errno
import inspect
import os
import shutil
import sqlite3
import stat
from typing import TYPE_CHECKING

import pytest

from contracts.keystores.homes import MASTER, Home
from keystead.adapters.keystores.sql import SqlKeyStore
from keystead.adapters.sql.engine import writing
from keystead.adapters.sql.sqlite import sqlite_engine
from keystead.core.errors import IntegrityFailure, NotFound, Unavailable
from keystead.core.secret import SecretKey
from keystead.ports.keystore import Compartment, KeyStore

if TYPE_CHECKING:
    from pathlib import Path

SHRED, MAIL, PROVIDER = Compartment.SHRED, Compartment.AVAILABILITY_MAIL, Compartment.PROVIDER
CONTEXT = b"tenant/policy/1"


def sealed_entries(database: Path) -> dict[str, bytes]:
    connection = sqlite3.connect(database)
    try:
        return dict(connection.execute("SELECT key_id, sealed FROM entries").fetchall())
    finally:
        connection.close()


def test_keys_last(home: Home) -> None:
    store = home.process()
    store.create(SHRED, "k1")
    box = store.seal(SHRED, "k1", b"value", CONTEXT)
    home.close()
    assert home.process().open(SHRED, "k1", box, CONTEXT) == b"value"


def test_after_destruction_an_older_backup_does_not_open(home: Home) -> None:
    """R-151."""
    store = home.process()
    for key_id in ("k1", "k2"):
        store.create(MAIL, key_id)
    boxes = {key_id: store.seal(MAIL, key_id, b"value", CONTEXT) for key_id in ("k1", "k2")}
    home.close()
    backup = home.folder / "backup.db"
    shutil.copy(home.database, backup)
    home.process().destroy(MAIL, ["k1"])
    home.close()
    present = home.database.read_bytes()
    shutil.copy(backup, home.database)

    with pytest.raises(IntegrityFailure) as caught:
        home.process()

    assert caught.value.code == "keystore_epoch_missing"
    assert "keystore-availability-mail.2" in home.epoch_files(), "a wrong restore must not cost the keys of the present database"
    home.close()
    home.database.write_bytes(present)
    store = home.process()
    assert store.open(MAIL, "k2", boxes["k2"], CONTEXT) == b"value"
    with pytest.raises(NotFound):
        store.open(MAIL, "k1", boxes["k1"], CONTEXT)


def test_no_epoch_key_in_force_opens_an_old_entry(home: Home) -> None:
    """R-151. Neither renaming the present epoch file nor putting the old row back helps: epoch and key id are authenticated."""
    store = home.process()
    store.create(SHRED, "k1")
    store.create(SHRED, "k2")
    old = sealed_entries(home.database)
    store.destroy(SHRED, ["k1"])
    with writing(home.engines[0]) as connection:
        connection.exec_driver_sql("INSERT INTO entries VALUES ('shred', 'k1', 0, ?)", (old["k1"],))
    with pytest.raises(IntegrityFailure) as caught:
        store.seal(SHRED, "k1", b"value", CONTEXT)
    assert caught.value.code == "keystore_entry_damaged"
    with writing(home.engines[0]) as connection:
        connection.exec_driver_sql("UPDATE entries SET sealed = (SELECT sealed FROM entries WHERE key_id = 'k2') WHERE key_id = 'k1'")
    with pytest.raises(IntegrityFailure):
        store.seal(SHRED, "k1", b"value", CONTEXT)
    with pytest.raises(IntegrityFailure, match="k1"):
        store.rotate(SHRED)
    store.destroy(SHRED, ["k1"])
    assert store.rotate(SHRED) == 4


def test_destruction_leaves_no_old_page_and_no_old_file(home: Home) -> None:
    store = home.process()
    for number in range(50):
        store.create(SHRED, f"k{number}")
    old = sealed_entries(home.database)
    store.destroy(SHRED, ["k7"])
    left = home.all_bytes()
    assert [key_id for key_id, sealed in old.items() if sealed in left or sealed[18:] in left] == []
    assert home.epoch_files() == ["keystore-availability-mail.1", "keystore-provider.1", "keystore-shred.2"]
    assert home.database.with_name("keys.db-wal").stat().st_size == 0
    assert len(store.entries(SHRED)) == 49


def test_nothing_public_and_nothing_stored_shows_a_key(home: Home) -> None:
    """R-138."""
    store = home.process()
    store.create(MAIL, "k1")
    store.create(MAIL, "k2")
    store.create(MAIL, "k3")
    box = store.seal(MAIL, "k1", b"value", CONTEXT)
    store.destroy(MAIL, ["k2"])
    store.prepare(MAIL)
    answers = {
        "seal": box,
        "open": store.open(MAIL, "k1", box, CONTEXT),
        "entries": store.entries(MAIL),
        "rotate": store.rotate(MAIL),
    }
    methods = {name for name, _ in inspect.getmembers(SqlKeyStore, inspect.isfunction) if not name.startswith("_")}
    silent = {name for name in methods if inspect.signature(getattr(SqlKeyStore, name)).return_annotation == "None"}
    assert silent == {"create", "destroy", "prepare"}
    assert methods == answers.keys() | silent
    assert {name for name, _ in inspect.getmembers(KeyStore, inspect.isfunction) if not name.startswith("_")} == methods - {"prepare"}
    assert len(home.random.keys) == 3 + 3 + 2, "three first epochs, three entries, two more epochs"
    shown = repr(answers).encode() + repr(store).encode() + repr(vars(store)).encode() + home.all_bytes()
    home.close()
    shown += home.all_bytes()
    for key in [*home.random.keys, MASTER]:
        assert key not in shown
        assert key.hex().encode() not in shown
        assert repr(key).encode() not in shown


def test_seal_files_are_for_the_owner_alone(home: Home) -> None:
    """R-253."""
    home.process()
    assert {stat.S_IMODE(path.stat().st_mode) for path in home.seals.iterdir()} == {0o600}
    assert stat.S_IMODE(home.seals.stat().st_mode) == 0o700


def test_another_master_is_refused_and_changes_nothing(home: Home) -> None:
    store = home.process()
    store.create(SHRED, "k1")
    box = store.seal(SHRED, "k1", b"value", CONTEXT)
    files = home.epoch_files()
    with pytest.raises(IntegrityFailure, match="another master key") as caught:
        home.process(master=b"\x07" * 32)
    assert caught.value.code == "keystore_seal_refused"
    assert caught.value.mend
    assert home.epoch_files() == files
    assert home.process().open(SHRED, "k1", box, CONTEXT) == b"value"


@pytest.mark.parametrize("damage", ["missing", "emptied", "swapped", "renamed"])
def test_a_damaged_seals_folder_is_said_so_and_left_alone(home: Home, damage: str) -> None:
    store = home.process()
    store.create(SHRED, "k1")
    home.close()
    live = home.seals / "keystore-shred.1"
    kept = live.read_bytes()
    match damage:
        case "missing":
            live.unlink()
        case "emptied":
            live.write_bytes(b"")
        case "swapped":
            live.write_bytes((home.seals / "keystore-provider.1").read_bytes())
        case _:
            live.rename(home.seals / "keystore-shred.2")
    files = home.epoch_files()
    with pytest.raises(IntegrityFailure) as caught:
        home.process()
    assert caught.value.code in {"keystore_epoch_missing", "keystore_seal_refused"}
    assert home.epoch_files() == files
    home.close()
    live.write_bytes(kept)
    assert [entry.key_id for entry in home.process().entries(SHRED)] == ["k1"]


def test_a_lost_database_is_not_taken_for_a_new_one(home: Home) -> None:
    home.process().rotate(PROVIDER)
    home.close()
    home.database.unlink()
    with pytest.raises(IntegrityFailure) as caught:
        home.process()
    assert caught.value.code == "keystore_database_lost"
    assert "keystore-provider.2" in home.epoch_files()


def test_a_destroyed_key_is_gone_for_other_processes_at_once(home: Home) -> None:
    """R-151."""
    first, second = home.process(), home.process()
    first.create(MAIL, "k1")
    first.create(MAIL, "k2")
    boxes = {key_id: second.seal(MAIL, key_id, b"value", CONTEXT) for key_id in ("k1", "k2")}
    first.destroy(MAIL, ["k1"])
    with pytest.raises(NotFound):
        second.open(MAIL, "k1", boxes["k1"], CONTEXT)
    assert second.open(MAIL, "k2", boxes["k2"], CONTEXT) == b"value"
    second.create(MAIL, "k3")
    assert second.rotate(MAIL) == 3
    assert first.open(MAIL, "k2", boxes["k2"], CONTEXT) == b"value"
    assert first.rotate(MAIL) == 4


def test_a_process_overtaken_between_row_and_file_looks_again(home: Home) -> None:
    first, second = home.process(), home.process()
    first.create(MAIL, "k1")
    box = first.seal(MAIL, "k1", b"value", CONTEXT)
    load = second._files.load

    def overtaken(compartment: Compartment, epoch: int) -> object:
        second._files.load = load  # type: ignore[method-assign]
        first.rotate(MAIL)
        return load(compartment, epoch)

    second._in_force.clear()
    second._files.load = overtaken  # type: ignore[method-assign,assignment]
    assert second.open(MAIL, "k1", box, CONTEXT) == b"value"


def test_compartments_are_rewritten_apart(home: Home) -> None:
    """R-139."""
    store = home.process()
    store.create(SHRED, "k1")
    store.create(MAIL, "m1")
    before = sealed_entries(home.database)
    store.destroy(SHRED, ["k1"])
    assert sealed_entries(home.database) == {"m1": before["m1"]}
    assert "keystore-availability-mail.1" in home.epoch_files()


def test_leftovers_of_a_failed_write_are_tidied_and_strangers_kept(home: Home) -> None:
    home.process().create(SHRED, "k1")
    home.close()
    for name in (".keystore-shred.2.ab12.tmp", "keystore-shred.9", "vault.1", ".vault.1.tmp", "keystore-shred.01", "keystore-shredder.1"):
        (home.seals / name).write_bytes(b"leftover")
    assert [entry.key_id for entry in home.process().entries(SHRED)] == ["k1"]
    assert home.epoch_files() == [
        ".vault.1.tmp",
        "keystore-availability-mail.1",
        "keystore-provider.1",
        "keystore-shred.01",
        "keystore-shred.1",
        "keystore-shredder.1",
        "vault.1",
    ]


def test_a_full_disk_destroys_nothing_half(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    store = home.process()
    store.create(SHRED, "k1")
    store.create(SHRED, "k2")
    box = store.seal(SHRED, "k2", b"value", CONTEXT)
    sync = os.fsync

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Unavailable) as caught:
        store.destroy(SHRED, ["k1"])
    assert caught.value.code == "storage_full"
    monkeypatch.setattr(os, "fsync", sync)
    assert len(store.entries(SHRED)) == 2
    assert [name for name in home.epoch_files() if "shred" in name] == ["keystore-shred.1"]
    store.destroy(SHRED, ["k1"])
    assert store.open(SHRED, "k2", box, CONTEXT) == b"value"


def test_a_long_read_elsewhere_is_reported_and_the_next_call_finishes(home: Home) -> None:
    store = home.process()
    store.create(SHRED, "k1")
    old = sealed_entries(home.database)["k1"]
    engine = sqlite_engine(home.database)
    home.engines.append(engine)
    with home.engines[0].connect() as mine:
        mine.exec_driver_sql("PRAGMA busy_timeout = 50")
    with engine.connect() as reader:
        reader.exec_driver_sql("BEGIN")
        reader.exec_driver_sql("SELECT count(*) FROM entries").one()
        with pytest.raises(Unavailable) as caught:
            store.destroy(SHRED, ["k1"])
        assert caught.value.code == "keystore_busy"
        assert "keystore-shred.1" not in home.epoch_files(), "the key that opens the old pages is gone all the same"
        reader.exec_driver_sql("ROLLBACK")
    store.destroy(SHRED, ["k1"])
    assert old not in home.all_bytes()


def test_errors_name_no_key_material(home: Home) -> None:
    store = home.process()
    store.create(SHRED, "k1")
    with pytest.raises(IntegrityFailure) as caught:
        store.open(SHRED, "k1", b"KSKB" + bytes(60), CONTEXT)
    chain = [caught.value, caught.value.__cause__, caught.value.__context__]
    assert not [key for key in home.random.keys if any(repr(key) in repr(each) or key.hex() in repr(each) for each in chain)]
    assert repr(SecretKey(MASTER)) == "SecretKey(...)"
