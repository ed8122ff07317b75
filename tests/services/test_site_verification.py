"""`home verify` over sites: every version of every file is read, and what is not what was written is named."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from keystead.adapters.objects.folder import FolderObjects
from keystead.api.types import sites as s
from keystead.core.stores.files import CHUNK_BYTES
from keystead.ports.clock import SECOND
from keystead.ports.keystore import Compartment
from keystead.services.jobs.runner import run_due
from keystead.services.verification import verify
from support.file_world import FilesWorld, files_world
from support.world import World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from keystead.services.verification import Verified

LARGE = hashlib.shake_256(b"large").digest(CHUNK_BYTES + 1_000)
FILES = {"/plan.txt": b"the second plan", "/notes/today.txt": b"today", "/notes/empty": b"", "/large.bin": LARGE}


@pytest.fixture
def files(tmp_path: Path) -> Iterator[FilesWorld]:
    world = World(tmp_path)
    yield files_world(world)
    world.close()


@pytest.fixture
def site(files: FilesWorld) -> str:
    """A site under the TIK; one file has two versions, and one has two chunks."""
    url = files.site("plans", {"/plan.txt": b"the first plan"})
    files.put(url, FILES)
    files.register()
    return url


def look(files: FilesWorld) -> Verified:
    return verify(files.world.services)


def node_of(files: FilesWorld, url: str, path: str) -> str:
    folder, _, name = path.rpartition("/")
    listed: list[s.FileView] = files.admin.call("site.ls", s.ListFiles(site=url, path=folder or "/"))
    return next(entry.id for entry in listed if entry.name == name)


def rows_of(files: FilesWorld, table: str, **where: object) -> list[tuple[object, ...]]:
    chosen = " AND ".join(f"{name} = ?" for name in where)
    return files.world.sql(f"SELECT object_ref, id FROM {table} WHERE {chosen} ORDER BY length DESC", *where.values())  # noqa: S608 - ours


def test_R_112_what_is_whole_is_counted(files: FilesWorld, site: str) -> None:
    files.site("empty")
    steps: list[tuple[int, int]] = []
    result = verify(files.world.services, lambda done, total: steps.append((done, total)))
    assert (result.problems, result.unopened) == ([], [])
    assert (result.sites, result.folders, result.files, result.file_versions) == (2, 1, 4, 5)
    assert result.file_bytes == sum(map(len, FILES.values()))
    assert result.policies == 2, "the provider's and the TIK's"
    assert steps == [(1, 2), (2, 2)]


def test_R_112_a_damaged_chunk_is_named_and_the_rest_is_read(files: FilesWorld, site: str) -> None:
    large = node_of(files, site, "/large.bin")
    ref, chunk = rows_of(files, "file_chunks", node_id=large)[0]
    container, name = str(ref).split("/")
    file = files.world.path / "objects" / container / name[:2] / name
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    result = look(files)
    assert [problem.split(": ")[:2] for problem in result.problems] == [[f"file {large} of site {_id(files, site)}", "file_damaged"]]
    assert str(chunk) in result.problems[0]
    assert result.files == 3


def _id(files: FilesWorld, url: str) -> str:
    return str(files.world.sql("SELECT id FROM sites WHERE url = ?", url)[0][0])


def test_an_object_that_is_missing_is_named(files: FilesWorld, site: str) -> None:
    large = node_of(files, site, "/large.bin")
    files.world.services.objects.delete(str(rows_of(files, "file_chunks", node_id=large)[0][0]))
    result = look(files)
    assert [problem.split(": ")[1] for problem in result.problems] == ["file_damaged"]
    assert large in result.problems[0]
    assert result.files == 3


def change_manifest(files: FilesWorld, plan: str) -> None:
    older = files.world.sql("SELECT manifest FROM file_versions WHERE node_id = ? AND number = 1", plan)[0][0]
    files.world.sql("UPDATE file_versions SET manifest = ? WHERE node_id = ? AND number = 2", older, plan)


def change_old_manifest(files: FilesWorld, plan: str) -> None:
    newer = files.world.sql("SELECT manifest FROM file_versions WHERE node_id = ? AND number = 2", plan)[0][0]
    files.world.sql("UPDATE file_versions SET manifest = ? WHERE node_id = ? AND number = 1", newer, plan)


def lose_version(files: FilesWorld, plan: str) -> None:
    files.world.sql("DELETE FROM file_versions WHERE node_id = ? AND number = 2", plan)


def lose_chunk(files: FilesWorld, plan: str) -> None:
    files.world.sql("DELETE FROM file_chunks WHERE node_id = ? AND last_version = 1", plan)


def chunk_about_to_go(files: FilesWorld, plan: str) -> None:
    files.world.sql("UPDATE file_chunks SET last_version = 1 WHERE node_id = ?", plan)


def change_name(files: FilesWorld, plan: str) -> None:
    other = files.world.sql("SELECT sealed_name FROM file_nodes WHERE id <> ? AND kind = 'file'", plan)[0][0]
    files.world.sql("UPDATE file_nodes SET sealed_name = ? WHERE id = ?", other, plan)


def change_size(files: FilesWorld, plan: str) -> None:
    files.world.sql("UPDATE file_nodes SET size = 9 WHERE id = ?", plan)


@pytest.mark.parametrize(
    "change", [change_manifest, change_old_manifest, lose_version, lose_chunk, chunk_about_to_go, change_name, change_size]
)
def test_R_114_rows_that_are_not_what_was_written_are_named(
    files: FilesWorld, site: str, change: Callable[[FilesWorld, str], None]
) -> None:
    plan = node_of(files, site, "/plan.txt")
    change(files, plan)
    result = look(files)
    assert [problem.split(": ")[:2] for problem in result.problems] == [[f"file {plan} of site {_id(files, site)}", "file_damaged"]]
    assert result.files == 3


def test_R_114_a_file_that_was_taken_away_or_put_back_is_noticed(files: FilesWorld, site: str) -> None:
    plan = node_of(files, site, "/plan.txt")
    manifest = files.world.sql("SELECT manifest, size FROM file_versions WHERE node_id = ? AND number = 1", plan)[0]
    files.world.sql(
        "UPDATE file_nodes SET version = 1, manifest_digest = ?, size = ? WHERE id = ?",
        hashlib.sha256(manifest[0]).digest(),
        manifest[1],
        plan,
    )
    result = look(files)
    assert [problem.split(": ")[:2] for problem in result.problems] == [[f"site {_id(files, site)}", "file_rolled_back"]]
    files.world.sql("DELETE FROM file_nodes WHERE id = ?", plan)
    result = look(files)
    assert [problem.split(": ")[:2] for problem in result.problems] == [[f"site {_id(files, site)}", "file_rolled_back"]]
    assert result.files == 3, "the others are read all the same"


def test_a_site_whose_key_is_gone_is_named(files: FilesWorld, site: str) -> None:
    files.world.sql("DELETE FROM site_keys WHERE site_id = ?", _id(files, site))
    assert [problem.split(": ")[:2] for problem in look(files).problems] == [[f"site {_id(files, site)}", "site_key_missing"]]


def test_R_120_files_whose_keys_are_denied_are_not_opened_by_the_availability_key(files: FilesWorld, site: str) -> None:
    """R-148."""
    for key in (files.primary, files.secondary):
        files.switch(key, on=False)
    files.world.clock.advance(61 * SECOND)
    result = look(files)
    assert [entry.split(":")[0] for entry in result.unopened] == [f"site {_id(files, site)}"]
    assert (result.problems, result.files) == ([], 0)


def test_R_110_a_key_of_the_TIK_that_the_key_store_lost_is_named(files: FilesWorld, site: str) -> None:
    policy, key = files.world.sql("SELECT id, availability_key_id FROM policies WHERE workload = 'files'")[0]
    files.world.services.keystore.destroy(Compartment.AVAILABILITY_FILES, [str(key)])
    assert [problem.split(": ")[:2] for problem in look(files).problems] == [[f"policy {policy}", "keystore_key_missing"]]


@pytest.mark.parametrize("act", ["put", "delete", "delete-site", "roll"])
def test_what_changes_meanwhile_is_no_problem(files: FilesWorld, site: str, act: str) -> None:
    """Rows read before a change may name what it removes."""
    world = files.world

    class Changing(FolderObjects):
        changed = False

        def get(self, ref: str, offset: int, length: int) -> bytes:
            if not self.changed:
                self.changed = True
                change()
            return super().get(ref, offset, length)

    def change() -> None:
        if act == "put":
            files.put(site, {path: data + b"more" for path, data in FILES.items()})
        elif act == "delete":
            for path in FILES:
                files.admin.call("site.rm", s.RemoveFile(site=site, path=path))
        elif act == "delete-site":
            files.admin.call("site.delete", s.NameSite(site=site))
        else:
            files.revert()
        world.clock.advance(world.services.settings.object_grace + SECOND)
        run_due(world.services)

    process = world.process("verifying", objects=Changing(world.path / "objects"))
    result = verify(process.services)
    assert (result.problems, result.unopened) == ([], [])
