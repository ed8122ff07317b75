"""Mail that somebody else chose: bytes that are slow, huge or not mail, through import, listing, search and export; and hostile folders on a disk."""

from __future__ import annotations

import os
import threading
import time
import tracemalloc
from typing import TYPE_CHECKING

import pytest

from keystead.api.types import mailboxes as m
from keystead.client.importing import import_source
from keystead.client.sources import open_source
from keystead.core.errors import InvalidRequest, KeysteadError
from keystead.core.stores.message import summarise
from keystead.core.stores.searchtext import matches

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from attacks.conftest import Scene

MIB = 1024 * 1024
ALICE = "alice@contoso.example"


def deep(levels: int) -> bytes:
    head = b"".join(b'Content-Type: multipart/mixed; boundary="b%d"\r\n\r\n--b%d\r\n' % (level, level) for level in range(levels))
    return b"Subject: deep\r\n" + head + b"Content-Type: text/plain\r\n\r\nneedle\r\n"


def nested_messages(levels: int) -> bytes:
    return b"Subject: x\r\nContent-Type: message/rfc822\r\n\r\n" * levels + b"Subject: y\r\n\r\nneedle"


BOMBS: dict[str, bytes] = {
    "one long header": b"Subject: " + b"a" * MIB,
    "many headers": b"X: y\r\n" * 180_000,
    "folds without end": b"Subject: a\r\n" + b" \r\n" * 300_000,
    "encoded words": b"Subject: " + b"=?utf-8?b?" * 100_000,
    "encoded words with spaces": b"Subject: " + b"=?utf-8?q?a?= " * 70_000,
    "question marks": b"Subject: =?" + b"?" * MIB,
    "idna word": b"Subject: =?idna?q?" + b"xn--" * 100_000 + b"?=\r\n\r\n",
    "dates": b"Date: " + b"(" * 300_000 + b"\r\n\r\n",
    "zones": b"Date: Mon, 1 Jan 99999999999999999999 10:00:00 +99999999999\r\n\r\n",
    "received": b"Received: " + b";" * 250_000 + b"\r\n\r\n",
    "boundaries": b'Content-Type: multipart/mixed; boundary="a"\r\n\r\n' + b"--a\r\n\r\n" * 140_000,
    "empty boundary": b'Content-Type: multipart/mixed; boundary=""\r\n\r\n' + b"--\r\n" * 200_000,
    "deep multipart": deep(5_000),
    "deep messages": nested_messages(20_000),
    "encoded messages": b"Subject: x\r\nContent-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n\r\n" * 8_000,
    "parameters": b"Content-Type: text/plain; " + b"a*0*=x;" * 140_000 + b"\r\n\r\n",
    "quotes": b'Content-Type: text/plain; name="' + b"\\" * MIB + b"\r\n\r\n",
    "open tags": b"Content-Type: text/html\r\n\r\n" + b"<" * MIB,
    "open comments": b"Content-Type: text/html\r\n\r\n" + b"<!--" * 250_000,
    "open scripts": b"Content-Type: text/html\r\n\r\n" + b"<script>" * 120_000,
    "entities": b"Content-Type: text/html\r\n\r\n" + b"&#" + b"9" * MIB,
    "ampersands": b"Content-Type: text/html\r\n\r\n" + b"&" * MIB,
    "quoted-printable": b"Content-Type: text/plain\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n" + b"=\r\n" * 340_000,
    "base64 rubbish": b"Content-Type: text/plain\r\nContent-Transfer-Encoding: base64\r\n\r\n" + b"=" * MIB,
    "calendar folds": b"BEGIN:VCALENDAR\r\nSUMMARY:" + b"\r\n " * 300_000,
    "calendar parameters": b"BEGIN:VCALENDAR\r\nSUMMARY" + b';x="a"' * 170_000,
    "calendar quotes": b"BEGIN:VCALENDAR\r\nORGANIZER" + b';CN="' * 200_000 + b":",
    "calendar properties": b"BEGIN:VCALENDAR\r\n" + b"UID:\r\n" * 150_000,
    "zeros": b"\0" * MIB,
    "line ends": b"\r" * MIB,
    "separators": b"From \n" * 170_000,
    "utf-7": b"Subject: =?utf-7?q?" + b"+2AA-" * 60_000 + b"?=\r\n\r\n",
    "zstd": b"\x28\xb5\x2f\xfd" + b"\xff" * 1000,
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_no_bytes_take_long_or_much_memory_R_251(bomb: str) -> None:
    """R-251: what is listed of an item and a search of it take time and memory in proportion to it: seconds and some MiB for a MiB."""
    data = BOMBS[bomb]
    started = time.process_time()
    summary = summarise(data[: 256 * 1024])
    summarise(data[: 256 * 1024], ics=True)
    assert len(summary.subject) <= 998
    assert len(summary.sender) <= 998
    assert not any(ord(sign) < 32 or 0x7F <= ord(sign) < 0xA0 for sign in summary.subject + summary.sender)
    matches(data, "nothing-like-this")
    assert time.process_time() - started < 5.0
    tracemalloc.start()
    try:
        matches(data, "nothing-like-this")
        _now, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 64 * MIB + 30 * len(data)


def test_bombs_go_in_and_come_out_byte_for_byte_R_097(scene: Scene) -> None:
    """R-097, R-251: they are stored, listed, searched, moved and given back like any other item."""
    small = {name: data[:MIB] for name, data in BOMBS.items()}
    distinct = list(dict.fromkeys(small.values()))
    scene.box("bob@contoso.example").add(*distinct)
    box = scene.box("bob@contoso.example")
    second = scene.contoso.policy("Second", keys=scene.contoso.own_keys("second"))
    assert scene.contoso.assign(second, box).state == "done"
    read = box.read_all()
    assert sorted(distinct) == [data for data in read if data in set(distinct)]
    assert scene.contoso.admin.call("mailbox.search", m.Search(text="nothing-like-this", upn=box.upn)) == []


@pytest.mark.parametrize(
    "folder",
    [
        "",
        "/",
        "..",
        "../../x",
        "a" * 512,
        "\u202egnp",
        "\x1b[2J",
        "a\nb",
        "a\rb",
        "\ud7ff",
        "\uffff",
        "'; DROP TABLE items; --",
        "\U0001f600" * 200,
    ],
)
def test_folder_names_are_only_names_R_251(scene: Scene, folder: str) -> None:
    """R-251: any text a folder can have comes back as it was, sealed in between."""
    box = scene.box("bob@contoso.example")
    assert box.add(b"Subject: f\r\n\r\nf\r\n", folder=folder).imported == 1
    assert (folder or "Inbox") in {item.folder for item in box.items()}


@pytest.mark.parametrize("folder", ["a" * 513, "a\0b", "\ud800"])
def test_folder_names_that_cannot_be_are_refused_R_251(scene: Scene, folder: str) -> None:
    """R-251: too long, a NUL, half a surrogate pair: an error that says so, and nothing is stored."""
    with pytest.raises(InvalidRequest) as caught:
        scene.box("bob@contoso.example").add(b"Subject: f\r\n\r\nf\r\n", folder=folder)
    assert caught.value.code == "folder_name_invalid"


def test_a_million_tiny_items_in_one_batch_are_refused_R_097(scene: Scene) -> None:
    """R-097: a batch has a length; the refusal costs nothing and stores nothing."""
    item = m.ImportItem(position=1, ordinal=1, folder="", data=b"")
    before = scene.world.objects()
    started = time.process_time()
    with pytest.raises(InvalidRequest):
        scene.contoso.admin.call("mailbox.import", m.ImportBatch(upn=ALICE, items=[item] * 1_000_000))
    assert time.process_time() - started < 5.0
    assert scene.world.objects() == before


@pytest.mark.parametrize("ordinal", [-1, 2**32, 2**70])
def test_an_ordinal_that_is_none_is_refused_R_097(scene: Scene, ordinal: int) -> None:
    """R-097: numbers that the hash of an item has no room for."""
    item = m.ImportItem(position=1, ordinal=ordinal, folder="", data=b"x")
    with pytest.raises(InvalidRequest):
        scene.contoso.admin.call("mailbox.import", m.ImportBatch(upn=ALICE, items=[item]))


def within(seconds: float, act: Callable[[], object]) -> BaseException | None:
    """What an act raises; it fails the test when it hangs."""
    raised: list[BaseException | None] = []

    def run() -> None:
        try:
            act()
        except BaseException as error:  # noqa: BLE001 - handed to the test
            raised.append(error)
        else:
            raised.append(None)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    assert raised, "it hangs"
    return raised[0]


def test_pipes_devices_and_links_out_of_the_tree_are_passed_over_R_097(scene: Scene, tmp_path: Path) -> None:
    """R-097: only regular files inside the given tree are opened."""
    outside = tmp_path / "outside.eml"
    outside.write_bytes(b"Subject: outside\r\n\r\nsecret\r\n")
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "good.eml").write_bytes(b"Subject: good\r\n\r\nx\r\n")
    os.mkfifo(tree / "pipe.eml")
    os.mkfifo(tree / "pipe")
    (tree / "link.eml").symlink_to(outside)
    (tree / "loop.eml").symlink_to(tree / "loop.eml")
    (tree / "folder").symlink_to(tmp_path)
    (tree / "zero.eml").symlink_to("/dev/zero")
    client = scene.contoso.admin
    assert within(20, lambda: import_source(client, "bob@contoso.example", open_source(tree))) is None
    assert {"good"} <= {item.subject for item in scene.box("bob@contoso.example").items()}
    assert "outside" not in {item.subject for item in scene.box("bob@contoso.example").items()}


@pytest.mark.parametrize("kind", ["pipe", "link", "gone", "shorter", "folder"])
def test_files_that_change_under_the_import_are_told_and_never_followed_R_097(scene: Scene, tmp_path: Path, kind: str) -> None:
    """R-097: between looking and opening, a file becomes a pipe, a link out of the tree, nothing, shorter or a folder."""
    outside = tmp_path / "outside.eml"
    outside.write_bytes(b"Subject: outside\r\n\r\nsecret secret secret\r\n")
    tree = tmp_path / "tree"
    tree.mkdir()
    file = tree / "a.eml"
    file.write_bytes(b"Subject: good\r\n\r\nx\r\n")
    items = list(open_source(tree))
    file.unlink()
    if kind == "pipe":
        os.mkfifo(file)
    elif kind == "link":
        file.symlink_to(outside)
    elif kind == "shorter":
        file.write_bytes(b"S")
    elif kind == "folder":
        file.mkdir()
    raised = within(10, lambda: items[0].read(0, items[0].length))
    assert isinstance(raised, KeysteadError)
    assert raised.code in {"source_changed", "source_unreadable"}
