"""An archive that somebody has made to do harm: refused for what it is, and no home is left behind that could be used."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from keystead.core.errors import Conflict, IntegrityFailure, InvalidRequest, KeysteadError, NotFound, PreconditionFailed
from keystead.relocation import export_home, import_home
from keystead.wiring import create_home, open_home
from support.installed import OPERATOR, fill

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.xdist_group("service-archives")
SECRETS = ("keystore.master", "vault.seal")
REFUSALS = (Conflict, IntegrityFailure, InvalidRequest, NotFound, PreconditionFailed)


@pytest.fixture(scope="module")
def archived(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A home and its archive."""
    folder = tmp_path_factory.mktemp("archived")
    create_home(folder / "home", dev=True, operator=OPERATOR)
    fill(folder / "home")
    export_home(folder / "home", folder / "out", {})
    return folder / "home", folder / "out"


class Hostile:
    """A copy of the archive, with digests that fit whatever is changed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.manifest: dict[str, Any] = json.loads((path / "manifest.json").read_text())

    def save(self) -> None:
        (self.path / "manifest.json").write_text(json.dumps(self.manifest))

    def table(self, family: str, name: str) -> dict[str, Any]:
        found: dict[str, Any] = next(one for one in self.manifest["families"][family]["tables"] if one["name"] == name)
        return found

    def frame(self, family: str, name: str, change: Callable[[list[Any]], object]) -> None:
        """Other rows in the first frame of a table."""
        file = self.path / "frames" / family / name / "000001"
        rows = msgspec.msgpack.decode(file.read_bytes())
        data = msgspec.msgpack.encode(change(rows))
        file.write_bytes(data)
        self.table(family, name)["frames"][0] = hashlib.sha256(data).hexdigest()

    def objects(self, change: Callable[[list[str]], list[str]]) -> None:
        """Other lines in objects.list."""
        data = "".join(f"{line}\n" for line in change((self.path / "objects.list").read_text().splitlines())).encode()
        (self.path / "objects.list").write_bytes(data)
        self.manifest["objects"]["digest"] = hashlib.sha256(data).hexdigest()

    def seal(self, name: str, data: bytes) -> None:
        (self.path / "seals" / name).parent.mkdir(exist_ok=True)
        (self.path / "seals" / name).write_bytes(data)
        self.manifest["seals"][name] = hashlib.sha256(data).hexdigest()


def sized(size: str) -> Callable[[list[str]], list[str]]:
    def change(lines: list[str]) -> list[str]:
        ref, _size, digest = lines[0].split()
        return [f"{ref} {size} {digest}", *lines[1:]]

    return change


CASES: dict[str, Callable[[Hostile], object]] = {
    "frames of no rows": lambda h: h.manifest.update(rows_per_frame=0),
    "frames of fewer than no rows": lambda h: h.manifest.update(rows_per_frame=-1),
    "frames of all rows there are": lambda h: h.manifest.update(rows_per_frame=2**62),
    "frames of more rows than any number": lambda h: h.manifest.update(rows_per_frame=2**80),
    "rows that are none": lambda h: h.frame("keystead", "people", lambda rows: {"x": rows}),
    "rows of maps": lambda h: h.frame("keystead", "people", lambda rows: [[{"a": 1}] * len(rows[0])]),
    "rows of lists": lambda h: h.frame("keystead", "people", lambda rows: [[[1, 2]] * len(rows[0])]),
    "rows of another type": lambda h: h.frame("keystead", "people", lambda rows: [[b"\xff\x00"] * len(rows[0])]),
    "a number beyond all": lambda h: h.frame("keystead", "items", lambda rows: [[2**64 - 1] * len(rows[0])]),
    "text that is none": lambda h: h.frame("keystead", "people", lambda rows: [["a\x00b"] * len(rows[0]), *rows]),
    "twice the same row": lambda h: h.frame("keystead", "tenants", lambda rows: [*rows, *rows]),
    "rows of nobody": lambda h: h.frame("keystead", "policy_versions", lambda rows: [[None] * len(rows[0])]),
    "a row of another width": lambda h: h.frame("keystead", "people", lambda rows: [rows[0][:-1]]),
    "an object of a petabyte": lambda h: h.objects(sized("999999999999999")),
    "an object of nothing": lambda h: h.objects(sized("0")),
    "an object beyond its end": lambda h: h.objects(sized(str(10**9))),
    "an object of a container that is not there": lambda h: h.objects(lambda lines: ["c77/" + lines[0].partition("/")[2], *lines[1:]]),
    "an object elsewhere": lambda h: h.objects(lambda lines: ["c0/../../home.json " + " ".join(lines[0].split()[1:]), *lines[1:]]),
    "a seal elsewhere": lambda h: h.manifest["seals"].update({"../../../etc/passwd": "0" * 64}),
    "the master among the seals": lambda h: h.seal("keystore.master", bytes(32)),
    "another seal for the vault": lambda h: h.seal("vault.seal", bytes(32)),
    "no seals": lambda h: h.manifest.update(seals={}),
    "a family more": lambda h: h.manifest["families"].update(more=h.manifest["families"]["vault"]),
    "a family less": lambda h: h.manifest["families"].pop("vault"),
    "a table less": lambda h: h.manifest["families"]["vault"]["tables"].pop(),
    "a frame elsewhere": lambda h: h.table("keystead", "people")["frames"].append("0" * 64),
    "columns of another order": lambda h: h.table("keystead", "people")["columns"].reverse(),
    "a version of tomorrow": lambda h: h.manifest["families"]["keystead"].update(revision="9999"),
    "no text": lambda h: h.manifest.update(operator=7),
}


@pytest.mark.parametrize("what", CASES)
def test_a_hostile_archive_is_refused_and_leaves_no_home(archived: tuple[Path, Path], tmp_path: Path, what: str) -> None:
    home, out = archived
    shutil.copytree(out, tmp_path / "out")
    hostile = Hostile(tmp_path / "out")
    CASES[what](hostile)
    hostile.save()
    target = tmp_path / "target"
    (target / "seals").mkdir(parents=True)
    for name in SECRETS:
        shutil.copy(home / "seals" / name, target / "seals" / name)
    before = {name: (target / "seals" / name).read_bytes() for name in SECRETS}
    with pytest.raises(KeysteadError) as caught:
        import_home(target, tmp_path / "out", {})
    assert isinstance(caught.value, REFUSALS), caught.value
    assert {name: (target / "seals" / name).read_bytes() for name in SECRETS} == before
    with pytest.raises(NotFound):
        open_home(target, {})


def test_large_files_of_an_archive_are_not_taken_into_memory(archived: tuple[Path, Path], tmp_path: Path) -> None:
    """Files that are mostly holes: terabytes that cost whoever sends them nothing."""
    _home, out = archived
    for name in ("seals/keystore-shred.1", "manifest.json"):
        shutil.copytree(out, tmp_path / "out", dirs_exist_ok=True)
        os.truncate(tmp_path / "out" / name, 2**40)
        (tmp_path / "target").mkdir(exist_ok=True)
        with pytest.raises(IntegrityFailure):
            import_home(tmp_path / "target", tmp_path / "out", {})
        shutil.rmtree(tmp_path / "out")
        shutil.rmtree(tmp_path / "target")
