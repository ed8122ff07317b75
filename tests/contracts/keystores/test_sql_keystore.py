"""What the key store of a home promises beyond the port: destruction that reaches backups, and several processes."""

from __future__ import annotations

import errno
import inspect
import os
import stat
import threading
from typing import TYPE_CHECKING

import pytest

from contracts.keystores.homes import MASTER, Home
from keystead.adapters.keystores.sql import SqlKeyStore
from keystead.core.errors import IntegrityFailure, NotFound, Unavailable
from keystead.core.secret import KEY_BYTES, SecretKey
from keystead.ports.keystore import Compartment, KeyStore
from support.databases import POSTGRESQL, SQLITE, PostgresStores
from support.postgres import cluster

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SHRED, MAIL, PROVIDER = Compartment.SHRED, Compartment.AVAILABILITY_MAIL, Compartment.PROVIDER
CONTEXT = b"tenant/policy/1"


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
    backup = home.stores.backup("keys")
    home.process().destroy(MAIL, ["k1"])
    home.close()
    present = home.stores.backup("keys")
    home.stores.restore("keys", backup)

    with pytest.raises(IntegrityFailure) as caught:
        home.process()

    assert caught.value.code == "keystore_epoch_missing"
    assert "keystore-availability-mail.2" in home.epoch_files(), "a wrong restore must not cost the keys of the present database"
    home.close()
    home.stores.restore("keys", present)
    store = home.process()
    assert store.open(MAIL, "k2", boxes["k2"], CONTEXT) == b"value"
    with pytest.raises(NotFound):
        store.open(MAIL, "k1", boxes["k1"], CONTEXT)


def test_no_epoch_key_in_force_opens_an_old_entry(home: Home) -> None:
    """R-151. Neither renaming the present epoch file nor putting the old row back helps: epoch and key id are authenticated."""
    store = home.process()
    store.create(SHRED, "k1")
    store.create(SHRED, "k2")
    old = home.sealed()
    store.destroy(SHRED, ["k1"])
    home.stores.sql("keys", "INSERT INTO entries VALUES ('shred', 'k1', 0, ?)", old["k1"])
    with pytest.raises(IntegrityFailure) as caught:
        store.seal(SHRED, "k1", b"value", CONTEXT)
    assert caught.value.code == "keystore_entry_damaged"
    home.stores.sql("keys", "UPDATE entries SET sealed = (SELECT sealed FROM entries WHERE key_id = 'k2') WHERE key_id = 'k1'")
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
    old = home.sealed()
    store.destroy(SHRED, ["k7"])
    left = home.all_bytes()
    assert [key_id for key_id, sealed in old.items() if sealed in left or sealed[18:] in left] == []
    assert home.epoch_files() == [
        "keystore-availability-files.1",
        "keystore-availability-mail.1",
        "keystore-provider.1",
        "keystore-shred.2",
        "keystore-signing.1",
    ]
    assert home.on_server or (home.folder / "keys.db-wal").stat().st_size == 0
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
    assert len(home.random.keys) == 5 + 3 + 2, "five first epochs, three entries, two more epochs"
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
    home.stores.lose("keys")
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
    before = home.sealed()
    store.destroy(SHRED, ["k1"])
    assert home.sealed() == {"m1": before["m1"]}
    assert "keystore-availability-mail.1" in home.epoch_files()


def test_leftovers_of_a_failed_write_are_tidied_and_strangers_kept(home: Home) -> None:
    home.process().create(SHRED, "k1")
    home.close()
    for name in (".keystore-shred.2.ab12.tmp", "keystore-shred.9", "vault.1", ".vault.1.tmp", "keystore-shred.01", "keystore-shredder.1"):
        (home.seals / name).write_bytes(b"leftover")
    store = home.process()
    assert [entry.key_id for entry in store.entries(SHRED)] == ["k1"]
    strangers = [".vault.1.tmp", "keystore-shred.01", "keystore-shredder.1", "vault.1"]
    ours = [
        "keystore-availability-files.1",
        "keystore-availability-mail.1",
        "keystore-provider.1",
        "keystore-signing.1",
        "keystore-shred.1",
    ]
    newer = ["keystore-shred.9"] if home.on_server else []  # somebody's who came after us, for all we know
    assert home.epoch_files() == sorted([*strangers, *ours, *newer])
    assert store.rotate(SHRED) == (10 if home.on_server else 2)
    assert [name for name in home.epoch_files() if name.startswith("keystore-shred.")] == [
        "keystore-shred.01",
        "keystore-shred.10" if home.on_server else "keystore-shred.2",
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
    claimed = ["keystore-shred.2"] if home.on_server else []
    assert [name for name in home.epoch_files() if "shred" in name] == ["keystore-shred.1", *claimed]
    store.destroy(SHRED, ["k1"])
    assert len([name for name in home.epoch_files() if "shred" in name]) == 1
    assert store.open(SHRED, "k2", box, CONTEXT) == b"value"


def test_a_long_read_elsewhere_is_reported_and_the_next_call_finishes(tmp_path: Path) -> None:
    """SQLite's log is emptied; PostgreSQL's is its own affair."""
    home = Home(tmp_path, kind=SQLITE)
    store = home.process()
    store.create(SHRED, "k1")
    old = home.sealed()["k1"]
    engine = home.stores.engine("keys")
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
    home.close()


def test_errors_name_no_key_material(home: Home) -> None:
    store = home.process()
    store.create(SHRED, "k1")
    with pytest.raises(IntegrityFailure) as caught:
        store.open(SHRED, "k1", b"KSKB" + bytes(60), CONTEXT)
    chain = [caught.value, caught.value.__cause__, caught.value.__context__]
    assert not [key for key in home.random.keys if any(repr(key) in repr(each) or key.hex() in repr(each) for each in chain)]
    assert repr(SecretKey(MASTER)) == "SecretKey(...)"


# -- a lock that was lost unnoticed, as a fleet's can be ----------------------------------------------------------------------------------


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Home]:
    """A key store on PostgreSQL, whatever else runs on it."""
    made = Home(tmp_path, kind=POSTGRESQL)
    yield made
    made.close()
    made.stores.close()


def thrown_out(fleet: Home) -> None:
    """The server ends every session, as after a pause or a cut-off; who was in a transaction does not know yet."""
    assert isinstance(fleet.stores, PostgresStores)
    assert cluster().disconnect(fleet.stores.name("keys")) > 0


def filled(store: SqlKeyStore) -> dict[str, bytes]:
    for key_id in ("k1", "k2"):
        store.create(SHRED, key_id)
    return {key_id: store.seal(SHRED, key_id, key_id.encode(), CONTEXT) for key_id in ("k1", "k2")}


@pytest.mark.parametrize("act", ["rotate", "destroy"])
def test_a_rewrite_that_lost_its_lock_costs_nobody_a_key(fleet: Home, act: str) -> None:
    """R-151. The late one is about to write its epoch key when another process rewrites the compartment, under the next number."""
    boxes = filled(fleet.process())
    winner = fleet.process()
    epochs: list[int] = []

    def random(size: int) -> bytes:
        if armed and size == KEY_BYTES:
            armed.clear()
            thrown_out(fleet)
            epochs.append(winner.rotate(SHRED))
        return os.urandom(size)

    armed: list[bool] = []
    late = fleet.process(random=random)
    armed.append(True)
    with pytest.raises(Unavailable):
        late.rotate(SHRED) if act == "rotate" else late.destroy(SHRED, ["k1"])
    assert epochs == [3], "the number the late one claimed was passed over"
    for store in (winner, late, fleet.process()):
        assert {key_id: store.open(SHRED, key_id, box, CONTEXT) for key_id, box in boxes.items()} == {"k1": b"k1", "k2": b"k2"}
    late.destroy(SHRED, ["k1"])
    assert fleet.process().open(SHRED, "k2", boxes["k2"], CONTEXT) == b"k2"
    assert len([name for name in fleet.epoch_files() if "shred" in name]) == 1


def test_tidying_up_after_the_lock_was_lost_removes_no_key_of_others(fleet: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    boxes = filled(fleet.process())
    winner, late = fleet.process(), fleet.process()
    leftovers = late._files.leftovers

    def overtaken(compartment: Compartment, live: int) -> list[Path]:
        monkeypatch.undo()
        thrown_out(fleet)
        winner.rotate(compartment)
        return leftovers(compartment, live)

    monkeypatch.setattr(late._files, "leftovers", overtaken)
    with pytest.raises(Unavailable):
        late.rotate(SHRED)
    assert "keystore-shred.3" in fleet.epoch_files()
    for store in (winner, late, fleet.process()):
        assert {key_id: store.open(SHRED, key_id, box, CONTEXT) for key_id, box in boxes.items()} == {"k1": b"k1", "k2": b"k2"}


def test_two_machines_that_start_a_new_store_at_once_share_its_first_keys(fleet: Home) -> None:
    stores: list[SqlKeyStore] = []
    threads = [threading.Thread(target=lambda: stores.append(fleet.process())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(stores) == 4
    stores[0].create(SHRED, "k1")
    box = stores[0].seal(SHRED, "k1", b"value", CONTEXT)
    assert [store.open(SHRED, "k1", box, CONTEXT) for store in stores] == [b"value"] * 4
    assert fleet.epoch_files() == sorted(f"keystore-{compartment}.1" for compartment in Compartment)
