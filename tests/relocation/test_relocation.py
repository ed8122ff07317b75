"""A home moves into a fleet and back: every row, every object, verified one by one; stopped anywhere, it goes on."""

from __future__ import annotations

import hashlib
import json
import shutil
from typing import TYPE_CHECKING

import msgspec
import pytest

from keystead.adapters.archives import frames
from keystead.adapters.archives.folder import Archive
from keystead.adapters.objects.folder import FolderObjects
from keystead.api.types import mailboxes as m
from keystead.api.types import policies as p
from keystead.api.types import watching as w
from keystead.core.errors import Conflict, IntegrityFailure, InvalidRequest, NotFound, PreconditionFailed, Unavailable
from keystead.relocation import export_home, import_home
from keystead.services.verification import verify
from keystead.wiring import create_home, open_home
from support.installed import ADMIN, ALEX, OPERATOR, fill, read_all, read_files, write_member
from support.postgres import cluster

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from keystead.adapters.archives.folder import Manifest
    from support.installed import Source

SECRETS = ("keystore.master", "vault.seal")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    path = tmp_path_factory.mktemp("source") / "home"
    create_home(path, dev=True, operator=OPERATOR)
    return fill(path)


def _member(path: Path, source: Path) -> Path:
    """An empty member of a fleet on three new databases, with the secrets of a home."""
    _empty_home(path, source)
    write_member(path, cluster().databases())
    return path


def _empty_home(path: Path, source: Path) -> Path:
    (path / "seals").mkdir(parents=True)
    for name in SECRETS:
        shutil.copy(source / "seals" / name, path / "seals" / name)
    return path


def _checked(path: Path, source: Source) -> None:
    """It reads, takes in, and counts on where the other stopped."""
    home = open_home(path, {})
    try:
        assert read_all(home) == source.items
        assert read_files(home) == source.files
        found = verify(home.services)
        assert (found.problems, found.unopened) == ([], [])
        assert (found.items, found.file_versions) == (len(source.items), len(source.files))
        admin = home.client(home.as_person(ADMIN))
        before = admin.call("audit.search", w.SearchAudit(limit=5000))
        admin.call("mailbox.create", m.CreateMailbox(upn="kim@contoso.example"))
        after = admin.call("audit.search", w.SearchAudit(limit=5000))
        assert [one.id for one in after[1:]] == [one.id for one in before]
        assert admin.call("policy.health", p.NamePolicy(policy="Mail")).state == "healthy"
    finally:
        home.close()


def test_a_home_moves_into_a_fleet_and_back(source: Source, tmp_path: Path) -> None:
    out = export_home(source.path, tmp_path / "out", {})
    assert (out.objects, out.already_there) == (len(_files(source.path)), 0)
    member = _member(tmp_path / "member", source.path)
    moved = import_home(member, tmp_path / "out", {})
    assert (moved.rows, moved.objects, moved.bytes) == (out.rows, out.objects, out.bytes)
    _checked(member, source)

    export_home(member, tmp_path / "back", {})
    home = _empty_home(tmp_path / "home", source.path)
    import_home(home, tmp_path / "back", {})
    opened = open_home(home, {})
    assert read_all(opened) == source.items
    assert read_files(opened) == source.files
    upns = [one.upn for one in opened.client(opened.as_person(ADMIN)).call("mailbox.list", m.ListMailboxes())]
    assert upns == [ALEX, "kim@contoso.example"]
    opened.close()


def _files(home: Path) -> list[Path]:
    return [file for file in (home / "objects").rglob("*") if file.is_file()]


def test_the_same_rows_make_the_same_bytes_in_both_kinds_of_database(source: Source, tmp_path: Path) -> None:
    """So an archive can be compared with what it was made from, and two archives with one another."""
    export_home(source.path, tmp_path / "first", {})
    member = _member(tmp_path / "member", source.path)
    import_home(member, tmp_path / "first", {})
    export_home(member, tmp_path / "second", {})
    first, second = Archive(tmp_path / "first").manifest(), Archive(tmp_path / "second").manifest()
    assert first.families == second.families
    assert (first.objects, first.seals) == (second.objects, second.seals)


def test_frames_are_cut_by_size_the_same_way_in_both_kinds_of_database(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows may be as large as the manifest of a very large file: a frame holds as many as fit, and one at least."""
    export_home(source.path, tmp_path / "whole", {})
    monkeypatch.setattr(frames, "FRAME_BYTES", 2_000)
    export_home(source.path, tmp_path / "first", {})
    whole, first = Archive(tmp_path / "whole").manifest(), Archive(tmp_path / "first").manifest()
    tables = {table.name: table for table in first.families["keystead"].tables}
    assert [(table.name, table.rows) for table in whole.families["keystead"].tables] == [(name, one.rows) for name, one in tables.items()]
    assert len(tables["items"].frames) > 1
    for file in (tmp_path / "first" / "frames" / "keystead" / "items").iterdir():
        assert file.stat().st_size <= 2_003 or len(msgspec.msgpack.decode(file.read_bytes())) == 1
    member = _member(tmp_path / "member", source.path)
    import_home(member, tmp_path / "first", {})
    _checked_alike(member, tmp_path, first)
    _checked(member, source)


def _checked_alike(member: Path, folder: Path, first: Manifest) -> None:
    export_home(member, folder / "second", {})
    assert Archive(folder / "second").manifest().families == first.families


class Stopped(BaseException):
    """The process ended here."""


def _stops_at(number: int) -> Callable[[int, int], None]:
    def progress(done: int, _total: int) -> None:
        if done == number:
            raise Stopped

    return progress


@pytest.mark.parametrize("number", [1, 2])
def test_stopped_among_the_objects_it_goes_on(source: Source, tmp_path: Path, number: int) -> None:
    with pytest.raises(Stopped):
        export_home(source.path, tmp_path / "out", {}, _stops_at(number))
    with pytest.raises(NotFound):
        import_home(_empty_home(tmp_path / "early", source.path), tmp_path / "out", {})
    assert export_home(source.path, tmp_path / "out", {}).already_there == number
    target = _empty_home(tmp_path / "home", source.path)
    with pytest.raises(Stopped):
        import_home(target, tmp_path / "out", {}, _stops_at(number))
    assert not (target / "home.json").exists(), "a half imported home is no home"
    assert import_home(target, tmp_path / "out", {}).already_there == number
    _checked(target, source)


def test_an_import_that_was_done_is_compared_when_it_is_run_again(source: Source, tmp_path: Path) -> None:
    export_home(source.path, tmp_path / "out", {})
    member = _member(tmp_path / "member", source.path)
    first = import_home(member, tmp_path / "out", {})
    again = import_home(member, tmp_path / "out", {})
    assert (again.objects, again.already_there) == (first.objects, first.objects)
    home = open_home(member, {})
    home.client(home.as_operator()).call("settings.set", w.SetSetting(name="slice_items", value="7"))
    home.close()
    with pytest.raises(Conflict) as caught:
        import_home(member, tmp_path / "out", {})
    assert caught.value.code == "target_not_empty"


def _flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


@pytest.mark.parametrize("what", ["frames/keystead/items/000001", "frames/keys/entries/000001", "objects.list", "seals/*", "objects/*/*/*"])
def test_a_damaged_archive_is_refused_and_leaves_no_home(source: Source, tmp_path: Path, what: str) -> None:
    export_home(source.path, tmp_path / "out", {})
    _flip(min((tmp_path / "out").glob(what)))
    target = _empty_home(tmp_path / "home", source.path)
    with pytest.raises(IntegrityFailure) as caught:
        import_home(target, tmp_path / "out", {})
    assert caught.value.code == "archive_damaged"
    assert not (target / "home.json").exists()


def test_without_the_master_of_the_other_installation_nothing_opens(source: Source, tmp_path: Path) -> None:
    """R-139: the archive alone is worth nothing."""
    export_home(source.path, tmp_path / "out", {})
    target = _empty_home(tmp_path / "home", source.path)
    (target / "seals" / "keystore.master").write_bytes(bytes(32))
    with pytest.raises(IntegrityFailure):
        import_home(target, tmp_path / "out", {})


def test_an_object_that_went_while_the_export_ran_is_said(source: Source, tmp_path: Path) -> None:
    home = tmp_path / "home"
    shutil.copytree(source.path, home)
    _files(home)[0].unlink()
    with pytest.raises(Unavailable) as caught:
        export_home(home, tmp_path / "out", {})
    assert caught.value.code == "object_went"
    assert not Archive(tmp_path / "out").finished


def test_archives_of_other_versions_and_full_places_are_refused(source: Source, tmp_path: Path) -> None:
    export_home(source.path, tmp_path / "out", {})
    with pytest.raises(Conflict):
        export_home(source.path, tmp_path / "out", {})
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter").write_text("x")
    with pytest.raises(Conflict):
        export_home(source.path, tmp_path / "full", {})
    with pytest.raises(Conflict):
        import_home(source.path, tmp_path / "out", {})
    manifest = tmp_path / "out" / "manifest.json"
    whole = json.loads(manifest.read_text())
    for change in ({"format": 2}, {"families": {**whole["families"], "keys": {**whole["families"]["keys"], "revision": "0000"}}}):
        manifest.write_text(json.dumps({**whole, **change}))
        with pytest.raises(PreconditionFailed):
            import_home(_empty_home(tmp_path / f"home{len(change)}{next(iter(change))}", source.path), tmp_path / "out", {})
    manifest.write_text("{")
    with pytest.raises(IntegrityFailure):
        import_home(tmp_path / "other", tmp_path / "out", {})


def test_references_in_an_archive_reach_no_other_file(source: Source, tmp_path: Path) -> None:
    export_home(source.path, tmp_path / "out", {})
    archive = Archive(tmp_path / "out")
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    listed = tmp_path / "out" / "objects.list"
    for reference in ("../../etc/passwd", "c0/../../../x", "c0/" + "0" * 31 + "/"):
        listed.write_text(f"{reference} 1 {'0' * 64}\n")
        manifest["objects"]["digest"] = hashlib.sha256(listed.read_bytes()).hexdigest()
        (tmp_path / "out" / "manifest.json").write_text(json.dumps(manifest))
        with pytest.raises((IntegrityFailure, InvalidRequest)):
            list(archive.listed(archive.manifest().objects.digest))


def test_objects_of_an_archive_are_a_folder_store(source: Source, tmp_path: Path) -> None:
    out = export_home(source.path, tmp_path / "out", {})
    assert sum(1 for _ in FolderObjects(tmp_path / "out" / "objects").all_objects()) == out.objects
