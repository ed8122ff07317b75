"""`keystead db check` and `keystead db upgrade`: on databases that are new, behind, open to others, out of reach, and on a home."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from keystead.adapters.clock import SystemClock
from keystead.adapters.sql.care import check_databases
from keystead.cli.main import run
from keystead.settings import read_written
from keystead.wiring import create_home, open_home
from support.postgres import ADMIN, Cluster, Databases

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PROGRAM = [sys.executable, "-c", "from keystead.cli.main import main; main()"]


@pytest.fixture(scope="module")
def durable() -> Iterator[Cluster]:
    """As servers come: those of other tests do not wait for their disk."""
    made = Cluster(fsync="on", full_page_writes="on")
    yield made
    made.close()


@pytest.fixture
def member(durable: Cluster, tmp_path: Path) -> Path:
    return written(tmp_path, durable.databases())


def written(path: Path, databases: Databases) -> Path:
    """A member of a fleet on these databases."""
    tables = {"database": databases.keystead_url, "keystore": databases.keys_url, "vault": databases.vault_url}
    (path / "keystead.toml").write_text("".join(f'[{table}]\nurl = "{url}"\n' for table, url in tables.items()))
    return path


Command = Callable[..., tuple[int, Any]]


@pytest.fixture
def keystead(capsys: pytest.CaptureFixture[str]) -> Command:
    """Run a line on a home: its exit code and its JSON document."""

    def run_line(path: Path, *words: str) -> tuple[int, Any]:
        code = run([*words, "--home", str(path), "--json"], environment={}, interactive=False)
        return code, json.loads(capsys.readouterr().out)

    return run_line


def problems(path: Path, now: int | None = None) -> dict[str, str]:
    """What must be done, as `check` finds it in this process: code and mend."""
    clock = SystemClock()
    found = check_databases(path, read_written(path, {}).configuration, lambda: clock.now() if now is None else now)
    return {f"{problem.database}: {problem.code}": problem.mend for state in found for problem in state.problems}


def test_a_fleet_from_nothing_to_current(member: Path, keystead: Command) -> None:
    code, found = keystead(member, "db", "check")
    assert code == 3
    assert [state["state"] for state in found["databases"]] == ["new"] * 3
    assert {problem["code"] for state in found["databases"] for problem in state["problems"]} == {"schema_behind"}
    assert all("keystead db upgrade" in problem["mend"] for state in found["databases"] for problem in state["problems"])

    code, refused = keystead(member, "tenant", "list")
    assert (code, refused["code"]) == (3, "schema_behind")
    assert "keystead db upgrade" in refused["mend"]

    code, done = keystead(member, "db", "upgrade")
    assert code == 0
    assert [(one["database"], one["was"]) for one in done] == [("keystead", ""), ("keys", ""), ("vault", "")]
    code, found = keystead(member, "db", "check")
    assert (code, [state["state"] for state in found["databases"]]) == (0, ["current"] * 3)
    for state in found["databases"]:
        assert state["server"]
        assert abs(state["clock_difference_ms"]) < 5_000
        assert state["revision"] == state["works_with"]
    code, done = keystead(member, "db", "upgrade")
    assert (code, [one["was"] for one in done]) == (0, [one["is"] for one in done])


def test_two_upgrades_at_once_both_end_well(member: Path) -> None:
    line = [*PROGRAM, "db", "upgrade", "--home", str(member)]
    both = [subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) for _ in range(2)]
    said = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert problems(member) == {}


def test_what_if_upgrades_nothing(member: Path, keystead: Command) -> None:
    code, plan = keystead(member, "db", "upgrade", "--what-if")
    assert (code, plan["act"]) == (0, "db.upgrade")
    assert set(problems(member)) == {f"{family}: schema_behind" for family in ("keystead", "keys", "vault")}


def test_a_server_that_does_not_answer_is_said_so_for_each_database(durable: Cluster, member: Path, keystead: Command) -> None:
    durable.stop()
    try:
        code, found = keystead(member, "db", "check")
    finally:
        durable.start()
    assert (code, [state["state"] for state in found["databases"]]) == (3, ["unreachable"] * 3)
    assert all(state["problems"][0]["code"] == "database_unavailable" for state in found["databases"])


def test_a_store_that_another_store_s_user_may_enter_is_named_with_the_command(durable: Cluster, tmp_path: Path, keystead: Command) -> None:
    """R-139: with the database's password nobody reads the key store."""
    databases = durable.databases()
    path = written(tmp_path, databases)
    assert keystead(path, "db", "upgrade")[0] == 0
    assert problems(path) == {}
    name = databases.keys_url.partition("@/")[2].partition("?")[0]
    durable.execute(f"GRANT CONNECT ON DATABASE {name} TO keystead")
    assert list(problems(path)) == ["keys: database_open_to_others"]
    for command in problems(path)["keys: database_open_to_others"].split("; "):
        durable.execute(command)
    assert problems(path) == {}
    durable.execute(f"GRANT CONNECT ON DATABASE {name} TO PUBLIC")
    assert set(problems(path)) == {"keys: database_open_to_others"}


def test_a_shared_or_mighty_user_is_named(durable: Cluster, tmp_path: Path, keystead: Command) -> None:
    databases = durable.databases()
    name = databases.keys_url.partition("@/")[2].partition("?")[0]
    path = written(tmp_path, Databases(databases.keystead_url, durable.url(ADMIN, name), databases.vault_url))
    assert keystead(path, "db", "upgrade")[0] == 0
    assert set(problems(path)) == {
        "keystead: database_open_to_others",
        "keys: database_user_mighty",
        "vault: database_open_to_others",
    }
    vault = databases.vault_url.replace("keystead_vault@", "keystead@")
    durable.execute(f"GRANT CONNECT ON DATABASE {vault.partition('@/')[2].partition('?')[0]} TO keystead")
    written(tmp_path, Databases(databases.keystead_url, databases.keys_url, vault))
    assert "keystead: database_user_shared" in problems(path)


def test_clocks_that_differ_and_disks_that_are_not_waited_for_are_named(durable: Cluster, member: Path, keystead: Command) -> None:
    assert keystead(member, "db", "upgrade")[0] == 0
    assert set(problems(member, now=1_760_000_000_000)) == {f"{family}: clock_differs" for family in ("keystead", "keys", "vault")}
    durable.execute("ALTER ROLE keystead SET synchronous_commit = off")
    try:
        assert list(problems(member)) == ["keystead: database_not_durable"]
    finally:
        durable.execute("ALTER ROLE keystead RESET synchronous_commit")


def test_a_home_needs_nothing_and_is_left_as_it_is(tmp_path: Path, keystead: Command) -> None:
    home = tmp_path / "home"
    code, found = keystead(home, "db", "check")
    assert (code, {problem["code"] for state in found["databases"] for problem in state["problems"]}) == (3, {"home_part_missing"})
    assert not home.exists()
    create_home(home, dev=True, operator="operator@provider.example")
    code, found = keystead(home, "db", "check")
    assert (code, [(state["place"], state["state"]) for state in found["databases"]]) == (
        0,
        [("keystead.db", "current"), ("keys.db", "current"), ("vault.db", "current")],
    )
    assert keystead(home, "db", "upgrade")[0] == 0
    open_home(home).close()


def test_a_database_that_orders_by_language_is_named(durable: Cluster, tmp_path: Path, keystead: Command) -> None:
    databases = durable.databases()
    name = durable.database("keystead", options="LOCALE_PROVIDER icu ICU_LOCALE 'en-US' ENCODING 'UTF8'")
    path = written(tmp_path, Databases(durable.url("keystead", name), databases.keys_url, databases.vault_url))
    assert "keystead: database_collation" in problems(path)
    assert keystead(path, "db", "upgrade")[1]["code"] == "database_collation"


def test_text_output_has_a_table_and_a_line_for_each_problem(member: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["db", "check", "--home", str(member)], environment={}, interactive=False) == 3
    shown = capsys.readouterr()
    assert "keystead_keys@" in shown.out
    assert shown.err.count("schema_behind") == 3
