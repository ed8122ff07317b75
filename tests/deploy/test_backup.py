"""docs/howto/operate.md, "Back up and restore": the documented tools in the documented order, beside a running import; and the wrong order."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from keystead.api.types import mailboxes as m
from keystead.wiring import create_home, open_home
from support.installed import ADMIN, ALEX, OPERATOR, add_policy, fill, read_all, write_member
from support.postgres import Databases, cluster, programs

if TYPE_CHECKING:
    from support.installed import Source

SECRETS = ("keystore.master", "vault.seal")
CONTAINERS = """
[objects]
containers = [{{ name = "c0", kind = "folder", path = "{0}/c0" }}, {{ name = "c1", kind = "folder", path = "{0}/c1" }}]
"""


class Installation:
    """A member of a fleet whose objects lie in a folder of their own."""

    def __init__(self, path: Path) -> None:
        self.home, self.objects = path / "home", path / "objects"
        self.databases = cluster().databases()
        self.objects.mkdir(parents=True)
        write_member(self.home, self.databases, CONTAINERS.format(self.objects))

    def keystead(self, *line: str) -> tuple[int, Any]:
        command = [sys.executable, "-c", "from keystead.cli.main import main; main()", *line, "--json", "--debug"]
        done = subprocess.run(command, env={"KEYSTEAD_HOME": str(self.home)}, capture_output=True, check=False, timeout=120)
        assert done.returncode != 1, done.stderr.decode()
        return done.returncode, json.loads(done.stdout)


@pytest.fixture
def running(tmp_path: Path) -> tuple[Installation, Source]:
    installation = Installation(tmp_path / "running")
    create_home(installation.home, dev=True, operator=OPERATOR)
    return installation, fill(installation.home)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=120)


def _dump(url: str, file: Path) -> None:
    _run(str(programs() / "pg_dump"), "--format=custom", "--file", str(file), url)


def _back_up_objects(installation: Installation, to: Path) -> None:
    rclone = str(Path(sys.executable).parent / "rclone")
    _run(rclone, "--config", "", "copy", "--immutable", str(installation.objects), str(to / "objects"))


def _back_up_key_store(installation: Installation, to: Path) -> None:
    _dump(installation.databases.keys_url, to / "keystore.dump")
    (to / "seals").mkdir()
    for file in (installation.home / "seals").glob("keystore-*.*"):
        shutil.copy(file, to / "seals")


def _back_up_databases(installation: Installation, to: Path) -> None:
    _dump(installation.databases.keystead_url, to / "keystead.dump")
    _dump(installation.databases.vault_url, to / "vault.dump")


def _restore(installation: Installation, backup: Path, path: Path) -> Installation:
    """In the documented order: key store with its epoch files, databases, objects."""
    restored = Installation(path)
    databases: Databases = restored.databases
    for dump, url in (("keystore", databases.keys_url), ("vault", databases.vault_url), ("keystead", databases.keystead_url)):
        _run(str(programs() / "pg_restore"), "--no-owner", "--exit-on-error", "--dbname", url, str(backup / f"{dump}.dump"))
    shutil.copytree(backup / "seals", restored.home / "seals")
    for name in SECRETS:
        shutil.copy(installation.home / "seals" / name, restored.home / "seals" / name)
    shutil.copytree(backup / "objects", restored.objects, dirs_exist_ok=True)
    return restored


class Importing(threading.Thread):
    """Somebody who goes on importing; `acknowledged` is what the service said is safe."""

    def __init__(self, home: Path) -> None:
        super().__init__()
        self.acknowledged = 0
        self.enough = threading.Event()
        self.begun = threading.Event()
        self._home = home

    def run(self) -> None:
        home = open_home(self._home, {})
        admin = home.client(home.as_person(ADMIN))
        while not self.enough.is_set():
            data = b"Subject: meanwhile %d\r\n\r\nx\r\n" % self.acknowledged
            admin.call("mailbox.import", m.ImportBatch(upn=ALEX, items=[m.ImportItem(position=1, ordinal=1, folder="", data=data)]))
            self.acknowledged += 1
            if self.acknowledged == 3:
                self.begun.set()
        home.close()


def test_a_backup_in_the_documented_order_restores_to_what_was_acknowledged(running: tuple[Installation, Source], tmp_path: Path) -> None:
    installation, source = running
    backup = tmp_path / "backup"
    backup.mkdir()
    importing = Importing(installation.home)
    importing.start()
    assert importing.begun.wait(60)
    _back_up_objects(installation, backup)
    safe = importing.acknowledged
    _back_up_databases(installation, backup)
    _back_up_objects(installation, backup)
    _back_up_key_store(installation, backup)
    importing.enough.set()
    importing.join(60)

    restored = _restore(installation, backup, tmp_path / "restored")
    _code, checked = restored.keystead("db", "check")
    found = [(one["state"], [problem["code"] for problem in one["problems"]]) for one in checked["databases"]]
    assert found == [("current", ["database_not_durable"])] * 3, (
        "the tests' own server does not wait for its disk, and nothing else is wrong"
    )
    code, result = restored.keystead("home", "verify")
    assert (code, result["problems"], result["unopened"]) == (0, [], [])
    home = open_home(restored.home, {})
    items = read_all(home)
    assert items.items() >= source.items.items()
    assert sum(data.startswith(b"Subject: meanwhile") for data in items.values()) >= safe
    home.close()


def test_a_key_store_older_than_the_database_is_found_before_anybody_is_let_in(
    running: tuple[Installation, Source], tmp_path: Path
) -> None:
    """The wrong order: a policy made in between has its rows and no keys. `home verify` says which, exit code 6."""
    installation, _source = running
    backup = tmp_path / "backup"
    backup.mkdir()
    _back_up_key_store(installation, backup)
    home = open_home(installation.home, {})
    policy = add_policy(home, "Newer")
    home.close()
    _back_up_databases(installation, backup)
    _back_up_objects(installation, backup)

    restored = _restore(installation, backup, tmp_path / "restored")
    code, result = restored.keystead("home", "verify")
    assert code == 6, result
    assert [problem.split(": ")[:2] for problem in result["problems"]] == [[f"policy {policy.id}", "keystore_key_missing"]]
