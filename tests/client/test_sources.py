"""Mail on disk as items to import, as docs/spec/mail-items.md lays down."""

from __future__ import annotations

import os
import tracemalloc
from typing import TYPE_CHECKING

import pytest

from keystead.client.sources import Source, SourceItem, SourceKind, open_source
from keystead.core.errors import InvalidRequest, NotFound

if TYPE_CHECKING:
    from pathlib import Path

MAIL = b"Subject: x\n\nbody\n"
ICS = b"BEGIN:VCALENDAR\r\nEND:VCALENDAR\r\n"
MBOX = b"From a\nSubject: one\n\n\nFrom b\nSubject: two\n\n"


def put(root: Path, name: str, data: bytes = MAIL) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def listed(source: Source) -> list[tuple[int, str, str, bytes]]:
    return [(item.position, item.name, item.folder, item.read(0, item.length)) for item in source]


def maildir(root: Path) -> Path:
    for place in ("cur", "new", "tmp"):
        (root / place).mkdir(parents=True)
    return root


@pytest.mark.parametrize(
    ("name", "data", "kind", "items"),
    [
        ("a.mbox", MBOX, SourceKind.MBOX, [b"Subject: one\n\n", b"Subject: two\n"]),
        ("Inbox", MBOX, SourceKind.MBOX, [b"Subject: one\n\n", b"Subject: two\n"]),
        ("a.MBX", MAIL, SourceKind.MBOX, [MAIL]),
        ("empty.mbox", b"", SourceKind.MBOX, []),
        ("a.eml", b"From odd\n" + MAIL, SourceKind.EML, [b"From odd\n" + MAIL]),
        ("empty.eml", b"", SourceKind.EML, [b""]),
        ("message", MAIL, SourceKind.EML, [MAIL]),
        ("a.ICS", ICS, SourceKind.ICS, [ICS]),
        ("calendar", ICS, SourceKind.ICS, [ICS]),
        ("notes", b"words\n\nFrom a\n" + MAIL, SourceKind.MBOX, [b"words\n", MAIL]),
    ],
)
def test_a_single_file(tmp_path: Path, name: str, data: bytes, kind: SourceKind, items: list[bytes]) -> None:
    source = open_source(put(tmp_path, name, data))
    assert (source.kind, source.total_bytes, source.skipped) == (kind, len(data), 0)
    assert listed(source) == [(number, name, "", item) for number, item in enumerate(items, start=1)]
    assert {item.ics for item in source} <= {kind is SourceKind.ICS}


def test_bytes_before_the_first_separator_are_kept_and_reported(tmp_path: Path) -> None:
    source = open_source(put(tmp_path, "a.mbox", b"lost\n\n" + MBOX))
    assert [item.malformed for item in source] == ["before-first-separator", None, None]


def test_a_maildir_with_its_folders(tmp_path: Path) -> None:
    root = maildir(tmp_path / "Maildir")
    put(root, "cur/2.a:2,S", b"Subject: 2\n\n")
    put(root, "new/1.a", b"Subject: 1\n\n")
    put(root, "new/3.a", b"Subject: 3\n\n")
    put(root, "tmp/4.a")
    put(root, "dovecot.index", b"index")
    put(maildir(root / ".Projects.North"), "cur/1", b"Subject: 5\n\n")
    put(maildir(root / ".Entw&APw-rfe"), "cur/1", b"Subject: 6\n\n")
    put(maildir(root / "Archive"), "new/1", b"Subject: 7\n\n")
    put(root, ".imap/1.eml", b"Subject: 8\n\n")
    source = open_source(root)
    assert source.kind is SourceKind.MAILDIR
    assert listed(source) == [
        (1, "new/1.a", "", b"Subject: 1\n\n"),
        (2, "cur/2.a:2,S", "", b"Subject: 2\n\n"),
        (3, "new/3.a", "", b"Subject: 3\n\n"),
        (4, ".Entw&APw-rfe/cur/1", "Entwürfe", b"Subject: 6\n\n"),
        (5, ".Projects.North/cur/1", "Projects/North", b"Subject: 5\n\n"),
        (6, "Archive/new/1", "Archive", b"Subject: 7\n\n"),
    ]
    assert source.total_bytes == 6 * 12


def test_a_maildir_that_an_archive_stripped_of_empty_folders(tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    put(tmp_path, "cur/1")
    assert [item.name for item in open_source(tmp_path)] == ["cur/1"]


@pytest.mark.parametrize(("name", "folder"), [(".A&-B", "A&B"), (".&!!!-", "&!!!-"), (".&2AA-", "&2AA-"), (".A..B", "A/B")])
def test_folder_names_of_imap_servers(tmp_path: Path, name: str, folder: str) -> None:
    put(maildir(maildir(tmp_path / "Maildir") / name), "cur/1")
    assert [item.folder for item in open_source(tmp_path / "Maildir")] == [folder]


def test_a_folder_of_files(tmp_path: Path) -> None:
    put(tmp_path, "b.eml", b"Subject: b\n\n")
    put(tmp_path, "a.ics", ICS)
    put(tmp_path, "Sent", MBOX)
    put(tmp_path, "photo.png", b"\x89PNG")
    put(tmp_path, "readme", b"text")
    put(tmp_path, ".hidden.eml")
    put(tmp_path, ".git/x.eml")
    put(tmp_path, "Old.sbd/2019.mbox", MBOX)
    put(tmp_path, "Old.sbd/deep/c.eml", b"Subject: c\n\n")
    put(maildir(tmp_path / "Server"), "cur/1", b"Subject: d\n\n")
    source = open_source(tmp_path)
    assert (source.kind, source.skipped) == (SourceKind.FOLDER, 4)
    assert listed(source) == [
        (1, "Sent", "Sent", b"Subject: one\n\n"),
        (2, "Sent", "Sent", b"Subject: two\n"),
        (3, "a.ics", "", ICS),
        (4, "b.eml", "", b"Subject: b\n\n"),
        (5, "Old.sbd/2019.mbox", "Old/2019", b"Subject: one\n\n"),
        (6, "Old.sbd/2019.mbox", "Old/2019", b"Subject: two\n"),
        (7, "Old.sbd/deep/c.eml", "Old/deep", b"Subject: c\n\n"),
        (8, "Server/cur/1", "Server", b"Subject: d\n\n"),
    ]
    assert [item.position for item in source if item.ics] == [3]
    assert listed(source) == listed(open_source(tmp_path))


def test_links_are_followed_inside_the_tree_only(tmp_path: Path) -> None:
    outside = put(tmp_path, "outside/secret.eml", b"Subject: secret\n\n")
    root = tmp_path / "mail"
    put(root, "a.eml", b"Subject: a\n\n")
    (root / "b.eml").symlink_to("a.eml")
    (root / "c.eml").symlink_to(outside)
    (root / "d.eml").symlink_to("nowhere.eml")
    (root / "e.eml").symlink_to("e.eml")
    (root / "f").symlink_to(outside.parent)
    (root / "g").symlink_to(root)
    os.mkfifo(root / "h.eml")
    source = open_source(root)
    assert [(name, data) for _, name, _, data in listed(source)] == [("a.eml", b"Subject: a\n\n"), ("b.eml", b"Subject: a\n\n")]
    assert source.skipped == 6


def test_a_maildir_whose_folders_are_links_is_not_entered(tmp_path: Path) -> None:
    elsewhere = maildir(tmp_path / "elsewhere")
    put(elsewhere, "cur/1")
    root = tmp_path / "mail"
    put(root, "a.eml")
    (root / "cur").symlink_to(elsewhere / "cur")
    (root / "new").mkdir()
    assert [item.name for item in open_source(root)] == ["a.eml"]


def test_names_that_are_not_utf_8(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9")).mkdir()
    put(tmp_path / os.fsdecode(b"caf\xe9"), "a.eml")
    assert [(item.folder, item.name) for item in open_source(tmp_path)] == [("caf\ufffd", "caf\ufffd/a.eml")]


def test_reading_pieces_of_an_item(tmp_path: Path) -> None:
    item = list(open_source(put(tmp_path, "a.mbox", MBOX)))[1]
    assert [item.read(0, 7), item.read(8, 100), item.read(100, 5), item.read(0, -1)] == [b"Subject", b" two\n", b"", b""]


@pytest.mark.parametrize("name", ["missing", "file.eml/below"])
def test_a_missing_path(tmp_path: Path, name: str) -> None:
    put(tmp_path, "file.eml")
    with pytest.raises(NotFound, match=name) as caught:
        open_source(tmp_path / name)
    assert caught.value.code == "source_not_found"


def test_what_is_not_mail_is_refused(tmp_path: Path) -> None:
    put(tmp_path, "folder/readme.txt", b"text")
    os.mkfifo(tmp_path / "pipe")
    for path in (put(tmp_path, "photo", b"\x89PNG\0"), tmp_path / "folder", tmp_path / "pipe"):
        with pytest.raises(InvalidRequest, match=path.name) as caught:
            open_source(path)
        assert caught.value.code == "source_not_mail"


def test_paths_the_system_refuses(tmp_path: Path) -> None:
    for path in (tmp_path / "nul\0", tmp_path / ("x" * 300)):
        with pytest.raises(InvalidRequest) as caught:
            open_source(path)
        assert caught.value.code == "source_unreadable"


def test_files_that_change_during_the_import(tmp_path: Path) -> None:
    path = put(tmp_path, "a.eml")
    source = open_source(path)
    item = next(iter(source))
    path.write_bytes(b"short")
    with pytest.raises(InvalidRequest, match=r"a\.eml") as shortened:
        item.read(0, item.length)
    path.unlink()
    with pytest.raises(InvalidRequest) as gone:
        list(source)
    assert {shortened.value.code, gone.value.code} == {"source_changed"}


def test_memory_stays_flat_for_an_mbox_of_any_size(tmp_path: Path) -> None:
    path = put(tmp_path, "a.mbox", (b"From a\nSubject: x\n\n" + b"line of text\n" * 300 + b"\n") * 10_000)
    source = open_source(path)
    items: int = 0
    tracemalloc.start()
    try:
        for item in source:
            items += isinstance(item, SourceItem)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert items == 10_000
    assert peak < 8 * 1024 * 1024
