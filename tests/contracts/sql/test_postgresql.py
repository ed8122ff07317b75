"""PostgreSQL that is restarted, slow, full, read-only, gone or of the wrong kind: each has a defined answer, and nothing is half stored."""

from __future__ import annotations

import os
import socket
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
from alembic import command
from psycopg import conninfo
from sqlalchemy import text
from sqlalchemy.exc import DataError

from keystead.adapters.sql.engine import open_engine, reading, writing
from keystead.adapters.sql.migrate import alembic_config, ensure_current, upgrade
from keystead.adapters.sql.store import SqlDatabase
from keystead.core.configuration import DatabaseConfig
from keystead.core.errors import Conflict, IntegrityFailure, InvalidRequest, KeysteadError, PreconditionFailed, Unavailable
from support.databases import POSTGRESQL, PostgresStores, fresh, make_stores, server_engine
from support.postgres import cluster

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Engine

PASSWORD = "correct horse battery staple"


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[PostgresStores]:
    made = make_stores(tmp_path, POSTGRESQL)
    assert isinstance(made, PostgresStores)
    yield made
    made.close()


@pytest.fixture
def engine(stores: PostgresStores) -> Iterator[Engine]:
    made = stores.engine("keystead")
    yield made
    made.dispose()


def put(engine: Engine, name: str, value: str = "1") -> None:
    with writing(engine) as connection:
        connection.execute(text("INSERT INTO settings VALUES (:name, :value)"), {"name": name, "value": value})


def names(stores: PostgresStores) -> list[str]:
    return [str(name) for (name,) in stores.sql("keystead", "SELECT name FROM settings ORDER BY name")]


def with_options(stores: PostgresStores, *options: str) -> Engine:
    """A process whose sessions have other limits than the default ones."""
    return server_engine(f"{stores.url('keystead')}&options={quote(' '.join(f'-c {option}' for option in options))}")


# -- lost connections -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["restart", "thrown out"])
def test_connections_that_died_in_the_pool_are_replaced_unnoticed(stores: PostgresStores, engine: Engine, how: str) -> None:
    database = SqlDatabase(engine)
    with ThreadPoolExecutor(8) as threads:
        meet = threading.Barrier(8)

        def together(_number: int) -> None:
            with database.read() as tx:
                meet.wait()
                tx.settings.all()

        list(threads.map(together, range(8)))
        cluster().restart() if how == "restart" else cluster().disconnect(stores.name("keystead"))
        list(threads.map(together, range(8)))
    with database.write() as tx:
        tx.settings.put("probe_interval", "1s")
    assert names(stores) == ["probe_interval"]


@pytest.mark.parametrize("how", ["restart", "thrown out"])
def test_a_connection_lost_in_a_transaction_stores_nothing(stores: PostgresStores, engine: Engine, how: str) -> None:

    def act() -> None:
        with writing(engine) as connection:
            connection.execute(text("INSERT INTO settings VALUES ('a', '1')"))
            cluster().restart() if how == "restart" else cluster().disconnect(stores.name("keystead"))
            connection.execute(text("INSERT INTO settings VALUES ('b', '1')"))

    with pytest.raises(Unavailable) as caught:
        act()
    assert caught.value.code == "database_unavailable"
    assert names(stores) == []
    put(engine, "c")
    assert names(stores) == ["c"]


def test_a_commit_the_server_did_not_come_to_is_of_unknown_end(stores: PostgresStores, engine: Engine) -> None:
    with deferred(stores, "PERFORM pg_terminate_backend(pg_backend_pid()); PERFORM pg_sleep(60)"), pytest.raises(Unavailable) as caught:
        put(engine, "a")
    assert caught.value.code == "commit_unknown"
    assert names(stores) == []
    put(engine, "b")


def test_a_commit_whose_answer_was_lost_is_of_unknown_end_and_stored(stores: PostgresStores, tmp_path: Path) -> None:
    with deaf_after_commit(tmp_path) as folder:
        engine = server_engine(f"postgresql://keystead@/{stores.name('keystead')}?host={folder}")
        with pytest.raises(Unavailable) as caught:
            put(engine, "a")
        engine.dispose()
    assert caught.value.code == "commit_unknown"
    assert "look whether it is there" in caught.value.mend
    assert names(stores) == ["a"]


def test_a_transaction_the_server_gave_up_is_not_taken_for_committed(stores: PostgresStores, engine: Engine) -> None:
    """The server answers such a COMMIT with ROLLBACK, and no error."""

    def act() -> None:
        with writing(engine) as connection:
            connection.execute(text("INSERT INTO settings VALUES ('a', '1')"))
            with suppress(DataError):
                connection.execute(text("SELECT 1 / 0"))

    with pytest.raises(Unavailable):
        act()
    assert names(stores) == []


def test_a_server_that_is_not_there_is_unavailable_and_found_again(engine: Engine) -> None:
    put(engine, "a")
    cluster().stop()
    try:
        for _again in range(2):
            with pytest.raises(Unavailable) as caught, reading(engine):
                pass
            assert caught.value.code == "database_unavailable"
    finally:
        cluster().start()
    put(engine, "b")


def test_a_database_that_is_gone_is_unavailable() -> None:
    databases = fresh()
    engine = server_engine(databases.keystead_url)
    put(engine, "a")
    name = conninfo.conninfo_to_dict(databases.keystead_url)["dbname"]
    cluster().drop(str(name))
    for _again in range(2):
        with pytest.raises(Unavailable) as caught:
            put(engine, "b")
        assert caught.value.code == "database_unavailable"
        assert str(name) in caught.value.detail
    engine.dispose()


# -- limits ---------------------------------------------------------------------------------------------------------------------------


def test_writers_wait_for_one_another_and_not_for_ever(stores: PostgresStores, engine: Engine) -> None:
    hasty = with_options(stores, "lock_timeout=50")
    with writing(engine) as connection:
        connection.execute(text("INSERT INTO settings VALUES ('a', '1')"))
        with pytest.raises(Unavailable) as caught:
            put(hasty, "b")
        with reading(hasty) as reader:
            assert reader.execute(text("SELECT count(*) FROM settings")).scalar_one() == 0, "readers never wait"
    assert caught.value.code == "database_busy"
    put(hasty, "b")
    assert names(stores) == ["a", "b"]
    hasty.dispose()


def test_a_statement_that_takes_too_long_is_ended(stores: PostgresStores) -> None:
    engine = with_options(stores, "statement_timeout=2000")
    with pytest.raises(Unavailable) as caught, reading(engine) as connection:
        connection.execute(text("SELECT pg_sleep(60)"))
    assert caught.value.code == "database_busy"
    put(engine, "a")
    engine.dispose()


def test_a_process_that_stands_still_in_a_transaction_does_not_stop_the_fleet(stores: PostgresStores, engine: Engine) -> None:
    still = with_options(stores, "idle_in_transaction_session_timeout=2000")

    def act() -> None:
        with writing(still) as connection:
            connection.execute(text("INSERT INTO settings VALUES ('a', '1')"))
            put(engine, "b")  # waits until the server has ended the other's transaction
            connection.execute(text("INSERT INTO settings VALUES ('c', '1')"))

    with pytest.raises(Unavailable) as caught:
        act()
    assert caught.value.code in {"database_busy", "database_unavailable"}
    assert names(stores) == ["b"]
    still.dispose()


def test_a_process_keeps_to_its_pool(stores: PostgresStores, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keystead.adapters.sql.postgresql.POOL_SECONDS", 0.05)
    engine = server_engine(stores.url("keystead"), pool=1)
    with reading(engine), pytest.raises(Unavailable) as caught, reading(engine):
        pass
    assert caught.value.code == "database_busy"
    assert "`pool`" in caught.value.mend
    engine.dispose()


def test_no_update_is_lost_between_processes(stores: PostgresStores) -> None:
    """A transaction that reads and then writes sees no other writer in between, whatever process it is in."""
    stores.sql("keystead", "INSERT INTO settings VALUES ('n', '0')")
    children = []
    for _process in range(3):
        child = os.fork()
        if child == 0:
            try:
                engine = server_engine(stores.url("keystead"))
                for _time in range(40):
                    with writing(engine) as connection:
                        value = int(connection.execute(text("SELECT value FROM settings WHERE name = 'n'")).scalar_one())
                        connection.execute(text("UPDATE settings SET value = :value WHERE name = 'n'"), {"value": str(value + 1)})
            finally:
                os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
    assert stores.sql("keystead", "SELECT value FROM settings") == [("120",)]


# -- what the server says -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "kind", "code"),
    [
        ("53100", Unavailable, "database_full"),
        ("53300", Unavailable, "database_busy"),
        ("40P01", Unavailable, "database_busy"),
        ("58030", Unavailable, "database_unavailable"),
        ("57P03", Unavailable, "database_unavailable"),
        ("XX001", IntegrityFailure, "database_damaged"),
        ("22003", InvalidRequest, "value_unfit"),
    ],
)
@pytest.mark.parametrize("when", ["at once", "at the commit"])
def test_what_the_server_says_has_its_code(
    stores: PostgresStores, engine: Engine, state: str, kind: type[KeysteadError], code: str, when: str
) -> None:
    said = deferred(stores, f"RAISE EXCEPTION 'no more' USING ERRCODE = '{state}'", at_once=when == "at once")
    with said, pytest.raises(kind) as caught:
        put(engine, "a")
    assert caught.value.code == code
    assert "no more" in caught.value.detail
    assert caught.value.mend
    assert names(stores) == []
    put(engine, "b")


def test_a_server_that_takes_no_changes_is_unavailable_for_writers(stores: PostgresStores, engine: Engine) -> None:

    def act() -> None:
        with writing(engine) as connection:
            connection.execute(text("SET TRANSACTION READ ONLY"))
            connection.execute(text("INSERT INTO settings VALUES ('a', '1')"))

    with pytest.raises(Unavailable) as caught:
        act()
    assert caught.value.code == "database_read_only"
    name = stores.name("keystead")
    cluster().execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    try:
        cluster().disconnect(name)
        with pytest.raises(Unavailable) as caught:
            put(engine, "a")
        assert "read-only" in caught.value.detail
    finally:
        cluster().execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")


def test_a_table_that_is_gone_or_closed_is_said_so(stores: PostgresStores, engine: Engine) -> None:
    stores.refuse("keystead", "settings")
    with pytest.raises(Unavailable) as caught:
        put(engine, "a")
    assert caught.value.code == "database_refused"
    stores.refuse("keystead", "settings", allow=True)
    stores.sql("keystead", "ALTER TABLE settings RENAME TO away")
    with pytest.raises(Unavailable) as caught:
        put(engine, "a")
    assert caught.value.code == "database_lost"
    stores.sql("keystead", "ALTER TABLE away RENAME TO settings")
    put(engine, "a")


@pytest.mark.parametrize("value", ["nul \0 byte", "x" * 65])
def test_what_fits_in_no_column_is_the_callers_mistake(stores: PostgresStores, engine: Engine, value: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        put(engine, value)
    assert caught.value.code == "value_unfit"
    assert names(stores) == []


# -- signing in -----------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def passworded() -> str:
    cluster().user("kim", PASSWORD)
    return cluster().database("kim")


def test_the_password_is_read_from_its_file_for_every_connection(passworded: str, tmp_path: Path) -> None:
    secret = tmp_path / "db.password"
    secret.write_text("wrong\n")
    config = DatabaseConfig(cluster().url("kim", passworded), "db.password")
    engine = open_engine(config, Path(), tmp_path)
    with pytest.raises(Unavailable) as caught, reading(engine):
        pass
    assert caught.value.code == "database_unavailable"
    assert "password authentication failed" in caught.value.detail
    secret.write_text(f"{PASSWORD}\nanother line\n")
    with reading(engine) as connection:
        assert connection.execute(text("SELECT current_user")).scalar() == "kim"
    secret.unlink()
    engine.dispose()
    with pytest.raises(Unavailable) as caught, reading(engine):
        pass
    assert "db.password" in caught.value.detail


def test_no_password_shows_in_errors_or_descriptions(passworded: str, tmp_path: Path) -> None:
    """R-253: nor in what a debugger prints of the engine."""
    (tmp_path / "db.password").write_text("a wrong secret")
    engine = open_engine(DatabaseConfig(cluster().url("kim", passworded), "db.password"), Path(), tmp_path)
    with pytest.raises(Unavailable) as caught, reading(engine):
        pass
    shown = "".join(traceback.format_exception(caught.value)) + repr(engine) + repr(engine.url) + repr(engine.pool.__dict__)
    assert "a wrong secret" not in shown


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://kim:a-secret@db.example/keystead",
        "postgresql://kim@db.example/keystead?password=a-secret",
        "mysql://kim:a-secret@db.example/keystead",
        "postgresql://kim:a-secret@[db.example/keystead",
        "host=db.example password=a-secret",
    ],
)
def test_an_address_with_a_password_or_of_another_kind_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        open_engine(DatabaseConfig(url), Path(), Path())
    assert caught.value.code == "configuration_invalid"
    assert "a-secret" not in "".join(traceback.format_exception(caught.value))


# -- the kind of database -------------------------------------------------------------------------------------------------------------


def test_a_new_database_is_refused_until_it_is_upgraded() -> None:
    engine = server_engine(cluster().databases().keystead_url)
    with pytest.raises(PreconditionFailed) as caught:
        SqlDatabase(engine)
    assert caught.value.code == "schema_behind"
    assert "keystead db upgrade" in caught.value.mend
    assert upgrade(engine, "keystead") is None
    put(engine, "a")
    ensure_current(engine, "keystead")
    engine.dispose()


def test_two_that_upgrade_at_once_take_turns() -> None:
    databases = cluster().databases()
    engines = [server_engine(databases.keystead_url) for _ in range(4)]
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda engine: upgrade(engine, "keystead"), engines))
    ensure_current(engines[0], "keystead")
    for engine in engines:
        engine.dispose()


def test_an_upgrade_that_is_broken_off_leaves_nothing() -> None:
    databases = cluster().databases()
    name = str(conninfo.conninfo_to_dict(databases.vault_url)["dbname"])
    engine = server_engine(databases.vault_url)

    def act() -> None:
        with writing(engine) as connection:
            connection.begin()
            config = alembic_config("vault")
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            cluster().disconnect(name)

    with pytest.raises(Unavailable):
        act()
    with cluster().connection(name) as admin:
        assert admin.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone() == (0,)
    assert upgrade(engine, "vault") is None
    engine.dispose()


def test_a_database_that_orders_by_language_is_refused() -> None:
    name = cluster().database("keystead", options="LOCALE_PROVIDER icu ICU_LOCALE 'en-US' ENCODING 'UTF8'")
    engine = server_engine(cluster().url("keystead", name))
    with pytest.raises(PreconditionFailed) as caught:
        upgrade(engine, "keystead")
    assert caught.value.code == "database_collation"
    assert "LOCALE 'C'" in caught.value.mend
    engine.dispose()


def test_two_stores_do_not_share_a_database() -> None:
    engine = server_engine(fresh().keystead_url)
    with pytest.raises(Conflict) as caught:
        upgrade(engine, "keys")
    assert caught.value.code == "database_shared"
    with pytest.raises(PreconditionFailed):
        ensure_current(engine, "keys")
    engine.dispose()


def test_a_database_of_a_newer_version_is_left_alone(stores: PostgresStores, engine: Engine) -> None:
    before = stores.sql("keystead", "SELECT version_num FROM keystead_schema")
    stores.sql("keystead", "UPDATE keystead_schema SET version_num = '9999'")
    for act in (ensure_current, upgrade):
        with pytest.raises(PreconditionFailed) as caught:
            act(engine, "keystead")
        assert caught.value.code == "schema_too_new"
    stores.sql("keystead", "UPDATE keystead_schema SET version_num = ?", *before[0])


# -- helpers --------------------------------------------------------------------------------------------------------------------------


@contextmanager
def deferred(stores: PostgresStores, does: str, *, at_once: bool = False) -> Iterator[None]:
    """The server does that when somebody inserts a setting, or when they commit it."""
    when = "AFTER INSERT ON settings" + ("" if at_once else " DEFERRABLE INITIALLY DEFERRED")
    stores.sql(
        "keystead",
        f"CREATE FUNCTION meant() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN {does}; RETURN NULL; END $$;"
        f" CREATE CONSTRAINT TRIGGER meant {when} FOR EACH ROW EXECUTE FUNCTION meant()",
    )
    try:
        yield
    finally:
        stores.sql("keystead", "DROP FUNCTION meant CASCADE")


@contextmanager
def deaf_after_commit(folder: Path) -> Iterator[str]:
    """A way to the server that breaks when a commit has been answered, before the answer arrives."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(folder / ".s.PGSQL.5432"))
    listener.listen()

    def serve() -> None:
        client, _ = listener.accept()
        server = socket.socket(socket.AF_UNIX)
        server.connect(str(cluster().folder / ".s.PGSQL.5432"))
        committing = threading.Event()

        def up() -> None:
            with suppress(OSError):
                while data := client.recv(65536):
                    if b"COMMIT\0" in data:
                        committing.set()
                    server.sendall(data)

        upward = threading.Thread(target=up)
        upward.start()
        while (data := server.recv(65536)) and not committing.is_set():
            client.sendall(data)
        client.shutdown(socket.SHUT_RDWR)
        upward.join()
        client.close()
        server.close()

    thread = threading.Thread(target=serve)
    thread.start()
    yield str(folder)
    thread.join()
    listener.close()
