"""The customer's keys over WebDAV: what they allow, what they deny, and what damaged content looks like (R-105 to R-112)."""

from __future__ import annotations

import os
import socket
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from keystead.core.stores.files import CHUNK_BYTES
from support.file_world import files_world
from support.webdav import SECONDS, running
from support.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.file_world import FilesWorld
    from support.webdav import Face, Person

LARGE = os.urandom(2 * CHUNK_BYTES + 5)


@pytest.fixture
def files(tmp_path: Path, database: str) -> Iterator[FilesWorld]:
    world = World(tmp_path)
    made = files_world(world)
    made.tenant.person("alex", "user")
    made.register()
    made.site("plans")
    yield made
    world.close()


@pytest.fixture
def face(files: FilesWorld) -> Iterator[Face]:
    with running(files.world) as running_face:
        yield running_face


@pytest.fixture
def alex(face: Face) -> Person:
    return face.person("alex@contoso.example")


@pytest.fixture
def root(files: FilesWorld) -> str:
    return "/" + files.sites[0].removeprefix("https://").replace("/", ",")


def test_a_revoked_key_refuses_everything_within_the_probe_interval_and_says_why(files: FilesWorld, alex: Person, root: str) -> None:
    """R-105, R-110"""
    assert alex.put(f"{root}/file", LARGE).status == 201
    for uri in (files.primary, files.secondary):
        files.switch(uri, on=False)
    answers = [
        alex.get(f"{root}/file"),
        alex.put(f"{root}/file", b"2"),
        alex.ask("PROPFIND", f"{root}/", Depth="1"),
        alex.ask("DELETE", f"{root}/file"),
        alex.lock(f"{root}/file")[0],
    ]
    assert [answer.status for answer in answers] == [403] * len(answers)
    assert all("denied" in answer.text for answer in answers), answers
    assert f"{root}/" in alex.names("/"), "that there is a site can be seen without its key"
    for uri in (files.primary, files.secondary):
        files.switch(uri, on=True)
    assert alex.get(f"{root}/file").body == LARGE


def test_a_download_under_way_ends_when_the_keys_are_revoked(files: FilesWorld, alex: Person, root: str) -> None:
    """R-110: each chunk is opened only while the key may be used; the client never takes half a file for a whole one."""
    data = os.urandom(16 * CHUNK_BYTES)
    alex.put(f"{root}/large", data)
    with closing(socket.socket()) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        sock.settimeout(SECONDS)
        sock.connect(alex.address)
        sock.sendall(alex.head("GET", f"{root}/large"))
        got = sock.recv(65_536)
        for uri in (files.primary, files.secondary):
            files.switch(uri, on=False)
        while piece := sock.recv(1 << 20):
            got += piece
    head, _gap, body = got.partition(b"\r\n\r\n")
    assert f"Content-Length: {len(data)}".encode() in head
    assert CHUNK_BYTES <= len(body) < len(data)
    assert body == data[: len(body)]


def test_a_vault_that_is_silent_is_told_with_a_time_to_come_back(files: FilesWorld, alex: Person, root: str) -> None:
    alex.put(f"{root}/file", b"1")
    for vault in files.vaults:
        files.world.vaults.fail(vault, "system-error")
    files.world.forget()
    answer = alex.get(f"{root}/file")
    assert answer.status == 503
    assert int(answer.headers["Retry-After"]) > 0


def test_a_damaged_chunk_is_an_error_and_never_other_content(files: FilesWorld, alex: Person, root: str) -> None:
    """R-112: the first chunk is damaged, so nothing of the file goes out; another file is as it was."""
    alex.put(f"{root}/good", LARGE)
    before = files.world.objects()
    alex.put(f"{root}/bad", LARGE[::-1])
    for ref in files.world.objects() - before:
        container, _slash, name = ref.partition("/")
        for path in (files.world.path / "objects" / container).rglob(name):
            data = bytearray(path.read_bytes())
            data[len(data) // 2] ^= 1
            path.write_bytes(data)
    answer = alex.get(f"{root}/bad")
    assert (answer.status, "file_damaged" in answer.text) == (500, True)
    assert alex.ask("COPY", f"{root}/bad", Destination=f"{root}/copy").status == 500
    assert alex.get(f"{root}/copy").status == 404
    assert alex.get(f"{root}/good").body == LARGE


def test_a_damaged_chunk_in_the_middle_cuts_the_download(files: FilesWorld, face: Face, alex: Person, root: str) -> None:
    before = files.world.objects()
    alex.put(f"{root}/middle", LARGE)
    ((damaged,),) = files.world.sql("SELECT object_ref FROM file_chunks ORDER BY size ASC LIMIT 1")
    assert damaged in files.world.objects() - before
    container, _slash, name = damaged.partition("/")
    for path in (files.world.path / "objects" / container).rglob(name):
        path.write_bytes(b"\x00" * path.stat().st_size)
    answer = alex.raw(alex.head("GET", f"{root}/middle"))
    head, _gap, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert f"Content-Length: {len(LARGE)}".encode() in head
    assert body == LARGE[: len(body)]
    assert len(body) < len(LARGE), "the connection ends before the length that was said"


def test_files_are_read_and_written_while_a_geo_is_rolled(files: FilesWorld, alex: Person, root: str) -> None:
    """R-113"""
    alex.put(f"{root}/before", LARGE)
    files.roll("primary", files.key(files.vaults[0], "files"), wait=False)
    assert alex.put(f"{root}/during", b"2").status == 201
    assert alex.get(f"{root}/before").body == LARGE
    files.finish(files.status())
    assert (alex.get(f"{root}/before").body, alex.get(f"{root}/during").body) == (LARGE, b"2")
