"""What comes in over WebDAV, and what of it is kept when something goes wrong: all or nothing."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest

from keystead.api.types import sites as s
from keystead.core.configuration import WebdavConfig
from keystead.core.stores.files import CHUNK_BYTES
from support.webdav import PLANS, ROOT, SECONDS, make_plans, running
from support.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.webdav import Face, Person

HALF = os.urandom(CHUNK_BYTES)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, database: str) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("uploads"), max_file_bytes=4 * CHUNK_BYTES)
    make_plans(made)
    yield made
    made.close()


@pytest.fixture(scope="module")
def face(world: World) -> Iterator[Face]:
    with running(world, config=WebdavConfig(threads=4, body_timeout=3_000)) as running_face:
        yield running_face


@pytest.fixture(scope="module")
def alex(face: Face) -> Person:
    return face.person("alex@contoso.example")


def kept(world: World) -> tuple[int, int]:
    """How many files there are, and what they hold."""
    ((files, size),) = world.sql("SELECT file_count, size_bytes FROM sites WHERE url = ?", PLANS)
    return files, size


@pytest.mark.parametrize("where", ["new", "there"])
@pytest.mark.parametrize("framing", ["length", "chunks", "macos"])
def test_of_an_upload_that_is_cut_off_nothing_is_kept(world: World, alex: Person, where: str, framing: str) -> None:
    path = f"{ROOT}/{where}-{framing}"
    if where == "there":
        assert alex.put(path, b"before").status == 201
    before = kept(world)
    stated = {
        "length": [f"Content-Length: {2 * len(HALF)}"],
        "chunks": ["Transfer-Encoding: chunked"],
        "macos": ["Transfer-Encoding: chunked", f"X-Expected-Entity-Length: {2 * len(HALF)}"],
    }[framing]
    body = HALF if framing == "length" else b"%x\r\n" % len(HALF) + HALF + b"\r\n" + (b"0\r\n\r\n" if framing == "macos" else b"")
    answer = alex.raw(alex.head("PUT", path, *stated) + body, half_closed=True)
    assert b"upload_cut_off" in answer.partition(b"\r\n\r\n")[2]
    assert kept(world) == before
    assert alex.get(path).body == (b"before" if where == "there" else b"404 Not Found\n")


def test_a_client_that_stops_sending_is_told_in_time_and_nothing_is_kept(world: World, alex: Person) -> None:
    before = kept(world)
    answer = alex.raw(alex.head("PUT", f"{ROOT}/stalled", f"Content-Length: {2 * len(HALF)}") + HALF)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert kept(world) == before


def test_a_file_over_the_limit_is_refused_unread(world: World, alex: Person) -> None:
    before = kept(world)
    answer = alex.raw(alex.head("PUT", f"{ROOT}/huge", f"Content-Length: {5 * CHUNK_BYTES}"))
    assert answer.startswith(b"HTTP/1.1 413 ")
    told = alex.ask("PUT", f"{ROOT}/huge", (HALF for _ in range(5)))
    assert (told.status, "file_too_large" in told.text) == (413, True)
    assert kept(world) == before


def test_a_full_site_takes_no_more(world: World, alex: Person) -> None:
    admin = world.as_person("admin@contoso.example")
    _files, size = kept(world)
    admin.call("site.set", s.SetSite(site=PLANS, quota_bytes=size + 10))
    try:
        assert alex.put(f"{ROOT}/fits", b"0123456789").status == 201
        answer = alex.put(f"{ROOT}/no-room", b"1")
        assert (answer.status, "quota_exceeded" in answer.text) == (507, True)
        assert alex.ask("COPY", f"{ROOT}/fits", Destination=f"{ROOT}/copy").status == 507
        assert alex.get(f"{ROOT}/no-room").status == 404
    finally:
        admin.call("site.set", s.SetSite(site=PLANS, quota_bytes=1 << 40))


def test_a_refused_body_is_not_asked_for(face: Face, alex: Person) -> None:
    """100-continue: who is not signed in, or has met a condition that does not hold, sends nothing in vain."""
    length, expect = "Content-Length: 1000000", "Expect: 100-continue"
    answer = face.nobody().raw(face.nobody().head("PUT", f"{ROOT}/file", length, expect))
    assert answer.startswith(b"HTTP/1.1 401 ")
    alex.put(f"{ROOT}/there", b"1")
    answer = alex.raw(alex.head("PUT", f"{ROOT}/there", length, expect, "If-None-Match: *"))
    assert answer.startswith(b"HTTP/1.1 412 ")


def test_a_wanted_body_is_asked_for(alex: Person) -> None:
    with socket.create_connection(alex.address, timeout=SECONDS) as sock:
        sock.sendall(alex.head("PUT", f"{ROOT}/wanted", "Content-Length: 4", "Expect: 100-continue"))
        assert sock.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(b"body")
        assert sock.recv(100).startswith(b"HTTP/1.1 201 ")
    assert alex.get(f"{ROOT}/wanted").body == b"body"


def test_a_large_body_that_is_refused_does_not_hide_the_answer(face: Face) -> None:
    nobody = face.nobody()
    answer = nobody.raw(nobody.head("PUT", f"{ROOT}/file", f"Content-Length: {len(HALF)}") + HALF)
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert b"Connection: close" in answer


@pytest.mark.parametrize(
    ("stated", "status"),
    [
        (("Content-Length: -5",), 400),
        (("Content-Length: 5", "Content-Length: 6"), 400),
        (("Content-Length: 5", "Transfer-Encoding: chunked"), 400),
        (("Content-Length: +5",), 400),
        (("Content-Length: 1_0",), 400),
        (("Content_Length: 5",), 411),
        ((), 411),
        (("Transfer-Encoding: gzip",), 501),
        (("Content-Length: 5", "Content-Encoding: gzip"), 415),
        (("Content-Length: 5", "Content-Range: bytes 0-4/5"), 400),
    ],
)
def test_a_body_whose_length_means_two_things(alex: Person, stated: tuple[str, ...], status: int) -> None:
    answer = alex.raw(alex.head("PUT", f"{ROOT}/ambiguous", *stated) + b"12345")
    assert answer.startswith(b"HTTP/1.1 %d " % status), answer
    assert alex.get(f"{ROOT}/ambiguous").status == 404


@pytest.mark.parametrize(
    "body",
    [
        b"-5\r\n12345\r\n0\r\n\r\n",
        b"0x5\r\n12345\r\n0\r\n\r\n",
        b"5\n12345\n0\n\n",
        b"5\r\n12345XX0\r\n\r\n",
        b"5\r\n1234\r\n0\r\n\r\n",
        b"FFFFFFFFFFFFFFFF\r\n12345\r\n",
        b"7FFFFFFFFFFFFFF\r\n12345\r\n",
        b"1_0\r\n" + b"x" * 16 + b"\r\n0\r\n\r\n",
        b";5\r\n12345\r\n0\r\n\r\n",
        b"5;" + b"a" * 2_000 + b"\r\n12345\r\n0\r\n\r\n",
        b"5\r\n12345\r\n0\r\n" + b"Trailer: a\r\n" * 17 + b"\r\n",
        b"5\r\n12345\r\n",
        b"",
    ],
)
def test_what_are_no_chunks(world: World, alex: Person, body: bytes) -> None:
    before = kept(world)
    answer = alex.raw(alex.head("PUT", f"{ROOT}/no-chunks", "Transfer-Encoding: chunked") + body, half_closed=True)
    assert answer.startswith(b"HTTP/1.1 400 "), answer
    assert kept(world) == before


def test_chunks_with_extensions_and_trailers(alex: Person) -> None:
    body = b"3;name=value\r\n123\r\n2 \r\n45\r\n0\r\nTrailer: a\r\n\r\n"
    again = alex.head("GET", f"{ROOT}/extended")
    request = alex.head("PUT", f"{ROOT}/extended", "Transfer-Encoding: chunked").replace(b"Connection: close\r\n", b"")
    answer = alex.raw(request + body + again)
    assert answer.startswith(b"HTTP/1.1 201 ")
    assert answer.endswith(b"\r\n\r\n12345")
